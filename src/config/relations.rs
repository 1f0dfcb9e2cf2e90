//! Checks combinations of values that are individually valid.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::auth::KeySource;
use super::limits::{OFFER_EXPIRY_INTERVAL, PROGRESS_MISSED_MAX, UNIT_STOP_TIMEOUT};
use super::procedures::DatabaseConfig;
use super::settings::SettingsDiagnostics;
use super::worker::QueueConfig;
use super::{Config, Role};
use crate::units::format_duration;

/// Checks all relations. A violated relation between gateway and worker settings is only a warning,
/// because the roles may run on different hosts.
pub(super) fn check(config: &Config, diagnostics: &mut SettingsDiagnostics) {
    let directory = config.directory.display().to_string();
    let mut relations = Relations { diagnostics, directory: &directory };
    check_listeners(config, &mut relations);
    check_gateway(config, &mut relations);
    check_issuers(config, &mut relations);
    check_drain(config, &mut relations);
    check_between_roles(config, &mut relations);
    check_databases(config, &mut relations);
}

struct Relations<'a> {
    diagnostics: &'a mut SettingsDiagnostics,
    directory: &'a str,
}

impl Relations<'_> {
    /// Records an error if the first value is greater than the second.
    fn at_most<T: PartialOrd + DisplayValue + Copy>(&mut self, low: (&str, T), high: (&str, T)) {
        if low.1 > high.1 {
            let (found, limit) = (low.1.display(), high.1.display());
            let expected = format!("expected at most {} ({limit}), found {found}", high.0);
            self.diagnostics.error(low.0, self.directory, expected);
        }
    }

    /// Records an error if the first value is not less than the second.
    fn below<T: PartialOrd + DisplayValue + Copy>(&mut self, low: (&str, T), high: (&str, T)) {
        if low.1 >= high.1 {
            let (found, limit) = (low.1.display(), high.1.display());
            let expected = format!("expected less than {} ({limit}), found {found}", high.0);
            self.diagnostics.error(low.0, self.directory, expected);
        }
    }

    fn warn(&mut self, key: &str, text: &str) {
        self.diagnostics.warn(key, self.directory, text);
    }
}

trait DisplayValue {
    fn display(&self) -> String;
}

impl DisplayValue for usize {
    fn display(&self) -> String {
        self.to_string()
    }
}

impl DisplayValue for Duration {
    fn display(&self) -> String {
        format_duration(*self)
    }
}

/// Checks that a gateway's two listeners do not use the same port on the same address.
fn check_listeners(config: &Config, relations: &mut Relations<'_>) {
    let (public, admin) = (config.gateway.listen, config.admin.listen);
    let is_same_family = public.is_ipv4() == admin.is_ipv4();
    let is_any = |address: SocketAddr| address.ip().is_unspecified();
    // A listener on [::] also accepts IPv4.
    let covers = |any: SocketAddr| is_any(any) && (any.is_ipv6() || is_same_family);
    let overlaps = public.ip() == admin.ip() || covers(public) || covers(admin);
    if config.role == Some(Role::Gateway)
        && public.port() != 0
        && public.port() == admin.port()
        && overlaps
    {
        let expected =
            format!("expected another port than that of gateway.listen ({public}), found {admin}");
        relations.diagnostics.error("admin.listen", relations.directory, expected);
    }
}

fn check_gateway(config: &Config, relations: &mut Relations<'_>) {
    let http = &config.gateway.http;
    relations.at_most(
        ("gateway.http.connections_per_client_max", http.connections_per_client_max),
        ("gateway.http.connections_max", http.connections_max),
    );
    relations.at_most(
        ("gateway.http.requests_in_flight_per_caller_max", http.requests_in_flight_per_caller_max),
        ("gateway.http.requests_in_flight_max", http.requests_in_flight_max),
    );
    relations.below(
        ("gateway.http.uri_bytes_max", http.uri_bytes_max),
        ("gateway.http.header_bytes_max", http.header_bytes_max),
    );
    relations.at_most(
        ("gateway.http.body_idle_timeout", http.body_idle_timeout),
        ("gateway.http.body_timeout", http.body_timeout),
    );
    let session = &config.gateway.session;
    let per_client =
        ("gateway.http.buffered_bytes_per_client_max", http.buffered_bytes_per_client_max);
    relations.at_most(per_client, ("gateway.http.buffered_bytes_max", http.buffered_bytes_max));
    // A body or answer larger than the buffer could never be buffered.
    let body = ("catalogue.body_bytes_max_default", config.catalogue.defaults.body_bytes_max);
    let body_ceiling =
        ("half of gateway.http.buffered_bytes_per_client_max", http.body_bytes_ceiling());
    relations.at_most(body, body_ceiling);
    relations.at_most(("gateway.session.answer_bytes_max", session.answer_bytes_max), per_client);
    relations.at_most(
        ("gateway.session.queue_retry_delay_min", session.queue_retry_delay_min),
        ("gateway.session.queue_retry_delay_max", session.queue_retry_delay_max),
    );
    let attempt = ("catalogue.timeout_default", config.catalogue.defaults.timeout);
    relations.below(("gateway.session.accept_timeout", session.accept_timeout), attempt);
    let lost_after = session.progress_interval * PROGRESS_MISSED_MAX;
    if lost_after >= attempt.1 {
        let (found, limit) = (lost_after.display(), attempt.1.display());
        let expected = format!(
            "a worker counts as lost after {PROGRESS_MISSED_MAX} intervals: this time must be shorter than {} \
             ({limit}), but is {found}",
            attempt.0
        );
        relations.diagnostics.error(
            "gateway.session.progress_interval",
            relations.directory,
            expected,
        );
    }
}

