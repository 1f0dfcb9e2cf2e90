//! Checks dependencies between modules: their layers, forbidden dependencies, and the use of drivers.

use super::modules::{ModuleUse, fixture, uses};
use super::{SourceFile, names};

/// The crates that are drivers, each with the path prefixes of the files that may name it.
const DRIVERS: &[(&str, &[&str])] = &[
    ("async_nats", &["src/messaging/nats"]),
    ("aws_credential_types", &["src/commands/ec2"]),
    ("aws_sigv4", &["src/commands/ec2/signed_api"]),
    ("boon", &["src/catalogue/json_schema"]),
    ("brotli", &["roles/gateway/edge/compression"]),
    ("clap", &["src/cli", "src/commands"]),
    ("deadpool", &["src/procedures/mssql", "src/procedures/sqlite"]),
    ("figment", &["src/config"]),
    ("flate2", &["roles/gateway/edge/compression"]),
    ("hyper", &["roles/gateway", "src/admin"]),
    ("hyper_util", &["roles/gateway", "src/admin"]),
    ("jsonwebtoken", &["roles/gateway/admission/auth"]),
    ("listenfd", &["src/listen"]),
    ("matchit", &["roles/gateway/admission/router", "src/catalogue"]),
    ("metrics", &["src/telemetry"]),
    ("metrics_exporter_prometheus", &["src/telemetry"]),
    ("opentelemetry_proto", &["src/telemetry/traces"]),
    ("prost", &["src/telemetry/traces"]),
    ("proxy_header", &["roles/gateway/edge/listener"]),
    ("rcgen", &["src/tls/throwaway"]),
    ("quick_junit", &["src/commands/test/junit"]),
    ("quick_xml", &["src/commands/ec2/service_error"]),
    (
        "reqwest",
        &[
            "roles/gateway/admission/auth/jwt/key_fetcher",
            "src/commands/ec2",
            "src/commands/test/gateway_client",
            "src/procedures/mssql/tds/token_source",
            "src/telemetry/traces",
        ],
    ),
    ("regex_automata", &["src/catalogue/pattern"]),
    ("rusqlite", &["src/procedures/sqlite"]),
    // `main` selects the crypto provider of the process. The trace exporter gets its TLS configuration from its caller.
    ("rustls", &["src/tls", "src/main.rs", "src/telemetry/traces"]),
    ("rustls_native_certs", &["src/tls"]),
    ("sd_notify", &["src/lifecycle"]),
    ("tiberius", &["src/procedures/mssql"]),
    ("tokio_rustls", &["src/tls", "roles/gateway/edge/listener", "roles/gateway/edge/connection"]),
    ("tracing_subscriber", &["src/telemetry"]),
    ("zstd", &["roles/gateway/edge/compression"]),
];

pub(super) fn drivers_outside_their_module(source: &SourceFile) -> Vec<String> {
    let is_library = ["src/", "roles/"].iter().any(|part| source.path.starts_with(part));
    if !is_library {
        return Vec::new();
    }
    let is_allowed = |files: &[&str]| files.iter().any(|file| source.path.starts_with(file));
    let others: Vec<_> = DRIVERS.iter().filter(|(_, files)| !is_allowed(files)).collect();
    let named = |line: &str| others.iter().find(|(driver, _)| names(line, driver));
    let lines = source.lines_that(|line| line.contains("::") && named(line).is_some());
    let with_files = lines.into_iter().map(|line| {
        let files = named(&line).map(|(_, files)| files.join(", ")).unwrap_or_default();
        format!("{line} (allowed in {files})")
    });
    with_files.collect()
}

/// The modules of the crate, from the lowest layer up. A module may use modules of its own layer and of lower layers.
const LAYERS: &[&[&str]] = &[
    &[
        "cli",
        "fair_order",
        "file_version",
        "free_memory",
        "future",
        "http_date",
        "jitter",
        "message",
        "new_file",
        "outcome",
        "quality_value",
        "spelling",
        "units",
    ],
    &["envelope", "problem", "catalogue", "config"],
    &["tls", "lifecycle", "in_flight", "listen", "telemetry"],
    &["messaging", "procedures", "admin", "fleet", "endpoint_call", "local_api", "start_check"],
    &["commands", "roles"],
];

