//! The shipped rules for Prometheus and the dashboard for Grafana name only existing metrics, and promtool accepts them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fjord::outcome::Outcome;
use fjord::telemetry::names::{self, Metric, MetricKind};
use regex::Regex;
use serde_json::Value;

use crate::support::prometheus;

const CAPACITY: &str = include_str!("../../config/alerts/capacity.yml");
const ALERTS: &str = include_str!("../../config/alerts/alerts.yml");
const CASES: &str = include_str!("../../config/alerts/tests/alerts.yml");
const DASHBOARD: &str = include_str!("../../config/dashboards/fjord.json");

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path)
}

/// Returns the values of all lines `- <key>: ` in a file of rules.
fn all_of<'a>(key: &str, rules: &'a str) -> BTreeSet<&'a str> {
    let start = format!("- {key}: ");
    rules.lines().filter_map(|line| line.trim_start().strip_prefix(&start)).collect()
}

/// Returns every expression of the dashboard, with Grafana's variables replaced.
pub(crate) fn panels(rate_interval: &str) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().expect("an expression"));
    let filled = expressions.map(|expression| {
        let text = expression.replace("$__rate_interval", rate_interval);
        text.replace("$endpoint", ".*").replace("$queue", ".*")
    });
    filled.collect()
}

/// Returns all expressions of the rules and of the dashboard.
fn shipped_text() -> String {
    format!("{CAPACITY}\n{ALERTS}\n{}", panels("5m").join("\n"))
}

#[test]
fn rules_and_dashboard_name_only_existing_metrics() {
    let text = shipped_text();
    let recorded = all_of("record", CAPACITY);
    let name = Regex::new(r"\b(?:\w+:fjord_\w+:\w+|fjord_\w+)").expect("a pattern");
    let known = |found: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| found.strip_suffix(end));
        recorded.contains(found)
            || names::ALL.iter().any(|m| m.name == found || Some(m.name) == base)
    };
    let unknown: BTreeSet<&str> =
        name.find_iter(&text).map(|found| found.as_str()).filter(|found| !known(found)).collect();
    assert_eq!(unknown, BTreeSet::new());
    assert!(panels("5m").len() > 20, "the dashboard has panels");
    let words = Regex::new(r#"outcome[!=~]+"([^"]+)""#).expect("a pattern");
    for word in words
        .captures_iter(&text)
        .flat_map(|c| c[1].split('|').map(str::to_owned).collect::<Vec<_>>())
    {
        assert_ne!(Outcome::parse(&word), Outcome::Other, "{word} is not an outcome");
    }
}

#[test]
fn every_alert_has_a_case_in_which_it_fires() {
    let alerts = all_of("alert", ALERTS);
    assert!(alerts.len() >= 20, "{alerts:?}");
    for alert in alerts {
        assert!(CASES.contains(&format!("alertname=\"{alert}\"")), "{alert} has no case");
    }
}

/// The counters that no rule uses, each with the reason why.
const NO_ALERT: &[(Metric, &str)] = &[
    (names::GATEWAY_RESUBMISSIONS, "the request was answered; FjordLongWait covers its delay"),
    (names::GATEWAY_LATE_REPLIES, "its request has an outcome, which FjordErrors counts"),
    (
        names::GATEWAY_CONTROLS_UNSENT,
        "a result of the worker's timers; FjordConnectionUnstable covers a stalled connection",
    ),
    (names::GATEWAY_COMPRESSED, "good news"),
    (names::GATEWAY_REUSED, "good news"),
    (names::GATEWAY_CACHE_EVICTIONS, "the answers are requested from the database again"),
    (
        names::GATEWAY_HEALTH_CHECKS,
        "the causes of a gateway that is not ready have their own alerts",
    ),
    (names::ADMIN_CONNECTIONS_EVICTED, "the newer connection was served"),
    (
        names::WORKER_REFUSALS,
        "busy refusals distribute the load; the causes of the others have their own alerts",
    ),
    (
        names::WORKER_UNSENT,
        "a result of the gateway's timers; FjordConnectionUnstable covers a stalled connection",
    ),
    (names::WORKER_RESENT, "a call without its answer has an outcome, which FjordErrors counts"),
    (names::BACKEND_DISCARDED, "the pool opens another connection; FjordPoolWait covers the delay"),
    (names::BACKEND_CANCELS, "the callers disconnected or timed out, which their outcomes show"),
    (names::AUTH_FAILURES, "caused by the callers"),
    (names::AUTH_FAILURES_LIMITED, "caused by the callers; a warning in the log names the address"),
    (names::CONTROL_COMMANDS, "the command names the processes on which it has failed"),
    (names::RATE_LIMITED, "caused by the callers"),
    (
        names::RATE_LIMIT_MESSAGES,
        "each gateway still enforces its limits; FjordNatsDisconnected covers a lost connection",
    ),
    (
        names::RATE_LIMIT_SUBSCRIBE_FAILURES,
        "each gateway still enforces its limits; a warning is in the log",
    ),
    (names::RATE_LIMIT_OMITTED, "each gateway still enforces its limits; a warning is in the log"),
    (names::IN_FLIGHT_LIMITED, "caused by the callers; a warning in the log names one of them"),
    (names::LOG_LINES_SUPPRESSED, "its first line is in the log, and its requests have outcomes"),
    (names::TRACE_EXPORTS, "FjordTracesLost covers their spans"),
];

#[test]
fn every_counter_has_a_rule_or_a_documented_reason() {
    let text = format!("{CAPACITY}\n{ALERTS}");
    for metric in names::ALL.iter().filter(|metric| metric.kind == MetricKind::Counter) {
        let has_reason = NO_ALERT.iter().any(|(excused, _)| excused == metric);
        assert_ne!(text.contains(metric.name), has_reason, "{}", metric.name);
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let Some(promtool) = prometheus::promtool("the check of rules and alerts") else { return };
    let run = |arguments: &[&str], path: &Path| {
        let mut arguments = arguments.to_vec();
        arguments.push(path.to_str().expect("UTF-8"));
        let output = prometheus::run(&promtool, &arguments, "");
        assert!(output.is_ok(), "{arguments:?}:\n{}", output.unwrap_err());
    };
    for rules in ["alerts/capacity.yml", "alerts/alerts.yml"] {
        run(&["check", "rules", "--lint=all", "--lint-fatal"], &shipped(rules));
    }
    run(&["test", "rules"], &shipped("alerts/tests/alerts.yml"));
    // promtool can parse the dashboard's expressions only as rules.
    let rules = panels("5m").into_iter().enumerate().map(|(number, expression)| {
        format!("  - record: panel:{number}\n    expr: {}\n", Value::from(expression))
    });
    let text = format!("groups:\n- name: dashboard\n  rules:\n{}", rules.collect::<String>());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("dashboard.yml");
    fs::write(&file, text).expect("the file can be written");
    run(&["check", "rules"], &file);
}
