//! Promise: arbitrary bytes in a message or a file are parsed or rejected with an error of one line, and never cause a
//! panic.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use fjord::catalogue;
use fjord::cli::Role;
use fjord::config::{Config, Sources};
use fjord::envelope::{Control, Reply, Request};
use fjord::message::{Headers, Message, Subject};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};

/// The names of protocol headers and of other headers.
const NAMES: &[&str] = &[
    "Fjord-Reply",
    "Fjord-Reason",
    "Fjord-Part",
    "Fjord-Status",
    "Fjord-Outcome",
    "Fjord-Phases",
    "Fjord-Control",
    "Fjord-Endpoint",
    "Fjord-Request-Id",
    "Fjord-Attempt",
    "Fjord-Timeout-Ms",
    "Fjord-Execution",
    "Fjord-Waiting",
    "Fjord-Principal",
    "Idempotency-Key",
    "traceparent",
    "tracestate",
    "Content-Type",
    "Nats-Service-Error-Code",
    "Nats-Service-Error",
    "Status",
    "fjord-reply",
    "X-Other",
];
/// Values that have a meaning in at least one of the headers.
const VALUES: &[&str] = &[
    "final",
    "part",
    "claim",
    "refused",
    "offer",
    "progress",
    "busy",
    "draining",
    "expired",
    "unavailable",
    "grant",
    "deny",
    "cancel",
    "decline",
    "resend",
    "at-most-once",
    "at-least-once",
    "0",
    "1",
    "200",
    "404",
    "599",
    "600",
    "-1",
    "4294967295",
    "4294967296",
    "99999999999999999999",
    "1e3",
    " 1",
    "",
    "horse-get",
    "pool=0.4;call=12;total=13",
    "pool=;;=",
    "pool=-1;call=NaN;total=inf",
    "application/json",
    "ok",
    "other",
];

fn headers() -> impl Strategy<Value = Headers> {
    let value =
        prop_oneof![select(VALUES).prop_map(ToOwned::to_owned), ".{0,40}", "[0-9;=.a-z]{0,300}"];
    vec((select(NAMES), value), 0..8).prop_map(|pairs| {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            // Values that cannot be sent are omitted, because the transport rejects them as well.
            if headers.get(name).is_none() {
                headers.push(name, value).ok();
            }
        }
        headers
    })
}

fn message() -> impl Strategy<Value = Message> {
    let payload = vec(any::<u8>(), 0..64);
    (headers(), option::of("[a-z]{1,5}(\\.[a-z0-9]{1,5}){0,3}"), payload, any::<bool>()).prop_map(
        |(headers, reply, payload, no_responders)| Message {
            reply: reply.and_then(|reply| Subject::new(&reply).ok()),
            headers,
            payload: payload.into(),
            no_responders,
            ..Message::to(Subject::new("inbox.1").unwrap())
        },
    )
}

/// Returns `text` with parts removed, repeated or replaced.
fn corrupt(text: &str, edits: &[(Index, usize, String)]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (place, cut, put) in edits {
        let from = place.index(characters.len() + 1);
        let to = (from + cut).min(characters.len());
        characters.splice(from..to, put.chars());
    }
    characters.into_iter().collect()
}

fn edits() -> impl Strategy<Value = Vec<(Index, usize, String)>> {
    let put = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}\",:=#0-9a-z' \n-]{1,6}",
        ".{1,3}",
        select(
            &["null", "-1", "1e999", "\"\"", "{}", "[]", "true", "\\u0000", "99999999999999999999"]
                [..]
        )
        .prop_map(ToOwned::to_owned),
    ];
    vec((any::<Index>(), 0_usize..12, put), 0..6)
}

/// The shipped configuration file, with every key uncommented.
static CONFIGURATION: LazyLock<String> = LazyLock::new(|| {
    let shipped =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/fjord.toml"));
    let is_key = |line: &&str| {
        let rest = line.trim_start_matches('#');
        rest.starts_with('[') || rest.split(' ').nth(1) == Some("=")
    };
    let shipped = shipped.unwrap();
    let lines = shipped.lines().filter(is_key).map(|line| line.trim_start_matches('#'));
    lines.collect::<Vec<_>>().join("\n")
});

/// The endpoints of the demo, each in its own file.
static ENDPOINTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/endpoints");
    let files = fs::read_dir(demo).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| fs::read_to_string(file).unwrap()).collect()
});

