//! What a process tells its fleet over the bus: who it is, what it serves, how loaded it is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::Role;
use crate::config::MessagingConfig;
use crate::lifecycle::Tasks;
use crate::message::Subject;
use crate::messaging::{Transport, TransportError};

pub mod ask;
pub mod report;
pub mod service;

pub use report::Report;

/// How old a report may be that is sent. Reading all figures costs as much as a scrape, and anybody may ask.
const REPORT_AGE_MAX: Duration = Duration::from_millis(100);
/// Where Linux says the name of the host.
const HOST_FILE: &str = "/proc/sys/kernel/hostname";

/// Makes the report of this process. It must not wait for anything.
pub type ReportSource = Arc<dyn Fn(&Identity) -> Report + Send + Sync>;

/// Who a process is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its role.
    pub role: Role,
    /// Unique among all that run: the last token of its inbox.
    pub id: String,
    /// The host that it runs on.
    pub host: String,
    /// The fleet's prefix.
    pub prefix: Subject,
    /// When it started, as RFC 3339 with microseconds in UTC.
    pub started: String,
    began: Instant,
}

/// The name of this host as the system has it; empty where it does not say.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string(HOST_FILE).unwrap_or_default().trim().to_owned()
}

impl Identity {
    /// This process, from now on.
    #[must_use]
    pub fn new(role: Role, prefix: Subject, inbox: &Subject) -> Self {
        Self {
            role,
            id: inbox.as_str().rsplit('.').next().unwrap_or_default().to_owned(),
            host: host_name(),
            prefix,
            started: chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            began: Instant::now(),
        }
    }

    /// For how long it runs.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }
}

/// A process that tells about itself.
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    source: ReportSource,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Answers whoever asks about this process, until the transport closes.
///
/// # Errors
/// `TransportError` when a subscription is not taken.
pub async fn tell(
    config: &MessagingConfig,
    role: Role,
    source: ReportSource,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<(), TransportError> {
    let identity = Identity::new(role, config.prefix.clone(), &transport.inbox());
    let member = Member::new(identity, source);
    ask::answer(&member, transport, tasks).await?;
    if config.service_api {
        service::serve(&member, transport, tasks).await?;
    }
    Ok(())
}

impl Member {
    /// A process with what makes its reports.
    #[must_use]
    pub fn new(identity: Identity, source: ReportSource) -> Arc<Self> {
        Arc::new(Self { identity, source, last: Mutex::default() })
    }

    /// What holds now, or did a moment ago.
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
