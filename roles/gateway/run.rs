//! Starts, reloads and drains the gateway.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::admin::{Admin, ProcessHealth, Readiness, StatusSource};
use crate::catalogue::QueueName;
use crate::cli::Role;
use crate::config::messaging::TransportConfig;
use crate::config::{Config, Sources};
use crate::fleet::{self, FleetMember, ProcessIdentity, control::CommandReceiver, monitor};
use crate::in_flight::ConcurrencyLimit;
use crate::lifecycle::{Cancel, Signal, Signals, Tasks, systemd};
use crate::messaging::{self, Transport};
use crate::roles::{self, RunError};
use crate::start_check::{self, StartError};
use crate::telemetry::{gauge, names};
use crate::tls::{ServerTls, WATCH_INTERVAL};

use crate::roles::gateway::active_config::ActiveConfig;
use crate::roles::gateway::admission::rate_limit::RateLimiter;
use crate::roles::gateway::admission::rate_limit::exchange::{self, RateExchange};
use crate::roles::gateway::client::byte_budget::ByteBudget;
use crate::roles::gateway::client::requests_per_caller::RequestsPerCaller;
use crate::roles::gateway::dispatch::{AnswerReuse, Dispatcher};
use crate::roles::gateway::edge::connection::HttpService;
use crate::roles::gateway::edge::health_check::HealthCheck;
use crate::roles::gateway::edge::listener::Listener;
use crate::roles::gateway::edge::listener::RunningListener;
use crate::roles::gateway::observation::{queue_weights, request_log};
use crate::roles::gateway::pipeline::Pipeline;
use crate::roles::gateway::prepare;
use crate::roles::gateway::prepare::PreparedGateway;
use crate::roles::gateway::report;

/// The time for which the drain waits for tasks that were cancelled.
const TASKS_WAIT: Duration = Duration::from_secs(2);

mod commands;
mod removed_endpoints;

use removed_endpoints::RemovedEndpoints;

struct GatewayProcess {
    config: Config,
    pipeline: Arc<Pipeline>,
    rate_exchange: Arc<RateExchange>,
    listener: RunningListener,
    tls: Option<ServerTls>,
    readiness: Readiness,
    tasks: Tasks,
    admin_tasks: Tasks,
    stop: Cancel,
    removed_endpoints: RemovedEndpoints,
    /// Ends the previous reload's wait for requests to removed endpoints.
    newer_reload: Cancel,
}

/// Runs a gateway until a signal stops it.
///
/// # Errors
/// `RunError` if the gateway cannot start. In that case it has served no requests.
pub async fn run(
    config: Config,
    prepared: PreparedGateway,
    sources: Sources,
    mut signals: Signals,
) -> Result<(), RunError> {
    let (mut gateway, mut commands) = GatewayProcess::start(config, prepared).await?;
    systemd::ready("serving");
    systemd::feed_watchdog(&gateway.tasks);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    systemd::reloading();
                    let _recorded = gateway.reload(&sources);
                    systemd::ready("serving");
                }
                Signal::Stop => break,
            },
            Some(command) = commands.recv() => {
                if gateway.execute(command, &sources).await {
                    break;
                }
            }
        }
    }
    gateway.answer_while_draining(commands);
    gateway.drain().await;
    Ok(())
}

