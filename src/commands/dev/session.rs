//! The running processes of `fjord dev`. This module reloads or restarts them after changes, and stops them in order.
//!
//! The file is longer than 400 lines, because all methods control the same processes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use super::child::ChildProcess;
use super::console::{self, Console};
use super::introduction;
use super::plan::{DevPlan, RunFiles};
use super::role_process::{RoleProcess, RoleState};
use super::watcher::{Changes, WatchedKind, Watcher};
use crate::cli::Role;
use crate::commands::{EXIT_CONFIG, EXIT_FAILED, EXIT_USAGE};
use crate::config::Sources;
use crate::config::procedures::DatabaseConfig;
use crate::lifecycle::Signals;

/// The interval between two queries for the state of a process that is not ready.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// The time after which the addresses are printed even if a process is not ready. The reasons are printed with them.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// The maximum time to wait for a process to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Replaces `STOP_LIMIT` after a process has exited unexpectedly. Without that process, the others cannot finish their
/// work.
const STOP_LIMIT_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The maximum time to wait for a process to apply or reject changed files.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);
/// The maximum time to wait for the worker's queues to serve their new endpoints.
const QUEUES_LIMIT: Duration = Duration::from_secs(3);

/// All running processes and their configuration.
pub(super) struct DevSession<'a, O, E> {
    base: &'a Sources,
    files: RunFiles<'a>,
    plan: DevPlan,
    executable: PathBuf,
    console: Console<'a, O, E>,
    nats: ChildProcess,
    gateway: RoleProcess,
    worker: RoleProcess,
    watcher: Watcher,
    polls: Interval,
    started: Instant,
    /// Changes that have not been applied because another file was invalid.
    pending: Changes,
    /// Whether the addresses have been printed.
    is_introduced: bool,
    /// The maximum time to wait for a process to stop when the session ends.
    stop_limit: Duration,
}

/// An event to which the session responds.
enum DevEvent {
    Stopped,
    NatsEnded(ExitStatus),
    RoleEnded(Role, ExitStatus),
    Changed(Changes),
    /// The processes are due to be queried for their state.
    Poll,
}

impl<'a, O: Write, E: Write> DevSession<'a, O, E> {
    /// Starts both roles.
    ///
    /// # Errors
    /// Returns the operating system's error.
    pub(super) fn start(
        base: &'a Sources,
        files: RunFiles<'a>,
        plan: DevPlan,
        console: Console<'a, O, E>,
        (nats, started): (ChildProcess, Instant),
    ) -> io::Result<Self> {
        let executable = std::env::current_exe()?;
        let context = console.context();
        let start =
            |role, sources, port| RoleProcess::start(role, &executable, sources, port, &context);
        let worker = start(Role::Worker, &plan.worker, plan.ports.worker_admin.port)?;
        let gateway = start(Role::Gateway, &plan.gateway, plan.ports.gateway_admin.port)?;
        let mut polls = interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watcher = Watcher::new(&plan);
        Ok(Self {
            base,
            files,
            plan,
            executable,
            console,
            nats,
            gateway,
            worker,
            watcher,
            polls,
            started,
            pending: Changes::new(),
            is_introduced: false,
            stop_limit: STOP_LIMIT,
        })
    }

    /// Handles events until a signal arrives or a process exits unexpectedly. Returns the exit status.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written or a process cannot be started.
    pub(super) async fn run(&mut self, signals: &mut Signals) -> io::Result<ExitCode> {
        for remark in self.plan.ports.remarks() {
            self.console.say(&remark)?;
        }
        loop {
            match self.next_event(signals).await? {
                DevEvent::Stopped => return Ok(ExitCode::SUCCESS),
                DevEvent::NatsEnded(status) => {
                    let last = self.nats.last_lines().await;
                    self.console.print_pending()?;
                    let lines: Vec<String> = last.iter().map(console::format).collect();
                    return self.died(self.nats.name(), status, &lines);
                }
                DevEvent::RoleEnded(role, status) => {
                    if let Some(status) = self.role_ended(role, status).await? {
                        return Ok(status);
                    }
                }
                DevEvent::Changed(changes) => self.apply(changes).await?,
                DevEvent::Poll => self.poll_state().await?,
            }
        }
    }

    /// Stops all processes. The gateway is stopped first, because it may still be waiting for answers from the worker.
    /// A second signal kills the processes.
    ///
    /// # Errors
    /// Returns an I/O error if the output cannot be written or a process cannot be signalled.
    pub(super) async fn stop(&mut self, signals: &mut Signals) -> io::Result<()> {
        for role in Role::ALL {
            self.console.set_settled(role.as_str(), false)?;
        }
        self.console.say("\nstopping …")?;
        let Self { gateway, worker, nats, console, stop_limit, .. } = self;
        let work = async {
            gateway.stop(*stop_limit).await?;
            worker.stop(*stop_limit).await?;
            nats.stop(*stop_limit).await
        };
        tokio::select! {
            stopped = console.during(work) => stopped?,
            // Dropping the processes kills them.
            _ = signals.next() => Ok(()),
        }
    }

