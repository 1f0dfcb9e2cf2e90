//! `fjord ec2 watch`: stops the roles on this host when EC2 announces that it will stop the instance.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use tokio::time::sleep;

use super::drain::{Drain, DrainProgress};
use super::failed;
use super::failure_log::FailureLog;
use super::http_client::HttpClient;
use super::instance_metadata::InstanceMetadata;
use super::notices::{NoticeChanges, Notices};
use super::termination::Termination;
use crate::cli::WatchArguments;
use crate::commands::Output;
use crate::commands::printable::printable;
use crate::telemetry::logs;

/// The maximum interval between queries while units are stopping.
const STOP_QUERY_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the command. Each query reads the notices and the states of the units again.
struct Watch<'a> {
    arguments: &'a WatchArguments,
    client: HttpClient,
    metadata: InstanceMetadata,
    notices: Notices,
    /// The drain. Present while a notice is in effect.
    drain: Option<Drain>,
    /// The termination by the autoscaling group. Present while it is announced.
    termination: Option<Termination>,
    metadata_failures: FailureLog,
}

pub(super) fn run(
    arguments: &WatchArguments,
    client: HttpClient,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    logs::warn_on_stderr();
    let direct = match HttpClient::direct(arguments.aws.ca.as_deref()) {
        Ok(direct) => direct,
        Err(failure) => return failed(&failure, output),
    };
    let mut watch = Watch {
        arguments,
        client,
        metadata: InstanceMetadata::new(direct, &arguments.aws.metadata_url),
        notices: Notices::default(),
        drain: None,
        termination: None,
        metadata_failures: FailureLog::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch.run(output))
}

impl Watch<'_> {
    async fn run(&mut self, output: &mut Output<impl Write, impl Write>) -> io::Result<ExitCode> {
        let interval = Duration::from_secs(self.arguments.interval);
        let stop_limit = Duration::from_secs(self.arguments.stop_timeout);
        loop {
            let ignores_rebalance = self.arguments.ignore_rebalance;
            let changes = self.notices.refresh(&mut self.metadata, ignores_rebalance).await;
            self.report(changes, output)?;
            let mut pause = interval;
            if self.notices.is_empty() {
                self.drain = None;
                self.termination = None;
            } else {
                let drain = self.drain.get_or_insert_with(|| Drain::new(stop_limit));
                let progress = drain.advance(output).await?;
                if let Some(status) = self.terminate(progress, output).await? {
                    return Ok(status);
                }
                if progress == DrainProgress::Stopping {
                    pause = pause.min(STOP_QUERY_INTERVAL);
                }
            }
            sleep(pause).await;
        }
    }

    /// Reports new and withdrawn notices, and failures of the metadata service.
    fn report(
        &mut self,
        NoticeChanges { new, withdrawn, missed, failure }: NoticeChanges,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<()> {
        match failure {
            Some(failure) => self.metadata_failures.log(&failure, output)?,
            None if self.metadata_failures.recover() => {
                writeln!(output.out, "the instance metadata can be read again")?;
            }
            None => {}
        }
        for notice in &new {
            writeln!(output.out, "{}: draining this host", printable(&notice.to_string()))?;
        }
        for notice in &withdrawn {
            let what =
                "this notice is no longer in effect; roles that have stopped must be started";
            writeln!(output.out, "{}: {what}", printable(&notice.to_string()))?;
        }
        if let Some(notice) = &missed {
            let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
            let what = format!(
                "the interruption is over according to this host's clock ({now}), so the host is not drained"
            );
            writeln!(output.err, "error: {}: {what}", printable(&notice.to_string()))?;
        }
        output.out.flush()
    }

    /// Handles the termination by the group if it is announced. Returns the exit status once the termination has been
    /// handled.
    async fn terminate(
        &mut self,
        progress: DrainProgress,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<Option<ExitCode>> {
        if !self.notices.is_terminating() {
            // The command keeps running, because the group may still terminate the instance.
            self.termination = None;
            return Ok(None);
        }
        let termination =
            self.termination.get_or_insert_with(|| Termination::new(&self.client, self.arguments));
        termination.advance(progress, &mut self.metadata, output).await
    }
}