impl GatewayProcess {
    async fn start(
        config: Config,
        prepared: PreparedGateway,
    ) -> Result<(Self, CommandReceiver), RunError> {
        let PreparedGateway { active_config, tls, traces } = prepared;
        traces.apply();
        let admin = Admin::bind(&config.admin);
        let admin = admin.map_err(|error| RunError::system(error.to_string(), error))?;
        let listener = Listener::bind(&config.gateway, tls.clone());
        let listener = listener.map_err(|error| RunError::system(error.to_string(), error))?;
        let (tasks, admin_tasks, stop) = (Tasks::new(), Tasks::new(), Cancel::new());
        let readiness = Readiness::new();
        let transport = connect(&config).await?;
        readiness.follow(&transport, &tasks);
        active_config.authenticator.fetch_issuer_keys(None, &readiness, &tasks, &stop);
        if let Some(tls) = tls.clone() {
            drop(tasks.spawn_background(tls.watch(WATCH_INTERVAL, stop.clone())));
        }
        let pipeline =
            Arc::new(pipeline(&config, active_config, transport, readiness.clone(), &tasks).await?);
        let source = report::source(&pipeline, &readiness);
        let transport = pipeline.dispatcher.transport();
        let prefix = config.messaging.prefix.clone();
        let rate_exchange = exchange::start(&pipeline.rates, &prefix, transport, &tasks)
            .map_err(|error| RunError::system("cannot exchange consumed quotas", error))?;
        let identity = ProcessIdentity::new(Role::Gateway, prefix, &transport.inbox());
        let member = FleetMember::new(identity, source);
        let fleet = monitor::start(&member, config.admin.fleet, transport, &tasks);
        tracing::info!(part = "admin", address = %admin.address(), "listening");
        let status = status(&pipeline);
        let health = ProcessHealth { readiness: readiness.clone(), status, fleet };
        admin.serve(health, &admin_tasks, stop.clone());
        let commands = fleet::join(&config.messaging, &member, transport, &tasks).await;
        let commands = commands
            .map_err(|error| RunError::system("cannot subscribe to queries and commands", error))?;
        tracing::info!(part = "https", address = %listener.address(), "listening");
        let service: Arc<dyn HttpService> = Arc::clone(&pipeline) as Arc<dyn HttpService>;
        let listener = listener.serve(service, &tasks);
        let gateway = Self {
            config,
            pipeline,
            rate_exchange,
            listener,
            tls,
            readiness,
            tasks,
            admin_tasks,
            stop,
            removed_endpoints: RemovedEndpoints::default(),
            newer_reload: Cancel::new(),
        };
        Ok((gateway, commands))
    }

    /// Reloads the configuration, the catalogue, keys and certificates. Returns notes for the operator.
    ///
    /// # Errors
    /// All errors. Nothing has changed in that case.
    fn reload(&mut self, sources: &Sources) -> Result<Vec<String>, Vec<StartError>> {
        let tls = self.tls.clone();
        let read = start_check::load(sources, |loaded| {
            let files = tls.as_ref().map(|tls| tls.prepare(loaded.config.gateway.tls.as_ref()));
            prepare::with_tls(loaded, files.transpose())
        });
        let (loaded, (active_config, files, traces)) =
            read.inspect_err(|errors| roles::reload_failed(errors))?;
        let config = loaded.config;
        roles::warn_about_restart(&self.config, &config);
        let old_config = self.pipeline.active_config.load_full();
        self.removed_endpoints.add(&old_config.catalogue, &active_config.catalogue);
        let (tasks, stop) = (&self.tasks, &self.stop);
        let old = Some(&old_config.authenticator);
        active_config.authenticator.fetch_issuer_keys(old, &self.readiness, tasks, stop);
        let queues = queue_names(&active_config);
        let (old_catalogue, catalogue) =
            (Arc::clone(&old_config.catalogue), Arc::clone(&active_config.catalogue));
        let active_config = Arc::new(active_config);
        self.pipeline.dispatcher.reload(config.gateway.session.clone(), &queues);
        let store_config = || self.pipeline.active_config.store(active_config);
        match files {
            // The new snapshot must not accept certificates that only the old files trust.
            Some(files) => files.apply(store_config),
            None => store_config(),
        }
        traces.apply();
        self.pipeline.in_flight.set_limit(config.gateway.http.requests_in_flight_max);
        self.pipeline.rates.reconfigure(config.gateway.rate_limits);
        let per_caller = config.gateway.http.requests_in_flight_per_caller_max;
        self.pipeline.in_flight_per_caller.set_limit(per_caller);
        self.pipeline.bytes.set(&config.gateway.http);
        self.pipeline.reuse.reload(&config.gateway.http);
        self.listener.reload(&config.gateway);
        self.pipeline.dispatcher.transport().reconfigure(&config.messaging.transport);
        request_log::forget_endpoints();
        roles::apply_log_filter(&config.log);
        self.config = config;
        let notes = queue_weights::replace(&old_catalogue, &catalogue);
        roles::reload_applied(self.pipeline.dispatcher.transport(), &self.tasks);
        Ok(notes)
    }

