//! The commands that wait until this process executes them.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{CommandAnswer, ControlCommand};
use crate::lifecycle::Tasks;

/// The reason why a command was not executed.
const LATE: &str = "received too late, and not executed";

/// A command that this process must execute and answer.
#[derive(Debug)]
pub struct ReceivedCommand {
    /// The command.
    pub command: ControlCommand,
    /// When the sender expects the reply.
    pub deadline: Instant,
    pub(super) answer: CommandAnswer,
}

impl ReceivedCommand {
    /// Separates the command from the means to reply to it.
    #[must_use]
    pub fn into_parts(self) -> (ControlCommand, Instant, CommandAnswer) {
        (self.command, self.deadline, self.answer)
    }

    /// Returns the command if its sender still waits for the reply. Otherwise answers that it was not executed.
    pub(super) async fn in_time(self) -> Option<Self> {
        if Instant::now() < self.deadline {
            return Some(self);
        }
        self.answer.send(Err(vec![LATE.to_owned()])).await;
        None
    }
}

/// The commands that this process must execute.
#[derive(Debug)]
pub struct CommandReceiver {
    pub(super) commands: mpsc::Receiver<ReceivedCommand>,
    pub(super) tasks: Tasks,
}

impl CommandReceiver {
    /// Returns the next command whose sender still waits for the reply. `None` if there can be no more. Cancel safe.
    pub async fn recv(&mut self) -> Option<ReceivedCommand> {
        loop {
            let received = self.commands.recv().await?;
            if Instant::now() < received.deadline {
                return Some(received);
            }
            // Answered by a task, because this function must not lose a command when it is cancelled.
            let _detached = self.tasks.spawn_background(received.in_time());
        }
    }
}
