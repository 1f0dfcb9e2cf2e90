//! Executes operators' commands in a gateway.

use crate::config::Sources;
use crate::fleet::control::{ControlCommand, ControlResult, ReceivedCommand};
use crate::roles::gateway::prepare;
use crate::start_check::{self, StartError};

use super::GatewayProcess;

impl GatewayProcess {
    /// Executes a command, and answers it. Returns whether the gateway must drain.
    pub(super) async fn execute(&mut self, received: ReceivedCommand, sources: &Sources) -> bool {
        let (command, deadline, answer) = received.into_parts();
        let drains = command == ControlCommand::Drain;
        let result = match command {
            ControlCommand::CheckReload => {
                control_result(start_check::load(sources, prepare::prepare).map(drop))
            }
            ControlCommand::Reload => match self.reload(sources) {
                Ok(()) => {
                    let removed = self.removed_endpoints.clone();
                    let _detached = self.tasks.spawn_background(async move {
                        let unused = removed.wait_until_unused(deadline).await;
                        answer.send(unused.map(|()| Vec::new())).await;
                    });
                    return false;
                }
                Err(errors) => control_result(Err(errors)),
            },
            ControlCommand::FinishReload => Ok(Vec::new()),
            ControlCommand::Drain => {
                let count = self.pipeline.in_flight.in_use();
                Ok(vec![format!("drains, with {count} requests in progress")])
            }
        };
        answer.send(result).await;
        drains
    }
}

fn control_result(result: Result<(), Vec<StartError>>) -> ControlResult {
    match result {
        Ok(()) => Ok(Vec::new()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}
