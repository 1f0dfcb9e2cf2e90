//! Messages from operators to all processes over NATS: queries from `fjord status`, NATS service API requests, and
//! commands.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::Role;
use crate::config::MessagingConfig;
use crate::lifecycle::Tasks;
use crate::message::Subject;
use crate::messaging::{Transport, TransportError};

pub mod control;
pub mod headroom;
pub mod monitor;
pub mod query;
pub mod report;
pub mod service;
pub(crate) mod view;

use control::CommandReceiver;
pub use report::Report;

/// The maximum age of a report that is sent. Creating a report costs as much as a scrape, and the number of queries is
/// not limited.
const REPORT_AGE_MAX: Duration = Duration::from_millis(100);
/// The file in which Linux provides the host name.
const HOST_FILE: &str = "/proc/sys/kernel/hostname";

/// A function that creates the report of this process. It must not block.
pub type ReportSource = Arc<dyn Fn(&ProcessIdentity) -> Report + Send + Sync>;

/// The identity of a process.
#[derive(Clone, Debug)]
pub struct ProcessIdentity {
    /// The role.
    pub role: Role,
    /// A unique id: the last token of the inbox.
    pub id: String,
    /// The host name.
    pub host: String,
    /// The prefix of all subjects of the fleet.
    pub prefix: Subject,
    /// The start time in RFC 3339 format, with microseconds and in UTC.
    pub started: String,
    started_at: Instant,
}

/// Returns the name of this host. Empty if the kernel does not provide it.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string(HOST_FILE).unwrap_or_default().trim().to_owned()
}

impl ProcessIdentity {
    /// Creates the identity of this process. Its start time is the current time.
    #[must_use]
    pub fn new(role: Role, prefix: Subject, inbox: &Subject) -> Self {
        Self {
            role,
            id: inbox.as_str().rsplit('.').next().unwrap_or_default().to_owned(),
            host: host_name(),
            prefix,
            started: chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            started_at: Instant::now(),
        }
    }

    /// Returns the time since the process started.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }
}

/// This process as a member of the fleet, and the source of its reports.
pub struct FleetMember {
    /// The identity of the process.
    pub identity: ProcessIdentity,
    source: ReportSource,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl fmt::Debug for FleetMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetMember").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Answers status queries and, if enabled, NATS service API requests until the transport closes. Returns the receiver
/// of operators' commands.
///
/// # Errors
/// Returns `TransportError` if a subscription fails.
pub async fn join(
    config: &MessagingConfig,
    member: &Arc<FleetMember>,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<CommandReceiver, TransportError> {
    query::serve(member, transport, tasks).await?;
    if config.service_api {
        service::serve(member, transport, tasks).await?;
    }
    control::serve(member, transport, tasks).await
}

impl FleetMember {
    /// Creates a member.
    #[must_use]
    pub fn new(identity: ProcessIdentity, source: ReportSource) -> Arc<Self> {
        Arc::new(Self { identity, source, last: Mutex::default() })
    }

    /// Returns the current report, which can be up to `REPORT_AGE_MAX` old.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, report)) = last.as_ref()
            && at.elapsed() < REPORT_AGE_MAX
        {
            return Arc::clone(report);
        }
        let report = Arc::new((self.source)(&self.identity));
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }
}
