//! The sign that nobody waits for a call any more.

use tokio_util::sync::CancellationToken;

/// Says that a call should stop. Cheap to clone; once given it stays given.
///
/// A client's leaving is a `Cancel`, not a dropped future: the call it was for still has to stop the
/// procedure, close its connection and free its slot.
#[derive(Clone, Debug, Default)]
pub struct Cancel(CancellationToken);

impl Cancel {
    /// A sign that has not been given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the sign to every clone.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Gives the sign when what is returned is dropped.
    #[must_use]
    pub fn given_at_the_end(&self) -> impl Drop + Send + use<> {
        self.0.clone().drop_guard()
    }

    /// Whether the sign was given.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the sign. Safe to drop and to call again.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }
}
