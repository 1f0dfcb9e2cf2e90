//! The life cycle of a process: tasks, cancellation, signals and systemd.

pub mod cancel;
pub mod signals;
pub mod systemd;
pub mod tasks;

pub use cancel::Cancel;
pub use signals::{Signal, Signals};
pub use tasks::Tasks;
