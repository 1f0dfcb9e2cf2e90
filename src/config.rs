//! The configuration as it was checked: what every part of fjord is made from.

use std::path::PathBuf;

use crate::cli::Role;

pub mod admin;
pub mod auth;
pub mod catalogue;
pub mod duration;
pub mod gateway;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod messaging;
pub mod procedures;
pub mod secret;
pub mod tls;
pub mod worker;

pub use admin::AdminConfig;
pub use auth::AuthConfig;
pub use catalogue::CatalogueConfig;
pub use gateway::GatewayConfig;
pub use lifecycle::LifecycleConfig;
pub use log::LogConfig;
pub use messaging::MessagingConfig;
pub use procedures::ProceduresConfig;
pub use secret::Secret;
pub use worker::WorkerConfig;

/// Everything, checked. Made only from settings that have no mistake.
#[derive(Clone, Debug)]
pub struct Config {
    /// The role this process runs, when one was chosen.
    pub role: Option<Role>,
    /// Where the layers were read from.
    pub directory: PathBuf,
    /// The catalogue's place and what endpoints inherit.
    pub catalogue: CatalogueConfig,
    /// The message bus.
    pub messaging: MessagingConfig,
    /// The public side.
    pub gateway: GatewayConfig,
    /// The queues that this worker serves.
    pub worker: WorkerConfig,
    /// Where procedures run.
    pub procedures: ProceduresConfig,
    /// How callers prove who they are.
    pub auth: AuthConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
    /// Start, drain, end.
    pub lifecycle: LifecycleConfig,
}
