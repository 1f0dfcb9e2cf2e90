//! All limits: defaults, minimums and maximums, and the required relations between the defaults.

use std::time::Duration;

/// The default of a setting and the bounds of its configured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<T> {
    /// The value used if none is configured.
    pub default: T,
    /// The smallest allowed value.
    pub floor: T,
    /// The largest allowed value.
    pub ceiling: T,
}

impl<T> Limit<T> {
    /// Converts the default, the floor and the ceiling.
    pub(super) fn map<U>(self, convert: impl Fn(T) -> U) -> Limit<U> {
        let Self { default, floor, ceiling } = self;
        Limit { default: convert(default), floor: convert(floor), ceiling: convert(ceiling) }
    }
}

macro_rules! numbers {
    ($($make:ident: $number:ty),+) => {$(
        const fn $make(default: $number, floor: $number, ceiling: $number) -> Limit<$number> {
            assert!(floor <= default && default <= ceiling, "the default is within the bounds");
            Limit { default, floor, ceiling }
        }
    )+};
}
numbers!(size: usize, count: u32, long: u64, port: u16, share: f64);

const fn time(default: Duration, floor: Duration, ceiling: Duration) -> Limit<Duration> {
    let ordered =
        floor.as_nanos() <= default.as_nanos() && default.as_nanos() <= ceiling.as_nanos();
    assert!(ordered, "the default is within the bounds");
    Limit { default, floor, ceiling }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The maximum size of a configuration file in bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// The maximum size of a secret file in bytes.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// `gateway.health_path`.
pub const HEALTH_PATH: &str = "/healthz";
/// The default port of `gateway.listen`. The default address is 0.0.0.0.
pub const GATEWAY_PORT: u16 = 8_443;
/// The default port of `admin.listen` in a gateway.
pub const ADMIN_PORT_GATEWAY: u16 = 9_464;
/// The default port of `admin.listen` in a worker. It differs from the gateway's port, so that one host can run both
/// roles.
pub const ADMIN_PORT_WORKER: u16 = 9_465;

/// `gateway.tls.handshake_timeout`.
pub const HANDSHAKE_TIMEOUT: Limit<Duration> = time(s(10), ms(100), s(60));
/// `gateway.http.connections_max`.
pub const CONNECTIONS_MAX: Limit<usize> = size(10_000, 1, 1_000_000);
/// `gateway.http.connections_per_client_max`.
pub const CONNECTIONS_PER_CLIENT_MAX: Limit<usize> = size(200, 1, 1_000_000);
/// `gateway.http.ipv6_prefix_bits`. ISPs assign a /56 to each home (RIPE-690). A shorter prefix would combine several
/// customers into one client, and a longer one would split a customer into several clients.
pub const IPV6_PREFIX_BITS: Limit<u32> = count(56, 32, 128);
/// `gateway.http.requests_in_flight_max`.
pub const REQUESTS_IN_FLIGHT_MAX: Limit<usize> = size(10_000, 1, 1_000_000);
/// `gateway.http.requests_in_flight_per_caller_max`, given the maximum for all callers together. The default is half of
/// that maximum, so one caller cannot exhaust it, and the other half is left for all other callers. With a smaller
/// share, requests would be refused while the gateway has room, because some callers are large. For example, a service
/// that acts for many users counts as one caller, and so do all anonymous clients behind one proxy.
#[must_use]
pub const fn requests_in_flight_per_caller_max(requests_in_flight_max: usize) -> Limit<usize> {
    Limit { default: requests_in_flight_max.div_ceil(2), ..REQUESTS_IN_FLIGHT_MAX }
}
/// `gateway.http.buffered_bytes_max`.
pub const BUFFERED_BYTES_MAX: Limit<usize> = size(256 * MIB, 2 * MIB, 1_024 * 1_024 * MIB);
/// `gateway.http.cached_bytes_max`.
pub const CACHED_BYTES_MAX: Limit<usize> = size(64 * MIB, 0, 1_024 * 1_024 * MIB);
/// `gateway.http.buffered_bytes_per_client_max`.
pub const BUFFERED_BYTES_PER_CLIENT_MAX: Limit<usize> =
    size(64 * MIB, 2 * MIB, 1_024 * 1_024 * MIB);
/// `gateway.http.header_bytes_max`. hyper's read buffer cannot be smaller than 8 KiB.
pub const HEADER_BYTES_MAX: Limit<usize> = size(16 * KIB, 8 * KIB, MIB);
/// `gateway.http.headers_max`.
pub const HEADERS_MAX: Limit<usize> = size(64, 8, 1_000);
/// `gateway.http.uri_bytes_max`.
pub const URI_BYTES_MAX: Limit<usize> = size(8 * KIB, 256, 64 * KIB);
/// `gateway.http.header_timeout`.
pub const HEADER_TIMEOUT: Limit<Duration> = time(s(10), ms(100), s(3_600));
/// `gateway.http.idle_timeout`. Load balancers close idle connections after 60 s. The load balancer must be the side
/// that closes an idle connection first. Otherwise, it may send a request on a connection that the gateway is closing.
pub const IDLE_TIMEOUT: Limit<Duration> = time(s(75), ms(100), s(3_600));
/// `gateway.http.body_idle_timeout`.
pub const BODY_IDLE_TIMEOUT: Limit<Duration> = time(s(10), ms(100), s(600));
/// `gateway.http.body_timeout`.
pub const BODY_TIMEOUT: Limit<Duration> = time(s(30), ms(100), s(3_600));
/// `gateway.http.streams_max`.
pub const STREAMS_MAX: Limit<u32> = count(100, 1, 10_000);
/// `gateway.http.resets_max` (CVE-2023-44487).
pub const RESETS_MAX: Limit<usize> = size(20, 1, 10_000);

/// `gateway.http.auth_failures_per_minute_max`. A page with an expired token causes fewer than ten failures per second.
/// Ten per second is still only a thousandth of what one connection can cause.
pub const AUTH_FAILURES_PER_MINUTE_MAX: Limit<u32> = count(600, 1, 1_000_000);

/// `gateway.rate_limits.interval`. A caller can exceed its limit by the amount that it consumes at other gateways
/// during this time.
pub const RATE_LIMIT_INTERVAL: Limit<Duration> = time(ms(500), ms(50), s(10));

/// `gateway.compression.bytes_min`. Compressing an answer that fits into one packet saves nothing.
pub const COMPRESSION_BYTES_MIN: Limit<usize> = size(KIB, 1, MIB);

/// `gateway.session.accept_timeout`.
pub const ACCEPT_TIMEOUT: Limit<Duration> = time(s(1), ms(50), s(60));
/// `gateway.session.progress_interval` and `worker.progress_interval`.
pub const PROGRESS_INTERVAL: Limit<Duration> = time(s(1), ms(50), s(60));
/// `gateway.session.queue_retry_delay_min`.
pub const QUEUE_RETRY_DELAY_MIN: Limit<Duration> = time(ms(50), ms(1), s(10));
/// `gateway.session.queue_retry_delay_max`.
pub const QUEUE_RETRY_DELAY_MAX: Limit<Duration> = time(s(1), ms(1), s(60));
/// `gateway.session.waiting_max`.
pub const WAITING_MAX: Limit<usize> = size(10_000, 0, 1_000_000);
/// `gateway.session.retry_percent`.
pub const RETRY_PERCENT: Limit<u32> = count(20, 0, 100);
/// `gateway.session.retries_per_second_min`.
pub const RETRIES_PER_SECOND_MIN: Limit<u32> = count(10, 0, 10_000);
/// `gateway.session.window_parts`. With two parts, one is in transit while the client reads the other.
pub const WINDOW_PARTS: Limit<u32> = count(2, 0, 64);
/// `gateway.session.answer_bytes_max` and `worker.answer_bytes_max`.
pub const ANSWER_BYTES_MAX: Limit<usize> = size(32 * MIB, KIB, 1_024 * MIB);
/// The number of progress intervals without a report after which a worker is considered lost.
pub const PROGRESS_MISSED_MAX: u32 = 3;

/// `messaging.nats.connect_timeout`.
pub const NATS_CONNECT_TIMEOUT: Limit<Duration> = time(s(2), ms(100), s(60));
/// `messaging.nats.ping_interval`.
pub const NATS_PING_INTERVAL: Limit<Duration> = time(s(5), ms(100), s(120));
/// The number of ping intervals without an answer after which a connection counts as dead.
pub const NATS_SILENT_PINGS: u32 = 2;
/// `messaging.nats.reconnect_delay_max`.
pub const NATS_RECONNECT_DELAY_MAX: Limit<Duration> = time(s(4), ms(10), s(60));
/// `messaging.nats.subscription_messages_max`.
pub const NATS_SUBSCRIPTION_MESSAGES_MAX: Limit<usize> = size(65_536, 64, 1 << 22);
/// `messaging.nats.commands_max`.
pub const NATS_COMMANDS_MAX: Limit<usize> = size(4_096, 16, 1 << 20);
/// `messaging.nats.operation_timeout`.
pub const NATS_OPERATION_TIMEOUT: Limit<Duration> = time(s(2), ms(10), s(60));

/// `worker.progress_first`.
pub const PROGRESS_FIRST: Limit<Duration> = time(ms(250), ms(10), s(60));
/// `worker.part_bytes`. Doubling the default would double memory use in both roles without increasing speed. 64 MiB is
/// the largest message size that NATS supports.
pub const PART_BYTES: Limit<usize> = size(128 * KIB, KIB, 64 * MIB);
/// `worker.claim_timeout`.
pub const CLAIM_TIMEOUT: Limit<Duration> = time(s(1), ms(10), s(60));
/// The interval at which a worker checks for expired offers and for expired requests that accepted an offer.
pub const OFFER_EXPIRY_INTERVAL: Duration = ms(100);
/// `worker.offer_timeout`.
pub const OFFER_TIMEOUT: Limit<Duration> = time(ms(250), ms(10), s(10));
/// A reply over NATS is considered lost only after at least this many round trips.
const ROUND_TRIPS_MIN: u32 = 3;

/// Returns the timeout that replaces `configured` if it is too short for the measured round trip. Otherwise, returns
/// `None`.
#[must_use]
pub fn lengthened_timeout(configured: Duration, round_trip: Duration) -> Option<Duration> {
    let shortest = round_trip.saturating_mul(ROUND_TRIPS_MIN);
    (configured < shortest).then_some(shortest)
}

/// `worker.remembered_refusals_max`.
pub const REMEMBERED_REFUSALS_MAX: Limit<usize> = size(4_096, 0, 1 << 20);
/// `worker.unsubscribe_messages_max`. With a value of 200, no messages were lost in tests at thousands of messages per
/// second.
pub const UNSUBSCRIBE_MESSAGES_MAX: Limit<u64> = long(200, 1, 1 << 20);
/// `worker.unsubscribe_quiet_time`.
pub const UNSUBSCRIBE_QUIET_TIME: Limit<Duration> = time(ms(500), ms(50), s(30));
/// The bounds and default for the duration of a temporary log filter.
pub const TEMPORARY_FILTER: Limit<Duration> = time(s(300), s(1), s(3_600));

/// `worker.queues.<queue>.concurrency`.
pub const CONCURRENCY: Limit<usize> = size(16, 1, 10_000);

/// `procedures.databases.<name>.sqlite.connections_max`.
pub const SQLITE_CONNECTIONS_MAX: Limit<usize> = size(8, 1, 256);
/// `procedures.databases.<name>.mssql.port`.
pub const MSSQL_PORT: Limit<u16> = port(1_433, 1, u16::MAX);
/// `procedures.databases.<name>.mssql.browser_port`.
pub const MSSQL_BROWSER_PORT: Limit<u16> = port(1_434, 1, u16::MAX);
/// `procedures.databases.<name>.mssql.connections_max`. With up to four processors, SQL Server has 512 worker threads
/// by default. Additional calls would wait inside SQL Server, where fjord cannot see them.
pub const MSSQL_CONNECTIONS_MAX: Limit<usize> = size(512, 1, 10_000);
/// `procedures.databases.<name>.mssql.connect_timeout`.
pub const MSSQL_CONNECT_TIMEOUT: Limit<Duration> = time(s(5), ms(100), s(60));
/// `procedures.databases.<name>.mssql.cancel_timeout`.
pub const MSSQL_CANCEL_TIMEOUT: Limit<Duration> = time(s(2), ms(100), s(60));
/// `procedures.databases.<name>.mssql.connection_age_max`.
pub const MSSQL_CONNECTION_AGE_MAX: Limit<Duration> = time(s(3_600), s(10), s(7 * 86_400));
/// `procedures.databases.<name>.mssql.deadlock_retries`.
pub const MSSQL_DEADLOCK_RETRIES: Limit<u32> = count(2, 0, 10);

/// `catalogue.timeout_default`.
pub const TIMEOUT_DEFAULT: Limit<Duration> = time(s(10), ms(50), s(3_600));
/// `catalogue.attempts_default`.
pub const ATTEMPTS_DEFAULT: Limit<u32> = count(3, 1, 20);
/// `catalogue.body_bytes_max_default`. NATS servers accept 1 MiB by default, and at most 64 MiB.
pub const BODY_BYTES_MAX_DEFAULT: Limit<usize> = size(MIB, 1, 64 * MIB);

/// `auth.jwt.<name>.leeway`.
pub const JWT_LEEWAY: Limit<Duration> = time(s(30), s(0), s(60));

/// `auth.jwt.<name>.keys_refresh`.
pub const JWT_KEYS_REFRESH: Limit<Duration> = time(s(600), s(10), s(86_400));
/// `auth.jwt.<name>.keys_cooldown`.
pub const JWT_KEYS_COOLDOWN: Limit<Duration> = time(s(30), s(1), s(3_600));
/// `auth.jwt.<name>.keys_age_max`.
pub const JWT_KEYS_AGE_MAX: Limit<Duration> = time(s(86_400), s(60), s(30 * 86_400));

/// `traces.timeout`.
pub const TRACES_TIMEOUT: Limit<Duration> = time(s(5), ms(100), s(60));
/// `traces.sample_ratio`.
pub const TRACES_SAMPLE_RATIO: Limit<f64> = share(1.0, 0.0, 1.0);
/// `traces.spans_max`. A span takes a few hundred bytes.
pub const TRACES_SPANS_MAX: Limit<usize> = size(4_096, 1, 1 << 20);

/// `lifecycle.drain_delay`.
pub const DRAIN_DELAY: Limit<Duration> = time(s(0), s(0), s(300));
/// `lifecycle.drain_timeout`.
pub const DRAIN_TIMEOUT: Limit<Duration> = time(s(30), s(0), s(3_600));
/// `TimeoutStopSec` in the shipped systemd unit. For longer drains, raise it in a drop-in file.
pub const UNIT_STOP_TIMEOUT: Duration = s(90);

// Relations between the defaults. `relations.rs` checks configured values in the same way.
const _: () = {
    let lost_after = PROGRESS_INTERVAL.default.as_millis() * PROGRESS_MISSED_MAX as u128;
    assert!(
        lost_after < TIMEOUT_DEFAULT.default.as_millis(),
        "a lost worker is noticed before the timeout"
    );
    assert!(PROGRESS_FIRST.default.as_millis() < ACCEPT_TIMEOUT.default.as_millis());
    assert!(ACCEPT_TIMEOUT.default.as_millis() < TIMEOUT_DEFAULT.default.as_millis());
    assert!(TIMEOUT_DEFAULT.default.as_millis() <= DRAIN_TIMEOUT.default.as_millis());
    let drain = DRAIN_DELAY.default.as_millis() + DRAIN_TIMEOUT.default.as_millis();
    assert!(drain < UNIT_STOP_TIMEOUT.as_millis(), "systemd waits for the drain");
    assert!(QUEUE_RETRY_DELAY_MIN.default.as_millis() <= QUEUE_RETRY_DELAY_MAX.default.as_millis());
    assert!(URI_BYTES_MAX.default < HEADER_BYTES_MAX.default);
    assert!(CONNECTIONS_PER_CLIENT_MAX.default <= CONNECTIONS_MAX.default);
    assert!(BUFFERED_BYTES_PER_CLIENT_MAX.default <= BUFFERED_BYTES_MAX.default);
    assert!(BODY_BYTES_MAX_DEFAULT.default <= BUFFERED_BYTES_PER_CLIENT_MAX.default);
    assert!(ANSWER_BYTES_MAX.default <= BUFFERED_BYTES_PER_CLIENT_MAX.default);
    assert!(BODY_IDLE_TIMEOUT.default.as_millis() <= BODY_TIMEOUT.default.as_millis());
};