    async fn next_event(&mut self, signals: &mut Signals) -> io::Result<DevEvent> {
        let is_starting = self.gateway.is_starting() || self.worker.is_starting();
        loop {
            tokio::select! {
                biased;
                _ = signals.next() => return Ok(DevEvent::Stopped),
                ended = self.nats.wait() => return Ok(DevEvent::NatsEnded(ended?)),
                ended = self.gateway.ended() => {
                    return Ok(DevEvent::RoleEnded(Role::Gateway, ended?));
                }
                ended = self.worker.ended() => {
                    return Ok(DevEvent::RoleEnded(Role::Worker, ended?));
                }
                changes = self.watcher.changed() => return Ok(DevEvent::Changed(changes)),
                _ = self.polls.tick(), if is_starting => return Ok(DevEvent::Poll),
                // This branch is last, so that a flood of lines does not delay the other events.
                printed = self.console.print_next() => printed?,
            }
        }
    }

    fn role(&mut self, role: Role) -> &mut RoleProcess {
        match role {
            Role::Gateway => &mut self.gateway,
            Role::Worker => &mut self.worker,
        }
    }

    /// Handles the exit of a role's process. Returns the exit status, or `None` if the process can be started again
    /// after a file has been corrected.
    async fn role_ended(&mut self, role: Role, status: ExitStatus) -> io::Result<Option<ExitCode>> {
        let name = role.as_str();
        let last = match self.role(role).process() {
            Some(process) => process.last_lines().await,
            None => Vec::new(),
        };
        self.role(role).forget();
        self.console.set_settled(name, false)?;
        if status.code() != Some(i32::from(EXIT_CONFIG)) {
            let lines: Vec<String> = last.iter().map(console::format).collect();
            return self.died(name, status, &lines).map(Some);
        }
        if !self.is_introduced {
            return Ok(Some(ExitCode::from(EXIT_USAGE)));
        }
        let text = format!(
            "the {name} does not start with these files: it is started again after the next change"
        );
        self.console.say(&text)?;
        Ok(None)
    }

    /// Reports that a process has exited unexpectedly.
    fn died(
        &mut self,
        name: &str,
        status: ExitStatus,
        last_lines: &[String],
    ) -> io::Result<ExitCode> {
        self.console.errors(&[format!("{name} has ended ({status}); its last lines:")])?;
        self.console.errors(last_lines)?;
        self.stop_limit = STOP_LIMIT_AFTER_FAILURE;
        Ok(ExitCode::from(EXIT_FAILED))
    }

    /// Queries the processes for their state and reports when they are ready.
    async fn poll_state(&mut self) -> io::Result<()> {
        let mut problems = Vec::new();
        for role in [Role::Worker, Role::Gateway] {
            if !self.role(role).is_starting() {
                continue;
            }
            let (state, name) = (self.role(role).poll_state().await, role.as_str());
            let seconds = self.role(role).age().as_secs_f64();
            match state {
                RoleState::NotReady(reasons) if reasons.is_empty() => {
                    problems.push(format!("the {name} is not ready yet"));
                }
                RoleState::NotReady(reasons) => {
                    problems
                        .extend(reasons.iter().map(|it| format!("the {name} is not ready: {it}")));
                }
                RoleState::Ready(notes) => {
                    self.console.set_settled(name, true)?;
                    let notes: Vec<String> =
                        notes.iter().map(|note| format!("the {name}: {note}")).collect();
                    if self.is_introduced {
                        self.console.say(&format!("the {name} is ready after {seconds:.1} s"))?;
                        self.console.errors(&notes)?;
                    } else {
                        problems.extend(notes);
                    }
                }
            }
        }
        let is_ready = !self.gateway.is_starting() && !self.worker.is_starting();
        if self.is_introduced || !(is_ready || self.started.elapsed() > READY_LIMIT) {
            return Ok(());
        }
        self.is_introduced = true;
        let environment = introduction::write_environment(&self.plan, &self.files)?;
        let text = introduction::text(&self.plan, &self.files, &environment);
        let state = if is_ready { "Ready" } else { "Not ready" };
        let directory = self.base.directory().display();
        let seconds = self.started.elapsed().as_secs_f64();
        self.console.say(&text)?;
        self.console.errors(&problems)?;
        self.console.say(&format!(
            "{state} after {seconds:.1} s. Changes in {directory} are applied when files are saved. Ctrl-C stops everything."
        ))
    }

