//! Every metric and label of fjord. Nothing is recorded under a name that is not here.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, in seconds.
    Histogram,
}

/// A metric: its name as scraped, its kind, what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name as scraped.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: MetricKind::$kind, help: $help };
        )+
        /// Every metric there is.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD_INFO: Gauge "fjord_build_info", "Version and role of this process; always 1.";

    GATEWAY_REQUESTS: Counter "fjord_gateway_requests_total", "Requests answered, by endpoint, status and outcome.";
    GATEWAY_REQUEST_DURATION: Histogram "fjord_gateway_request_duration_seconds", "Time from a request's headers to its answer's headers, by endpoint.";
    GATEWAY_IN_FLIGHT: Gauge "fjord_gateway_requests_in_flight", "Requests being answered now.";
    GATEWAY_DRY_RUNS: Counter "fjord_gateway_dry_runs_total", "Dry runs that a worker answered, by endpoint and result.";
    GATEWAY_RESUBMISSIONS: Counter "fjord_gateway_resubmissions_total", "Requests sent again, by reason.";
    GATEWAY_QUEUE_WAIT: Histogram "fjord_gateway_queue_wait_seconds", "Time until a worker took the request, or until none did, by queue.";
    GATEWAY_SUSPECTED: Gauge "fjord_gateway_worker_suspected", "1 while a worker of the queue seems to hang and requests go past it, by queue.";
    GATEWAY_ROUND_TRIP: Gauge "fjord_gateway_round_trip_seconds", "Least time that a worker took to answer at once, by queue.";
    GATEWAY_ARRIVALS: Counter "fjord_gateway_queue_arrivals_total", "Requests that were to be placed, by queue.";
    GATEWAY_PHASE: Histogram "fjord_gateway_phase_seconds", "Time that requests spent in each phase, by phase.";
    GATEWAY_WAITING: Gauge "fjord_gateway_requests_waiting", "Requests that wait for a free slot, by queue.";
    GATEWAY_SHED: Counter "fjord_gateway_requests_shed_total", "Requests refused at once because too many wait, by reason.";
    GATEWAY_BUFFERED_BYTES: Gauge "fjord_gateway_buffered_bytes", "Bytes of request bodies, answers and what compresses them in memory now; what is small does not count.";
    GATEWAY_LATE_REPLIES: Counter "fjord_gateway_late_replies_total", "Replies that nobody waited for any more.";
    GATEWAY_BAD_REPLIES: Counter "fjord_gateway_bad_replies_total", "Replies that could not be read.";
    GATEWAY_REPLIES_REJECTED: Counter "fjord_gateway_replies_rejected_total", "Replies dropped because their sender may not speak for the request, by reason.";
    GATEWAY_CONTROLS_UNSENT: Counter "fjord_gateway_controls_unsent_total", "Words to workers dropped because NATS did not take them at once, by word.";
    GATEWAY_CONNECTIONS: Gauge "fjord_gateway_connections", "Client connections open now.";
    GATEWAY_HEALTH_CHECKS: Counter "fjord_gateway_health_checks_total", "Health checks answered on the serving port, by result.";
    GATEWAY_COMPRESSED: Counter "fjord_gateway_answers_compressed_total", "Answers that were compressed, by coding.";
    GATEWAY_CONNECTIONS_REFUSED: Counter "fjord_gateway_connections_refused_total", "Client connections refused or ended by a limit, by reason.";

    WORKER_CALLS: Counter "fjord_worker_calls_total", "Calls that ended, by queue and outcome.";
    WORKER_CALL_DURATION: Histogram "fjord_worker_call_duration_seconds", "Time that a call held its slot, by queue.";
    WORKER_LIMIT: Gauge "fjord_worker_concurrency_limit", "Calls that a queue runs at once, at most.";
    WORKER_RUNNING: Gauge "fjord_worker_running", "Calls that a queue runs now.";
    WORKER_WAITING: Gauge "fjord_worker_waiting", "Requests in the backlog: taken, and waiting for a call to end, by queue.";
    WORKER_ROUND_TRIP: Gauge "fjord_worker_round_trip_seconds", "Mean time that gateways take to answer offers and claims, by queue.";
    WORKER_SATURATED: Counter "fjord_worker_saturated_seconds_total", "Time that a queue spent at its limit.";
    WORKER_SLOT_SECONDS: Counter "fjord_worker_slot_seconds_total", "Slot time used: a running call uses one second each second, by queue.";
    WORKER_UTILIZATION: Gauge "fjord_worker_utilization_ratio", "Share of its slots that a queue uses, averaged over a minute, by queue.";
    WORKER_REFUSALS: Counter "fjord_worker_refusals_total", "Messages refused, by queue and reason.";
    WORKER_OFFERS: Counter "fjord_worker_offers_total", "Freed slots offered, by queue and what became of the offer.";
    WORKER_MALFORMED: Counter "fjord_worker_malformed_messages_total", "Messages that could not be read.";
    WORKER_UNSENT: Counter "fjord_worker_replies_unsent_total", "Interim replies and refusals dropped because NATS did not take them at once.";
    WORKER_RESENT: Counter "fjord_worker_answers_resent_total", "Messages of answers that gateways asked for again after a lost link, by result.";
    WORKER_QUEUE_READY: Gauge "fjord_worker_queue_ready", "1 while a queue is served, 0 while it is not, by queue.";

    BACKEND_CONNECTIONS: Gauge "fjord_backend_connections", "Database connections, by database, program name and state.";
    BACKEND_WAIT: Histogram "fjord_backend_wait_seconds", "Time that a call waited for a connection, by database.";
    BACKEND_LOGIN: Histogram "fjord_backend_login_seconds", "Time that a connection took to be made, login included, by database.";
    BACKEND_DISCARDED: Counter "fjord_backend_connections_discarded_total", "Connections closed instead of kept, by database and reason.";
    BACKEND_CANCELS: Counter "fjord_backend_cancels_total", "Calls that the database was told to stop, by database and what became of the connection.";
    BACKEND_RETRIES: Counter "fjord_backend_retries_total", "Calls tried again inside the worker, by database and reason.";
    BACKEND_UP: Gauge "fjord_backend_up", "1 while the database answers, by database.";

    NATS_CONNECTED: Gauge "fjord_nats_connected", "1 while connected to NATS, and proved to be.";
    NATS_RECONNECTS: Counter "fjord_nats_reconnects_total", "Connections made after the first.";
    NATS_CLIENTS_REPLACED: Counter "fjord_nats_clients_replaced_total", "NATS clients replaced, by reason: `ended`, `silent`, `subscriptions`.";
    NATS_SUBSCRIPTIONS_REFUSED: Gauge "fjord_nats_subscriptions_refused", "Subscriptions that NATS refuses now, by kind: `inbox`, `control`, `queue`, `optional`.";
    NATS_ROUND_TRIP: Gauge "fjord_nats_round_trip_seconds", "How long a message to ourselves takes through NATS, smoothed.";
    NATS_EVENTS: Counter "fjord_nats_events_total", "What the NATS client reported, by event.";

    TLS_CERTIFICATE_EXPIRY: Gauge "fjord_tls_certificate_expiry_timestamp_seconds", "When a certificate ends, by file.";
    TLS_RELOADS: Counter "fjord_tls_reloads_total", "Certificate reloads, by result.";
    CONFIG_RELOADS: Counter "fjord_config_reloads_total", "Reloads of catalogue and limits, by result.";
    AUTH_FAILURES: Counter "fjord_auth_failures_total", "Callers refused, by endpoint and reason.";
    AUTH_FAILURES_LIMITED: Counter "fjord_auth_failures_limited_total", "Callers refused with 429, as too many requests of their address had been refused, by endpoint.";
    AUTH_KEY_FETCHES: Counter "fjord_auth_key_fetches_total", "Fetches of issuers' keys, by issuer and result.";
    AUTH_KEYS_FETCHED: Gauge "fjord_auth_keys_fetched_timestamp_seconds", "When an issuer's keys were last fetched, by issuer.";
    RATE_LIMITED: Counter "fjord_rate_limited_total", "Requests over their caller's rate, by endpoint.";
    TRACE_SPANS: Counter "fjord_trace_spans_total", "Spans of traces, by result: exported, dropped as too many waited, failed, rejected by the collector.";
    TRACE_EXPORTS: Counter "fjord_trace_exports_total", "Exports of spans to the collector, by result.";
    LOG_LINES_DROPPED: Counter "fjord_log_lines_dropped_total", "Log lines dropped because stdout was not read fast enough.";
    LOG_REPEATS: Counter "fjord_log_repeats_total", "Requests that met a condition of which there is a log line already, by condition.";
    ADMIN_CONNECTIONS_EVICTED: Counter "fjord_admin_connections_evicted_total", "Connections of the admin listener closed because newer ones needed their place.";
    PANICS: Counter "fjord_panics_total", "Panics caught, by place.";
}