    /// Reports "not ready", drains the listener, stops the tasks and flushes the last messages.
    async fn drain(self) {
        let lifecycle = &self.config.lifecycle;
        tracing::info!(in_flight = self.pipeline.in_flight.in_use(), "draining");
        systemd::stopping(lifecycle.drain_delay + lifecycle.drain_timeout + TASKS_WAIT);
        self.readiness.set("lifecycle", Err("draining".to_owned()));
        sleep(lifecycle.drain_delay).await;
        let end = Instant::now() + lifecycle.drain_timeout;
        let is_complete = self.listener.drain(lifecycle.drain_timeout).await;
        self.rate_exchange.report_last().await;
        self.stop.cancel();
        let ended = self.tasks.wait(TASKS_WAIT).await;
        let left = end.saturating_duration_since(Instant::now()).max(TASKS_WAIT);
        let flushed = self.pipeline.dispatcher.transport().flush_within(left).await;
        if let Err(error) = flushed {
            tracing::warn!(%error, "cannot flush: the last messages may not have been sent");
        }
        let admin_ended = self.admin_tasks.wait(TASKS_WAIT).await;
        tracing::info!(is_complete, ended, admin_ended, "drained");
    }
}

/// Returns the queues in a catalogue. They are created before their first requests, so that their
/// metrics start at zero and rates count those requests.
fn queue_names(active_config: &ActiveConfig) -> Vec<QueueName> {
    let endpoints = active_config.catalogue.endpoints().iter();
    let queues = endpoints.flat_map(|endpoint| endpoint.queues.iter());
    queues.map(|queue| queue.name.clone()).collect()
}

/// Returns the source of the `/status` document.
fn status(pipeline: &Arc<Pipeline>) -> StatusSource {
    let pipeline = Arc::clone(pipeline);
    Arc::new(move || {
        json!({
            "role": "gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "in_flight": pipeline.in_flight.in_use(),
            "endpoints": pipeline.active_config.load().catalogue.endpoints().len(),
        })
    })
}

async fn connect(config: &Config) -> Result<Arc<dyn Transport>, RunError> {
    let TransportConfig::Nats(nats) = &config.messaging.transport;
    messaging::nats::connect(nats, &format!("fjord gateway {}", config.messaging.prefix))
        .await
        .map_err(|error| RunError::system("cannot use the NATS configuration", error))
}

async fn pipeline(
    config: &Config,
    active_config: ActiveConfig,
    transport: Arc<dyn Transport>,
    readiness: Readiness,
    tasks: &Tasks,
) -> Result<Pipeline, RunError> {
    let dispatcher = Dispatcher::start(config, &queue_names(&active_config), transport, tasks)
        .await
        .map_err(|error| RunError::system("cannot subscribe to replies", error))?;
    queue_weights::publish(&active_config.catalogue);
    let in_flight = gauge(&names::GATEWAY_IN_FLIGHT, &[]);
    Ok(Pipeline {
        active_config: ArcSwap::from_pointee(active_config),
        dispatcher,
        reuse: AnswerReuse::new(&config.gateway.http),
        rates: Arc::new(RateLimiter::new(config.gateway.rate_limits)),
        in_flight: ConcurrencyLimit::new(config.gateway.http.requests_in_flight_max, in_flight),
        in_flight_per_caller: RequestsPerCaller::new(
            config.gateway.http.requests_in_flight_per_caller_max,
        ),
        bytes: ByteBudget::new(&config.gateway.http),
        health: HealthCheck::new(readiness),
    })
}