    /// Applies changed files if they are valid, together with earlier changes that have not been applied.
    async fn apply(&mut self, mut changes: Changes) -> io::Result<()> {
        if changes.remove(&WatchedKind::Schema).is_some() {
            self.console.say(&self.advice_for_schema())?;
            if changes.is_empty() {
                return Ok(());
            }
        }
        for (kind, paths) in std::mem::take(&mut self.pending) {
            changes.entry(kind).or_default().extend(paths);
        }
        let names: Vec<String> =
            changes.values().flatten().map(|path| self.relative(path)).collect();
        let names = names.join(", ");
        match DevPlan::load(self.base, &self.files, Some(self.plan.ports)) {
            Ok(plan) => self.plan = plan,
            Err(errors) => {
                self.pending = changes;
                self.console.errors(&errors)?;
                let text = format!("{names}: not applied; the previous version stays in use");
                return self.console.say(&text);
            }
        }
        self.watcher.watch(&self.plan);
        if changes.contains_key(&WatchedKind::Configuration) {
            self.console
                .say(&format!("{names}: changed; restarting the gateway and the worker"))?;
            self.restart(Role::Gateway).await?;
            return self.restart(Role::Worker).await;
        }
        let is_gateway_affected = changes.contains_key(&WatchedKind::Catalogue);
        // The worker is reloaded first, so that it knows a new endpoint before the gateway sends requests to it.
        let is_applied = self.reload(Role::Worker).await?
            && (!is_gateway_affected || self.reload(Role::Gateway).await?);
        if is_applied {
            return self.console.say(&format!("{names}: applied"));
        }
        self.pending = changes;
        self.console.say(&format!("{names}: not applied; the previous version stays in use"))
    }

    /// Makes a role reload its files. Returns whether the role has applied them.
    async fn reload(&mut self, role: Role) -> io::Result<bool> {
        let before = self.role(role).reloads().await;
        // The reload count of a process that does not respond yet is unknown.
        let (Some(process), true) = (self.role(role).process(), before.is_some()) else {
            self.restart(role).await?;
            return Ok(true);
        };
        process.signal(Signal::SIGHUP)?;
        let process = match role {
            Role::Gateway => &self.gateway,
            Role::Worker => &self.worker,
        };
        let result = self.console.during(async {
            let end = Instant::now() + RELOAD_LIMIT;
            loop {
                let after = process.reloads().await;
                if after != before || Instant::now() > end {
                    break after.zip(before);
                }
                sleep(POLL_INTERVAL).await;
            }
        });
        match result.await? {
            Some((after, before)) if after.0 > before.0 => {}
            Some((after, before)) if after.1 > before.1 => return Ok(false),
            _ => {
                let name = role.as_str();
                let text =
                    format!("the {name} has not applied the changes within {RELOAD_LIMIT:?}");
                self.console.errors(&[text])?;
                return Ok(false);
            }
        }
        if role == Role::Worker {
            self.wait_for_queues().await?;
        }
        Ok(true)
    }

    /// Waits until every queue of the worker serves its new endpoints. If a queue does not do so in time, prints the
    /// reasons.
    async fn wait_for_queues(&mut self) -> io::Result<()> {
        let worker = &self.worker;
        let pending = self.console.during(async {
            let end = Instant::now() + QUEUES_LIMIT;
            loop {
                let pending = worker.pending().await;
                if pending.is_empty() || Instant::now() > end {
                    break pending;
                }
                sleep(POLL_INTERVAL).await;
            }
        });
        let pending = pending.await?;
        self.console.errors(&pending)
    }

    /// Stops the process of a role if it is running, and starts it with the current configuration.
    async fn restart(&mut self, role: Role) -> io::Result<()> {
        self.console.set_settled(role.as_str(), false)?;
        let (process, sources, port) = match role {
            Role::Gateway => {
                (&mut self.gateway, &self.plan.gateway, self.plan.ports.gateway_admin.port)
            }
            Role::Worker => {
                (&mut self.worker, &self.plan.worker, self.plan.ports.worker_admin.port)
            }
        };
        self.console.during(process.stop(STOP_LIMIT)).await??;
        let context = self.console.context();
        *process = RoleProcess::start(role, &self.executable, sources, port, &context)?;
        Ok(())
    }

    /// Returns a path relative to the configuration directory, for messages.
    fn relative(&self, path: &std::path::Path) -> String {
        path.strip_prefix(self.base.directory()).unwrap_or(path).display().to_string()
    }

    /// Returns the message that is printed when a schema has changed. The change has no effect on an existing database.
    fn advice_for_schema(&self) -> String {
        let databases = self.plan.worker_config.procedures.databases.values();
        let files = databases.filter_map(|database| match database {
            DatabaseConfig::Sqlite(sqlite) if sqlite.schema.is_some() => {
                Some(self.relative(&sqlite.file))
            }
            _ => None,
        });
        let files = files.collect::<Vec<_>>().join(", ");
        format!(
            "the schema has changed: it is executed only in a new database; to use it, stop, delete {files}, and start again"
        )
    }
}
