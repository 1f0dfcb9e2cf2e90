//! Cancellation of calls.

use tokio_util::sync::CancellationToken;

/// A flag that tells a call to stop. Cloning it is cheap. It cannot be reset.
///
/// When a client disconnects, its call is cancelled with this flag instead of by dropping the
/// future. The call must still stop the procedure, close the connection and free the slot.
#[derive(Clone, Debug, Default)]
pub struct Cancel(CancellationToken);

impl Cancel {
    /// Creates a flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag for all clones.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Returns a child flag. It is set together with this flag and can also be set on its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Returns a guard that sets the flag when it is dropped.
    #[must_use]
    pub fn cancel_on_drop(&self) -> impl Drop + Send + use<> {
        self.0.clone().drop_guard()
    }

    /// Returns whether the flag is set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the flag is set. Cancel safe.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }
}