fn check_issuers(config: &Config, relations: &mut Relations<'_>) {
    for (name, issuer) in &config.auth.issuers {
        let KeySource::Fetched(keys) = &issuer.keys else { continue };
        let key = |key: &str| format!("auth.jwt.{name}.{key}");
        let (refresh, age_max, cooldown) =
            (key("keys_refresh"), key("keys_age_max"), key("keys_cooldown"));
        let refresh = (refresh.as_str(), keys.refresh);
        relations.below(refresh, (&age_max, keys.age_max));
        relations.at_most((&cooldown, keys.cooldown), refresh);
    }
}

fn check_drain(config: &Config, relations: &mut Relations<'_>) {
    let lifecycle = &config.lifecycle;
    relations.at_most(
        ("catalogue.timeout_default", config.catalogue.defaults.timeout),
        ("lifecycle.drain_timeout", lifecycle.drain_timeout),
    );
    if lifecycle.drain_delay + lifecycle.drain_timeout >= UNIT_STOP_TIMEOUT {
        let limit = UNIT_STOP_TIMEOUT.display();
        let text = format!(
            "the drain can take longer than the {limit} that systemd waits: raise the unit's TimeoutStopSec above \
             drain_delay + drain_timeout"
        );
        relations.warn("lifecycle.drain_timeout", &text);
    }
}

fn check_between_roles(config: &Config, relations: &mut Relations<'_>) {
    let (session, worker) = (&config.gateway.session, &config.worker);
    // A worker sends its first report when the call is running, not while the request is waiting
    // for a slot.
    let silence = worker.offer_timeout + OFFER_EXPIRY_INTERVAL + worker.progress_first;
    if silence >= session.accept_timeout {
        let text = "gateways resend a request after gateway.session.accept_timeout: expected the sum of \
                    worker.offer_timeout, 100 ms and this key to be shorter";
        relations.warn("worker.progress_first", text);
    }
    if worker.progress_interval > session.progress_interval {
        let text =
            "gateways expect progress every gateway.session.progress_interval, which is shorter";
        relations.warn("worker.progress_interval", text);
    }
    if worker.answer_bytes_max > session.answer_bytes_max {
        let text = "gateways refuse non-streaming answers larger than gateway.session.answer_bytes_max, which is less \
                    than this";
        relations.warn("worker.answer_bytes_max", text);
    }
}

fn check_databases(config: &Config, relations: &mut Relations<'_>) {
    if config.role != Some(Role::Worker) {
        return;
    }
    let databases = &config.procedures.databases;
    check_pools(config, relations);
    for (pattern, queue) in &config.worker.queues {
        let name = queue.database();
        let quote = if pattern.contains('*') { "\"" } else { "" };
        let key = |last: &str| format!("worker.queues.{quote}{pattern}{quote}.{last}");
        if queue.reads_only && matches!(databases.get(name), Some(DatabaseConfig::Sqlite(_))) {
            let expected =
                format!("expected \"read-write\": database {name} is SQLite and has no replica");
            let key = key("application_intent");
            relations.diagnostics.error(&key, relations.directory, expected);
        }
        if queue.application_name.is_some()
            && matches!(databases.get(name), Some(DatabaseConfig::Sqlite(_)))
        {
            let expected =
                format!("expected none: database {name} is SQLite, which has no application names");
            let key = key("application_name");
            relations.diagnostics.error(&key, relations.directory, expected);
        }
        match databases.get(name) {
            // For SQL Server, `procedures::pool_sizes` checks this once the queues are known.
            Some(DatabaseConfig::Sqlite(sqlite)) if queue.concurrency > sqlite.connections_max => {
                let text = format!(
                    "database {name} has {} connections: further calls wait for a connection",
                    sqlite.connections_max
                );
                relations.warn(&key("concurrency"), &text);
            }
            None if queue.database.is_some() => {
                let expected =
                    format!("expected a database of [procedures.databases], found {name:?}");
                relations.diagnostics.error(&key("database"), relations.directory, expected);
            }
            _ => {}
        }
    }
}

/// Checks that every pool can have a connection. There is one pool for each combination of
/// application intent and application name.
fn check_pools(config: &Config, relations: &mut Relations<'_>) {
    for (name, database) in &config.procedures.databases {
        let DatabaseConfig::Mssql(mssql) = database else { continue };
        for reads_only in [false, true] {
            let of_intent =
                |queue: &&QueueConfig| queue.database() == name && queue.reads_only == reads_only;
            let queues = config.worker.queues.values().filter(of_intent);
            let pools: BTreeSet<_> = queues.map(|queue| &queue.application_name).collect();
            if pools.len() > mssql.connections_max {
                let (pools, found) = (pools.len(), mssql.connections_max);
                let expected = format!(
                    "expected at least {pools}, one for each application_name of its queues and one for queues \
                     without one, found {found}"
                );
                let key = format!("procedures.databases.{name}.mssql.connections_max");
                relations.diagnostics.error(&key, relations.directory, expected);
            }
        }
    }
}
