//! Reloads a running worker: applies every change to the configuration that needs no restart.

use std::time::Duration;

use crate::config::{LoadedConfig, Sources};
use crate::roles;
use crate::roles::worker::execution::procedure::failure_log;
use crate::roles::worker::prepare::{self, PreparedWorker, RunningParts};
use crate::start_check::{self, StartError};

use super::queues::Rollout;
use super::{WorkerProcess, log_connection_limits};

/// The time for which a reload by signal waits for every queue to serve the new configuration. After that, it logs the
/// queues that do not.
const ROLLOUT_LIMIT: Duration = Duration::from_mins(1);

impl WorkerProcess {
    /// Reads the configuration and all files in the same way as a reload, but changes nothing.
    pub(super) fn prepare_reload(
        &self,
        sources: &Sources,
    ) -> Result<(LoadedConfig, PreparedWorker), Vec<StartError>> {
        let running = RunningParts {
            databases: &self.databases,
            prefix: &self.config.messaging.prefix,
            first_index: self.queues.next_index,
        };
        start_check::load(sources, |loaded| prepare::prepare_reload(loaded, &running))
    }

    /// Reloads the configuration and all files. An error changes nothing. With `keeps_removed`, queues and endpoints that the
    /// configuration no longer has are still served.
    pub(super) fn reload(
        &mut self,
        sources: &Sources,
        keeps_removed: bool,
    ) -> Result<Rollout, Vec<StartError>> {
        let result =
            self.prepare_reload(sources).inspect_err(|errors| roles::reload_failed(errors));
        let (LoadedConfig { config, .. }, prepared) = result?;
        let PreparedWorker { catalogue, databases, queues, traces } = prepared;
        roles::warn_about_restart(&self.config, &config);
        log_connection_limits(&config, &catalogue);
        self.transport.reconfigure(&config.messaging.transport);
        let recent = &self.queues.executor.recent;
        recent.set_age_max(config.messaging.transport.reconnect_time_max());
        traces.apply();
        self.databases.replace(databases, &self.tasks);
        self.queues.executor.set_config(config.worker.clone());
        let rollout = self.queues.apply(queues, &config, &self.databases, keeps_removed);
        roles::apply_log_filter(&config.log);
        failure_log::log_database_messages(config.log.database_messages);
        self.config = config;
        roles::reload_applied(&self.transport, &self.tasks);
        Ok(rollout)
    }

    /// Reloads after a signal, and logs when every queue serves the new configuration.
    pub(super) fn reload_by_signal(&mut self, sources: &Sources) {
        let Ok(rollout) = self.reload(sources, false) else { return };
        self.last_rollout = None;
        let _detached = self.tasks.spawn_background(async move {
            let problems = rollout.finish(ROLLOUT_LIMIT).await;
            if problems.is_empty() {
                tracing::info!("every queue serves the reloaded configuration");
            }
            for (queue, problem) in problems {
                let text = "a queue does not serve the reloaded configuration yet";
                tracing::warn!(queue, problem, "{text}");
            }
        });
    }
}