fn is_one_line(line: &str) -> bool {
    !line.is_empty() && !line.contains('\n')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_rejects_and_counts_malformed_messages() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let nats = async_nats::ConnectOptions::new().add_root_certificates(fleet.certs.ca.clone());
    let nats = nats.connect(fleet.nats.urls()[0].as_str()).await.unwrap();
    let mut others = 0.0;
    for (headers, status) in [
        (&[][..], "400"),
        (&[("Fjord-Endpoint", "nothing here")], "400"),
        (&[("Fjord-Endpoint", "echo"), ("Fjord-Attempt", "0")], "400"),
        (&[("Fjord-Endpoint", "echo"), ("Fjord-Execution", "thrice")], "400"),
        (&[("Fjord-Endpoint", "unknown")], "500"),
    ] {
        let mut written = async_nats::HeaderMap::new();
        for (name, value) in headers {
            written.insert(*name, *value);
        }
        let answer = nats.request_with_headers("fjord.q.echo", written, "{".into()).await.unwrap();
        let reply_headers = answer.headers.unwrap();
        assert_eq!(
            reply_headers.get("Fjord-Status").map(async_nats::HeaderValue::as_str),
            Some(status),
            "{headers:?}"
        );
        others += 1.0;
    }
    // Messages without a reply subject or headers, on the subjects for requests, resend requests
    // and cancels.
    for subject in ["fjord.q.echo", "fjord.resend.echo", "fjord.cancel.echo"] {
        nats.publish(subject, "\0\u{1}".into()).await.unwrap();
    }
    nats.flush().await.unwrap();
    eventually_some("all messages are counted", SOON, async || {
        let count = fleet.workers[0].metric("fjord_worker_malformed_messages_total").await;
        (count >= others + 2.0).then_some(())
    })
    .await;
    fleet.client().get("/v1/echo/a").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_malformed_messages_logs_few_lines() {
    const FLOOD: u32 = 500;
    let fleet = Fleet::start(FleetOptions { gateways: 0, ..FleetOptions::default() }).await;
    let nats = async_nats::ConnectOptions::new().add_root_certificates(fleet.certs.ca.clone());
    let nats = nats.connect(fleet.nats.urls()[0].as_str()).await.unwrap();
    let worker = &fleet.workers[0];
    let before = worker.process.log().lines().count();
    for _ in 0..FLOOD {
        let mut of_others = async_nats::HeaderMap::new();
        of_others.insert("Fjord-Endpoint", "unknown");
        nats.publish_with_headers("fjord.q.echo", of_others, "{}".into()).await.unwrap();
        nats.publish("fjord.q.echo", "\0".into()).await.unwrap();
    }
    nats.flush().await.unwrap();
    eventually_some("all messages are counted", SOON, async || {
        let count = worker.metric("fjord_worker_malformed_messages_total").await;
        (count > f64::from(2 * FLOOD) - 0.5).then_some(())
    })
    .await;
    let repeats = worker.metric("fjord_log_lines_suppressed_total").await;
    assert!(repeats > f64::from(2 * FLOOD) - 2.5, "{repeats} lines were suppressed");
    let log = worker.process.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    assert_eq!(lines.len(), 2, "one line of each kind: {}", lines.join("\n"));
    // When the flood has ended, one more line of each kind reports the number of suppressed lines.
    eventually_some("the line of suppressed messages", Duration::from_secs(30), async || {
        let log = worker.process.log();
        let over = log.lines().filter(|line| line.contains("a condition is over"));
        (over.filter(|line| line.contains("\"requests\":500")).count() == 2).then_some(())
    })
    .await;
}

proptest! {
    #[test]
    fn a_reply_is_parsed_or_rejected(message in message()) {
        let Ok(reply) = Reply::parse(message) else { return Ok(()) };
        // Encoding the parsed reply and parsing it again returns the same reply.
        let Ok(written) = reply.clone().into_message(Subject::new("inbox.1").unwrap()) else { return Ok(()) };
        let again = Reply::parse(written);
        let without_times = |reply| match reply {
            // Phases are rounded when they are encoded.
            Reply::Final(answer) => Reply::Final(fjord::envelope::Final { phases: None, ..answer }),
            other => other,
        };
        prop_assert_eq!(again.map(without_times), Ok(without_times(reply)));
    }

    #[test]
    fn a_request_is_parsed_or_rejected(message in message()) {
        let control = Control::parse(&message.headers).map(Control::as_str);
        prop_assert_eq!(control, control.and(message.headers.get("Fjord-Control")));
        match Request::parse(&message.headers, message.payload) {
            Ok(request) => {
                let headers = request.headers().unwrap();
                prop_assert_eq!(Request::parse(&headers, request.payload.clone()), Ok(request));
            }
            Err(error) => prop_assert!(is_one_line(&error.to_string())),
        }
    }

    #[test]
    fn a_catalogue_is_parsed_or_rejected_with_one_line_per_error(file in any::<Index>(), edits in edits()) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("fjord.toml"), "").unwrap();
        let endpoints = directory.path().join("endpoints");
        fs::create_dir(&endpoints).unwrap();
        let text = &ENDPOINTS[file.index(ENDPOINTS.len())];
        fs::write(endpoints.join("one.json"), corrupt(text, &edits)).unwrap();
        let sources = Sources { directory: Some(directory.path().to_owned()), ..Sources::default() };
        let config = Config::load(&sources).unwrap().config.catalogue;
        match catalogue::load(&config.directory, &config.defaults) {
            Ok(catalogue) => prop_assert!(catalogue.endpoints().len() < 100),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(is_one_line(&error.to_string()), "{}", error);
                }
            }
        }
    }

    #[test]
    fn a_configuration_is_parsed_or_rejected_with_one_line_per_error(edits in edits(), set in "[a-z_.]{0,20}=.{0,20}") {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("gateway.toml"), corrupt(&CONFIGURATION, &edits)).unwrap();
        for role in [None, Some(Role::Gateway), Some(Role::Worker)] {
            let sources = Sources {
                directory: Some(directory.path().to_owned()),
                role,
                sets: vec![set.clone()],
                ..Sources::default()
            };
            if let Err(errors) = Config::load(&sources) {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(is_one_line(&error.to_string()), "{}", error);
                }
            }
        }
    }
}