/// The endpoint's id; `none` when no route matched.
pub const ENDPOINT: &str = "endpoint";
/// The queue.
pub const QUEUE: &str = "queue";
/// A part of a request's time.
pub const PHASE: &str = "phase";
/// A condition that many requests run into.
pub const CONDITION: &str = "condition";
/// The HTTP status.
pub const STATUS: &str = "status";
/// How it ended, one word.
pub const OUTCOME: &str = "outcome";
/// A content coding.
pub const CODING: &str = "coding";
/// An issuer's name in the configuration.
pub const ISSUER: &str = "issuer";
/// Why.
pub const REASON: &str = "reason";
/// The database's name in the configuration.
pub const DATABASE: &str = "database";
/// The program name of a database connection, as the configuration has it.
pub const APPLICATION: &str = "application";
/// A connection's state.
pub const STATE: &str = "state";
/// What a subscription is for.
pub const KIND: &str = "kind";
/// What the NATS client reported.
pub const EVENT: &str = "event";
/// What a reload came to.
pub const RESULT: &str = "result";
/// A file's name, without its directory.
pub const FILE: &str = "file";
/// Where in the code.
pub const PLACE: &str = "place";
/// The version.
pub const VERSION: &str = "version";
/// The role.
pub const ROLE: &str = "role";
