//! The names and help texts of all metrics, and the names of all labels. No other metrics or labels
//! are recorded.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that can go up and down.
    Gauge,
    /// A distribution of durations, in seconds.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name in a scrape.
    pub name: &'static str,
    /// The type.
    pub kind: MetricKind,
    /// The help text.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: MetricKind::$kind, help: $help };
        )+
        /// Every metric.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD_INFO: Gauge "fjord_build_info", "Version and role of this process; always 1.";

    GATEWAY_REQUESTS: Counter "fjord_gateway_requests_total", "Requests answered, by endpoint, queue, status and outcome.";
    GATEWAY_REQUEST_DURATION: Histogram "fjord_gateway_request_duration_seconds", "Time from a request's headers to its response's headers, by endpoint and queue.";
    GATEWAY_QUEUE_WEIGHT: Gauge "fjord_gateway_queue_weight", "Current weight of a queue, by endpoint and queue. Only for endpoints that have several queues.";
    GATEWAY_IN_FLIGHT: Gauge "fjord_gateway_requests_in_flight", "Requests in progress.";
    GATEWAY_DRY_RUNS: Counter "fjord_gateway_dry_runs_total", "Dry runs that a worker answered, by endpoint and result.";
    GATEWAY_RESUBMISSIONS: Counter "fjord_gateway_resubmissions_total", "Requests sent again, by reason.";
    GATEWAY_QUEUE_WAIT: Histogram "fjord_gateway_queue_wait_seconds", "Time until a worker accepted the request, or \
                                                                       until the gateway stopped waiting for one, by queue.";
    GATEWAY_SUSPECTED: Gauge "fjord_gateway_worker_suspected", "1 while the gateway bypasses a worker that appears to be hanging, by queue.";
    GATEWAY_ROUND_TRIP: Gauge "fjord_gateway_round_trip_seconds", "Shortest round trip to a worker that answered immediately, by queue.";
    GATEWAY_ARRIVALS: Counter "fjord_gateway_queue_arrivals_total", "Requests for a queue, each counted once, before \
                                                                     its first attempt.";
    GATEWAY_PHASE: Histogram "fjord_gateway_phase_seconds", "Time that requests spent in a phase of their processing, by phase.";
    GATEWAY_WAITING: Gauge "fjord_gateway_requests_waiting", "Requests waiting for a free slot, by queue.";
    GATEWAY_UNACCEPTED: Gauge "fjord_gateway_requests_unaccepted", "Requests sent but not yet accepted by a worker, by queue.";
    GATEWAY_UNACCEPTED_OLDEST: Gauge "fjord_gateway_requests_unaccepted_oldest_seconds", "Time since the oldest request not yet accepted by a worker was sent, by queue.";
    GATEWAY_TIMED_OUT: Counter "fjord_gateway_requests_timed_out_total", "Requests that ran out of time after they were sent, by queue and by whether a worker had accepted them.";
    GATEWAY_ANSWERED: Counter "fjord_gateway_requests_answered_total", "Requests that workers answered in time, by queue.";
    GATEWAY_ACCEPTED: Gauge "fjord_gateway_requests_accepted", "Requests accepted by a worker and still in progress, by queue.";
    GATEWAY_ACCEPTED_OLDEST: Gauge "fjord_gateway_requests_accepted_oldest_seconds", "Time since the oldest request in progress was accepted, by queue.";
    GATEWAY_UNSERVED: Counter "fjord_gateway_attempts_unserved_total", "Attempts for which NATS found no worker, by queue.";
    GATEWAY_SHED: Counter "fjord_gateway_requests_shed_total", "Requests refused immediately because a limit was reached, by reason.";
    GATEWAY_BUFFERED_BYTES: Gauge "fjord_gateway_buffered_bytes", "Bytes of request bodies, responses and compression buffers in memory, except small buffers.";
    GATEWAY_REUSED: Counter "fjord_gateway_answers_reused_total", "Requests answered with the result of another call, by endpoint and result.";
    GATEWAY_CACHED_BYTES: Gauge "fjord_gateway_cached_bytes", "Bytes of stored answers in memory.";
    GATEWAY_CACHE_EVICTIONS: Counter "fjord_gateway_cache_evictions_total", "Stored answers removed before they expired, or not stored, by reason.";
    GATEWAY_LATE_REPLIES: Counter "fjord_gateway_late_replies_total", "Replies that arrived after their request had ended.";
    GATEWAY_BAD_REPLIES: Counter "fjord_gateway_bad_replies_total", "Replies that could not be decoded.";
    GATEWAY_REPLIES_REJECTED: Counter "fjord_gateway_replies_rejected_total", "Replies dropped because their sender is not permitted to answer the request, by reason.";
    GATEWAY_CONTROLS_UNSENT: Counter "fjord_gateway_controls_unsent_total", "Control messages to workers that were dropped because NATS did not accept them immediately, by kind of message.";
    GATEWAY_CONNECTIONS: Gauge "fjord_gateway_connections", "Open client connections.";
    GATEWAY_HEALTH_CHECKS: Counter "fjord_gateway_health_checks_total", "Health checks answered on the serving port, by result.";
    GATEWAY_COMPRESSED: Counter "fjord_gateway_answers_compressed_total", "Responses that were compressed, by content coding.";
    GATEWAY_CONNECTIONS_REFUSED: Counter "fjord_gateway_connections_refused_total", "Client connections refused or closed because of a limit, by reason.";

    WORKER_CALLS: Counter "fjord_worker_calls_total", "Calls that ended, by queue and outcome.";
    WORKER_CALL_DURATION: Histogram "fjord_worker_call_duration_seconds", "Time for which a call occupied its slot, by queue.";
    WORKER_LIMIT: Gauge "fjord_worker_concurrency_limit", "Maximum number of concurrent calls of a queue, by queue.";
    WORKER_RUNNING: Gauge "fjord_worker_running", "Running calls, by queue.";
    WORKER_WAITING: Gauge "fjord_worker_waiting", "Requests in the backlog, accepted and waiting for a slot, by queue.";
    WORKER_ROUND_TRIP: Gauge "fjord_worker_round_trip_seconds", "Mean time until gateways answer offers and claims, by queue.";
    WORKER_SATURATED: Counter "fjord_worker_saturated_seconds_total", "Time during which all slots of a queue were occupied, by queue.";
    WORKER_SLOT_SECONDS: Counter "fjord_worker_slot_seconds_total", "Slot time used, by queue: each running call adds \
                                                                     one second per second.";
    WORKER_UTILIZATION: Gauge "fjord_worker_utilization_ratio", "Fraction of a queue's slots in use, averaged over a \
                                                                 minute, by queue.";
    WORKER_REFUSALS: Counter "fjord_worker_refusals_total", "Requests refused, by queue and reason.";
    WORKER_OFFERS: Counter "fjord_worker_offers_total", "Offers of freed slots, by queue and result.";
    WORKER_OFFERED: Gauge "fjord_worker_slots_offered", "Slots reserved for offers that no gateway has answered yet, by queue.";
    WORKER_MALFORMED: Counter "fjord_worker_malformed_messages_total", "Messages that could not be decoded.";
    WORKER_UNSENT: Counter "fjord_worker_replies_unsent_total", "Interim replies and refusals dropped because NATS did not accept them immediately.";
    WORKER_RESENT: Counter "fjord_worker_answers_resent_total", "Reply messages that gateways requested again after a connection to NATS was lost, by result.";
    WORKER_QUEUE_READY: Gauge "fjord_worker_queue_ready", "1 while a queue is served, 0 while it is not, by queue.";
    WORKER_POOL: Gauge "fjord_worker_pool_info", "Pool of this worker; always 1.";
    WORKER_QUEUE_PAUSED: Gauge "fjord_worker_queue_paused", "1 while an operator has paused a queue, otherwise 0, by queue.";

    BACKEND_CONNECTIONS: Gauge "fjord_backend_connections", "Database connections, by database, program name and state.";
    BACKEND_WAIT: Histogram "fjord_backend_wait_seconds", "Time for which a call waited for a connection, by database.";
    BACKEND_LOGIN: Histogram "fjord_backend_login_seconds", "Time to open a connection, including the login, by database.";
    BACKEND_DISCARDED: Counter "fjord_backend_connections_discarded_total", "Connections closed instead of returned to the pool, by database and reason.";
    BACKEND_CANCELS: Counter "fjord_backend_cancels_total", "Calls cancelled in the database, by database and result.";
    BACKEND_RETRIES: Counter "fjord_backend_retries_total", "Calls that the worker retried, by database and reason.";
    BACKEND_UP: Gauge "fjord_backend_up", "1 while the database answers, by database.";

    NATS_CONNECTED: Gauge "fjord_nats_connected", "1 while the connection to NATS is known to work.";
    NATS_RECONNECTS: Counter "fjord_nats_reconnects_total", "Connections to NATS established after the first one.";
    NATS_CLIENTS_REPLACED: Counter "fjord_nats_clients_replaced_total", "NATS clients replaced, by reason: `ended`, `silent`, `subscriptions`.";
    NATS_SUBSCRIPTIONS_REFUSED: Gauge "fjord_nats_subscriptions_refused", "Subscriptions that NATS currently refuses, by kind: `inbox`, `control`, `queue`, `optional`.";
    NATS_SUBSCRIPTIONS_LOST: Counter "fjord_nats_subscriptions_lost_total", "Inbox subscriptions that the NATS server had lost and that the process restored.";
    NATS_ROUND_TRIP: Gauge "fjord_nats_round_trip_seconds", "Smoothed round trip of a message from this process through NATS to itself.";
    NATS_PERMISSION_VIOLATIONS: Counter "fjord_nats_permission_violations_total", "Messages and subscriptions that NATS refused because the user lacks a permission, by operation: `publish`, `subscribe`.";
    NATS_EVENTS: Counter "fjord_nats_events_total", "Events reported by the NATS client, by event.";

    TLS_CERTIFICATE_EXPIRY: Gauge "fjord_tls_certificate_expiry_timestamp_seconds", "Time at which a certificate expires, by file.";
    TLS_RELOADS: Counter "fjord_tls_reloads_total", "Certificate reloads, by result.";
    CONFIG_RELOADS: Counter "fjord_config_reloads_total", "Configuration reloads, by result.";
    CONTROL_COMMANDS: Counter "fjord_control_commands_total", "Operators' commands over NATS, by command and result.";
    AUTH_FAILURES: Counter "fjord_auth_failures_total", "Requests refused by authentication or authorization, by endpoint and reason.";
    AUTH_FAILURES_LIMITED: Counter "fjord_auth_failures_limited_total", "Requests refused with 429 because too many requests from the client's address had failed authentication, by endpoint.";
    AUTH_KEY_FETCHES: Counter "fjord_auth_key_fetches_total", "Fetches of issuers' keys, by issuer and result.";
    AUTH_KEYS_FETCHED: Gauge "fjord_auth_keys_fetched_timestamp_seconds", "Time at which the issuer's keys were last fetched, by issuer.";
    RATE_LIMITED: Counter "fjord_rate_limited_total", "Requests refused because the caller exceeded its rate limit, by endpoint.";
    RATE_LIMIT_MESSAGES: Counter "fjord_rate_limit_messages_total", "Messages between gateways about the quotas that callers have consumed, by result.";
    RATE_LIMIT_SUBSCRIBE_FAILURES: Counter "fjord_rate_limit_subscribe_failures_total", "Failed attempts to subscribe to the other gateways' messages about the quotas that callers have consumed.";
    RATE_LIMIT_OMITTED: Counter "fjord_rate_limit_omitted_total", "Requests that were not reported to the other gateways, because there were too many callers.";
    IN_FLIGHT_LIMITED: Counter "fjord_in_flight_limited_total", "Requests refused because the caller had too many requests in flight at the endpoint, by endpoint.";
    TRACE_SPANS: Counter "fjord_trace_spans_total", "Trace spans by result: exported, dropped because the queue was \
                                                     full, not sent because of an error, or rejected by the collector.";
    TRACE_EXPORTS: Counter "fjord_trace_exports_total", "Exports of spans to the collector, by result.";
    LOG_LINES_DROPPED: Counter "fjord_log_lines_dropped_total", "Log lines dropped because stdout was not read fast enough or could not be written to.";
    LOG_LINES_SUPPRESSED: Counter "fjord_log_lines_suppressed_total", "Requests affected by a condition that had already been logged, by condition.";
    ADMIN_CONNECTIONS_EVICTED: Counter "fjord_admin_connections_evicted_total", "Connections of the admin listener closed in favour of newer ones.";
    PANICS: Counter "fjord_panics_total", "Panics caught, by component.";
}