/// A dependency that must not exist although the layers permit it.
struct Forbidden {
    by: &'static str,
    module: &'static str,
    reason: &'static str,
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        by: "roles::gateway",
        module: "roles::worker",
        reason: "the roles meet on the wire, where any other program can replace either",
    },
    Forbidden {
        by: "roles::worker",
        module: "roles::gateway",
        reason: "the roles meet on the wire, where any other program can replace either",
    },
    Forbidden {
        by: "commands",
        module: "roles",
        reason: "shared code knows no role; main passes in what a command needs from one",
    },
    Forbidden {
        by: "messaging",
        module: "procedures",
        reason: "the transport does not know what messages do",
    },
    Forbidden {
        by: "procedures",
        module: "messaging",
        reason: "a procedure does not know how its request arrived",
    },
    Forbidden {
        by: "roles::gateway",
        module: "procedures",
        reason: "the gateway faces the public, so it must not be able to reach a database",
    },
];

/// Describes every use of a module in a higher layer, and every forbidden use.
fn wrong_uses(sources: &[SourceFile]) -> Vec<String> {
    let uses = uses(sources);
    uses.iter().filter_map(|found| Some(format!("{found}: {}", objection(found)?))).collect()
}

fn objection(found: &ModuleUse) -> Option<String> {
    let (Some(by), Some(module)) = (found.by.first(), found.module.first()) else {
        return None;
    };
    let (Some(own), Some(used)) = (layer(by), layer(module)) else {
        return Some(format!("{by} or {module} is not in the list of layers in {}", file!()));
    };
    if used > own {
        return Some("it is in a higher layer".to_owned());
    }
    let is_below = |path: &[String], module: &str| {
        module.split("::").eq(path.iter().take(module.split("::").count()))
    };
    let forbidden = FORBIDDEN
        .iter()
        .find(|rule| is_below(&found.by, rule.by) && is_below(&found.module, rule.module));
    forbidden.map(|rule| rule.reason.to_owned())
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn modules_use_only_layers_below() {
    let wrong = wrong_uses(&super::sources());
    assert!(
        wrong.is_empty(),
        "a module must be understandable and testable with its own layer and those below alone:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn wrong_uses_are_found() {
    let is_wrong = |path: &str, text: &str| {
        let sources = fixture(&[
            ("src/admin.rs", ""),
            ("src/messaging.rs", ""),
            ("src/procedures.rs", ""),
            ("src/telemetry/names.rs", ""),
            ("src/tls.rs", ""),
            ("src/unlisted.rs", ""),
            ("roles/gateway/caller.rs", ""),
            ("roles/worker/slots.rs", ""),
            (path, text),
        ]);
        !wrong_uses(&sources).is_empty()
    };
    for (path, text) in [
        ("src/problem.rs", "use crate::{future::BoxFuture, admin::Admin};"),
        ("src/catalogue.rs", "let x = crate::telemetry::names::STATUS;"),
        ("src/admin.rs", "use crate::roles::gateway;"),
        ("src/commands/call.rs", "use crate::roles::gateway;"),
        ("src/messaging/nats.rs", "use crate::procedures::Backend;"),
        ("src/procedures.rs", "use crate::messaging::Transport;"),
        ("src/admin.rs", "use crate::unlisted::X;"),
        ("roles/gateway/session.rs", "let x = crate::procedures::connect();"),
        ("roles/worker/slots.rs", "use crate::roles::{gateway::caller::Caller};"),
        ("roles/gateway/caller.rs", "use super::super::worker::slots;"),
    ] {
        assert!(is_wrong(path, text), "{path}: {text}");
    }
    for (path, text) in [
        ("src/admin.rs", "use crate::{tls, messaging::Transport};"),
        ("src/problem.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use crate::admin::A; }"),
        ("roles/worker/slots.rs", "use crate::procedures::Backend; use super::super::RunError;"),
        ("src/lib.rs", "pub use roles::gateway;"),
    ] {
        assert!(!is_wrong(path, text), "{path}: {text}");
    }
}
