//! Who may use whom: the homes of the drivers and the layers of `src`.

use std::sync::LazyLock;

use regex::Regex;

use super::{Source, names};

/// A crate and the files that may name it, by the start of their paths.
const HOMES: &[(&str, &[&str])] = &[
    ("async_nats", &["src/messaging/nats"]),
    ("brotli", &["roles/gateway/edge/connection/compress"]),
    ("clap", &["src/cli", "src/commands"]),
    ("deadpool", &["src/procedures/mssql", "src/procedures/sqlite"]),
    ("figment", &["src/config"]),
    ("flate2", &["roles/gateway/edge/connection/compress"]),
    ("hyper", &["roles/gateway", "src/admin"]),
    ("hyper_util", &["roles/gateway", "src/admin"]),
    ("jsonwebtoken", &["roles/gateway/admission/auth"]),
    ("matchit", &["roles/gateway/admission/router", "src/catalogue"]),
    ("metrics", &["src/telemetry"]),
    ("metrics_exporter_prometheus", &["src/telemetry"]),
    ("opentelemetry_proto", &["src/telemetry/traces"]),
    ("prost", &["src/telemetry/traces"]),
    ("proxy_header", &["roles/gateway/edge/listener"]),
    ("reqwest", &["roles/gateway/admission/auth/jwt/fetch", "src/telemetry/traces"]),
    ("rusqlite", &["src/procedures/sqlite"]),
    // The provider of a process is chosen first thing in main.
    ("rustls", &["src/tls", "src/main.rs"]),
    ("rustls_native_certs", &["src/tls"]),
    ("sd_notify", &["src/lifecycle"]),
    ("tiberius", &["src/procedures/mssql"]),
    ("tokio_rustls", &["src/tls", "roles/gateway/edge/listener", "roles/gateway/edge/connection"]),
    ("tracing_subscriber", &["src/telemetry"]),
    ("zstd", &["roles/gateway/edge/connection/compress"]),
];

pub(super) fn drivers_away_from_home(source: &Source) -> Vec<String> {
    let is_ours = ["src/", "roles/"].iter().any(|part| source.path.starts_with(part));
    let away = HOMES
        .iter()
        .filter(|(_, homes)| is_ours && !homes.iter().any(|home| source.path.starts_with(home)));
    away.flat_map(|(driver, homes)| {
        let lines = source.lines_that(|line| names(line, driver));
        lines.into_iter().map(move |line| format!("{line} (home: {})", homes.join(", ")))
    })
    .collect()
}

/// The modules of `src`, from the lowest layer up. A module may use its own layer and those below.
const LAYERS: &[&[&str]] = &[
    &["cli", "future", "outcome"],
    &["envelope", "problem", "catalogue", "config"],
    &["tls", "lifecycle", "in_flight", "listen", "telemetry"],
    &["messaging", "procedures", "admin", "fleet"],
    &["commands"],
];

/// Names that anybody may use: constants, and the plain types that a message is made of.
const FREE: &[(&str, &[&str])] = &[
    ("telemetry", &["names"]),
    ("messaging", &["Headers", "HeaderError", "Message", "Subject", "SubjectError"]),
];

/// `crate::module`, with what is named in it, or a group of such.
static USE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\bcrate::(?:\{([^;]*)\}|(\w+)(?:::(\w+|\{[^}]*\}))?)").expect("a good pattern")
});

pub(super) fn uses_of_what_is_above(source: &Source) -> Vec<String> {
    let Some(own) = source.path.strip_prefix("src/") else {
        return Vec::new();
    };
    let own = own.split(['/', '.']).next().unwrap_or_default();
    if matches!(own, "lib" | "main") {
        return Vec::new();
    }
    let Some(layer) = layer(own) else {
        return vec![format!("{own} has no place among the layers of {}", file!())];
    };
    let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
    let uses = USE.captures_iter(&code).flat_map(|capture| match capture.get(1) {
        Some(group) => members(group.as_str()),
        None => vec![(text(&capture, 2), text(&capture, 3))],
    });
    uses.filter(|(module, _)| super::layers::layer(module).is_some_and(|used| used > layer))
        .filter(|(module, inner)| !is_free(module, inner))
        .map(|(module, inner)| format!("{own} uses {module}::{inner}"))
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn text(capture: &regex::Captures<'_>, group: usize) -> String {
    capture.get(group).map(|found| found.as_str().to_owned()).unwrap_or_default()
}

/// The members of `{a::b, c::{d, e}}`, each split at its first step.
fn members(group: &str) -> Vec<(String, String)> {
    let mut depth = 0_usize;
    let mut members = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => members.push(String::new()),
            _ => {}
        }
        if let Some(last) = members.last_mut().filter(|_| c != ',' || depth > 0) {
            last.push(c);
        }
    }
    let split = members.iter().map(|member| member.trim().split_once("::").unwrap_or((member, "")));
    split.map(|(module, inner)| (module.trim().to_owned(), inner.to_owned())).collect()
}

fn is_free(module: &str, inner: &str) -> bool {
    let free = FREE.iter().find(|(each, _)| *each == module).map_or(&[][..], |(_, free)| *free);
    let mut steps =
        inner.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|s| !s.is_empty());
    // Of a path the first step counts, of a group every member.
    if inner.starts_with('{') {
        return steps.all(|step| free.contains(&step));
    }
    steps.next().is_some_and(|step| free.contains(&step))
}

#[test]
fn uses_are_read_in_every_form_they_are_written_in() {
    let cases = [
        ("src/config.rs", "use crate::messaging::Subject;", 0),
        ("src/envelope/reply.rs", "use crate::messaging::{Headers, Message};", 0),
        ("src/envelope/reply.rs", "use crate::messaging::{Headers, Transport};", 1),
        ("src/problem.rs", "use crate::{\n    cli::Role,\n    admin::{A, B},\n    tls,\n};", 2),
        ("src/catalogue.rs", "let x = crate::telemetry::counter(&m, &[]);", 1),
        ("src/catalogue.rs", "let x = crate::telemetry::names::STATUS;", 0),
        ("src/commands/check.rs", "use crate::procedures::connect;", 0),
        ("src/newcomer.rs", "", 1),
        ("src/problem.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use crate::admin::A; }", 0),
    ];
    for (path, text, expected) in cases {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let found = uses_of_what_is_above(&source);
        assert_eq!(found.len(), expected, "{text}: {found:?}");
    }
}