/// The endpoint's id, or `none` if no route matched.
pub const ENDPOINT: &str = "endpoint";
/// The queue.
pub const QUEUE: &str = "queue";
/// A phase of a request.
pub const PHASE: &str = "phase";
/// A condition that affects many requests (`telemetry::conditions`).
pub const CONDITION: &str = "condition";
/// The HTTP status.
pub const STATUS: &str = "status";
/// How a request or call ended (`crate::outcome`).
pub const OUTCOME: &str = "outcome";
/// A content coding.
pub const CODING: &str = "coding";
/// An issuer's name in the configuration.
pub const ISSUER: &str = "issuer";
/// The reason for the event.
pub const REASON: &str = "reason";
/// The database's name in the configuration.
pub const DATABASE: &str = "database";
/// The configured program name of a database connection.
pub const APPLICATION: &str = "application";
/// The state of a connection or of a request.
pub const STATE: &str = "state";
/// The purpose of a subscription.
pub const KIND: &str = "kind";
/// An event that the NATS client reported.
pub const EVENT: &str = "event";
/// An operation that requires a permission.
pub const OPERATION: &str = "operation";
/// An operator's command.
pub const COMMAND: &str = "command";
/// The result of an operation.
pub const RESULT: &str = "result";
/// A file's path.
pub const FILE: &str = "file";
/// A part of the program.
pub const COMPONENT: &str = "component";
/// The pool of this worker.
pub const POOL: &str = "pool";
/// The version of this process.
pub const VERSION: &str = "version";
/// The role of this process.
pub const ROLE: &str = "role";
