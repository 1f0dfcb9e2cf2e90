//! The queue of commands that this process has yet to execute.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{CommandAnswer, ControlCommand};
use crate::lifecycle::Tasks;

/// The reason reported for a command that was not executed.
const LATE: &str = "received too late, and not executed";

/// A command that this process must execute and reply to.
#[derive(Debug)]
pub struct ReceivedCommand {
    /// The command.
    pub command: ControlCommand,
    /// The time until which the sender waits for the reply.
    pub deadline: Instant,
    pub(super) answer: CommandAnswer,
}

impl ReceivedCommand {
    /// Separates the command from the data needed to reply to it.
    #[must_use]
    pub fn into_parts(self) -> (ControlCommand, Instant, CommandAnswer) {
        (self.command, self.deadline, self.answer)
    }

    /// Returns the command if its sender is still waiting. Otherwise, replies that the command was not executed.
    pub(super) async fn in_time(self) -> Option<Self> {
        if Instant::now() < self.deadline {
            return Some(self);
        }
        self.answer.send(Err(vec![LATE.to_owned()])).await;
        None
    }
}

/// Receives the commands that this process must execute.
#[derive(Debug)]
pub struct CommandReceiver {
    pub(super) commands: mpsc::Receiver<ReceivedCommand>,
    pub(super) tasks: Tasks,
}

impl CommandReceiver {
    /// Returns the next command whose sender is still waiting. Returns `None` if no more commands can arrive. Cancel
    /// safe.
    pub async fn recv(&mut self) -> Option<ReceivedCommand> {
        loop {
            let received = self.commands.recv().await?;
            if Instant::now() < received.deadline {
                return Some(received);
            }
            // A separate task sends the reply, because this function must not lose a command if it is cancelled.
            let _detached = self.tasks.spawn_background(received.in_time());
        }
    }
}
