//! The command line: clap types only.

use clap::ValueEnum;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// The public HTTPS face.
    Gateway,
    /// Joins NATS queue groups and runs the procedures.
    Worker,
}

impl Role {
    /// The role's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }
}
