//! Executes operators' commands in a gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::timeout_at;

use crate::catalogue::EndpointId;
use crate::config::Sources;
use crate::fleet;
use crate::fleet::control::{CommandReceiver, ControlCommand, ControlResult, ReceivedCommand};
use crate::lifecycle::Cancel;
use crate::messaging;
use crate::roles::gateway::observation::queue_weights;
use crate::roles::gateway::prepare;
use crate::spelling;
use crate::start_check::{self, StartError};

use super::GatewayProcess;

impl GatewayProcess {
    /// Executes a command, and answers it. Returns whether the gateway must drain.
    pub(super) async fn execute(&mut self, received: ReceivedCommand, sources: &Sources) -> bool {
        let (command, deadline, answer) = received.into_parts();
        let drains = command == ControlCommand::Drain;
        let result = match command {
            ControlCommand::CheckReload => {
                control_result(start_check::load(sources, prepare::prepare).map(|_| Vec::new()))
            }
            ControlCommand::Reload { .. } => match self.reload(sources) {
                Ok(notes) => {
                    // A newer reload ends the wait of the previous one, so that at most one reload waits.
                    self.newer_reload.cancel();
                    self.newer_reload = Cancel::new();
                    let newer_reload = self.newer_reload.clone();
                    let removed = self.removed_endpoints.clone();
                    let transport = Arc::clone(self.pipeline.dispatcher.transport());
                    let _detached = self.tasks.spawn_background(async move {
                        let settings = messaging::settings_applied(&*transport, deadline).await;
                        let unused = tokio::select! {
                            unused = removed.wait_until_unused(deadline) => unused,
                            () = newer_reload.cancelled() => {
                                Err(vec!["another reload has begun".to_owned()])
                            }
                        };
                        let result = unused.map(|()| notes);
                        answer.send(fleet::control::also(result, settings)).await;
                    });
                    return false;
                }
                Err(errors) => control_result(Err(errors)),
            },
            ControlCommand::Drain => {
                let count = self.pipeline.in_flight.in_use();
                Ok(vec![format!("drains, with {count} requests in progress")])
            }
            ControlCommand::WeighQueues { endpoint, weights } => {
                self.weigh_queues(&endpoint, &weights).map_err(|fault| vec![fault])
            }
            // There is nothing to do. The receiver passes all other commands for queues only to workers, and
            // executes the log command itself.
            ControlCommand::FinishReload { .. }
            | ControlCommand::PauseQueues { .. }
            | ControlCommand::ResumeQueues { .. }
            | ControlCommand::LimitQueue { .. }
            | ControlCommand::SetLogFilter { .. } => Ok(Vec::new()),
        };
        answer.send(result).await;
        drains
    }

    /// Answers commands while the gateway drains. A reload does not read the files again. It is answered only when
    /// the last request is complete, because workers may drop endpoints when the reload finishes.
    pub(super) fn answer_while_draining(&self, mut commands: CommandReceiver) {
        let all_complete = self.stop.clone();
        let _detached = self.tasks.spawn_background(async move {
            while let Some(received) = commands.recv().await {
                let (command, deadline, answer) = received.into_parts();
                let must_wait = matches!(command, ControlCommand::Reload { .. });
                let is_complete =
                    !must_wait || timeout_at(deadline, all_complete.cancelled()).await.is_ok();
                let result = if is_complete {
                    Ok(vec!["it is draining".to_owned()])
                } else {
                    Err(vec![
                        "the gateway is draining, and still accepts requests or has requests in progress"
                            .to_owned(),
                    ])
                };
                answer.send(result).await;
            }
        });
    }

    /// Changes the weights of some of an endpoint's queues, starting with the next request. Returns a note with the
    /// weights of all queues of the endpoint.
    fn weigh_queues(
        &self,
        endpoint: &str,
        weights: &BTreeMap<String, u32>,
    ) -> Result<Vec<String>, String> {
        let active_config = self.pipeline.active_config.load();
        let catalogue = &active_config.catalogue;
        let id = EndpointId::new(endpoint).ok();
        let Some(endpoint) = id.and_then(|id| catalogue.get(&id)) else {
            let ids = catalogue.endpoints().iter().map(|endpoint| endpoint.id.as_str());
            let similar = spelling::closest(endpoint, ids);
            let hint = similar.map(|id| format!(", did you mean {id}?")).unwrap_or_default();
            return Err(format!("there is no endpoint {endpoint:?}{hint}"));
        };
        let id = &endpoint.id;
        let set = endpoint.queues.set_weights(weights);
        set.map_err(|error| format!("endpoint {id}: {error}"))?;
        queue_weights::publish_endpoint(endpoint);
        Ok(vec![format!("endpoint {id}: {}", queue_weights::describe(endpoint))])
    }
}

fn control_result(result: Result<Vec<String>, Vec<StartError>>) -> ControlResult {
    result.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}
