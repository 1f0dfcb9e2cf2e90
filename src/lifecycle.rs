//! How a process starts, drains and ends.

pub mod cancel;
pub mod signals;
pub mod systemd;
pub mod tasks;

pub use cancel::Cancel;
pub use signals::{Signal, Signals};
pub use tasks::Tasks;
