//! How a process starts, drains and ends.

pub mod cancel;
pub mod tasks;

pub use cancel::Cancel;
pub use tasks::Tasks;
