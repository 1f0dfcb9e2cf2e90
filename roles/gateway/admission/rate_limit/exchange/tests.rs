//! Tests the format of messages, and which messages are ignored.

use super::*;
use crate::catalogue::endpoint::RateLimit;
use crate::messaging::fake::FakeTransport;
use crate::roles::gateway::admission::rate_limit::consumed_quotas::{CallerKind, QuotaKey};
use crate::roles::gateway::client::network::ClientNetwork;

const LIMIT: RateLimit = RateLimit { requests: 3, window: Duration::from_mins(1) };

fn key(principal: &str) -> (QuotaKey, CallerKind) {
    let network = ClientNetwork::new([192, 0, 2, 1].into(), 56);
    QuotaKey::new(("horses", LIMIT), Some(principal), network)
}

fn message(consumed: ConsumedQuotas) -> Vec<u8> {
    serde_json::to_vec(&ConsumptionMessage { gateway: "g1".to_owned(), consumed }).unwrap()
}

#[test]
fn a_message_names_neither_principals_nor_addresses() {
    let mut consumed = ConsumedQuotas::default();
    let network = ClientNetwork::new([192, 0, 2, 1].into(), 56);
    let address = QuotaKey::new(("horses", LIMIT), None, network);
    assert!(consumed.add(key("ada"), Duration::from_secs(2)));
    assert!(consumed.add(key("ada"), Duration::from_secs(1)));
    assert!(consumed.add(address, Duration::from_nanos(7)));
    let text = String::from_utf8(message(consumed.clone())).unwrap();
    let expected = r#"{"gateway":"g1","consumed":{"principals":{"m81SqCRQdwvG8_qSjg86mg":3000000000},"addresses":{"WcCn9x4tnZ_4fflIme4yyQ":7}}}"#;
    assert_eq!(text, expected, "other versions must compute the same keys");
    assert_eq!(parse(text.as_bytes()).unwrap().consumed, consumed);
}

#[test]
fn a_message_may_have_fields_that_this_version_does_not_know() {
    let text = r#"{"gateway":"g2","consumed":{"others":{}},"more":[1]}"#;
    assert!(parse(text.as_bytes()).unwrap().consumed.is_empty());
}

#[test]
fn a_message_that_violates_the_protocol_is_ignored() {
    let entry = |key: &str, nanos: &str| {
        format!(r#"{{"gateway":"g","consumed":{{"principals":{{"{key}":{nanos}}}}}}}"#)
    };
    let good = "AAAAAAAAAAAAAAAAAAAAAA";
    assert!(parse(entry(good, "1").as_bytes()).is_some());
    let long = format!(r#"{{"gateway":"{}","consumed":{{}}}}"#, "g".repeat(65));
    let large = format!(r#"{{"gateway":"g","consumed":{{}},"more":"{}"}}"#, "x".repeat(128 << 10));
    let days = (Duration::from_hours(49).as_nanos()).to_string();
    for bad in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "\u{0}\u{1}".to_owned(),
        r#"{"consumed":{}}"#.to_owned(),
        entry(good, "-1"),
        entry(good, "1.5"),
        entry(good, "99999999999999999999999"),
        entry(good, &days),
        entry("", "1"),
        entry("AAAA", "1"),
        entry("ada", "1"),
        entry(&format!("{good}AA"), "1"),
        long,
        large,
    ] {
        assert!(parse(bad.as_bytes()).is_none(), "{}", bad.chars().take(80).collect::<String>());
    }
}

#[test]
fn the_number_of_callers_is_bounded_and_messages_are_split() {
    let mut consumed = ConsumedQuotas::default();
    let added = (0..10_000)
        .filter(|number: &u32| consumed.add(key(&number.to_string()), Duration::from_hours(24)));
    assert_eq!(added.count(), 8_192);
    assert!(consumed.add(key("0"), Duration::from_secs(1)), "a known caller is still counted");
    for (payload_bytes_max, messages) in [(1 << 20, 9), (16 << 10, 22), (200, 8_192)] {
        let parts = consumed.clone().split(callers_per_message(payload_bytes_max));
        assert_eq!(parts.iter().map(ConsumedQuotas::len).sum::<usize>(), 8_192);
        assert_eq!(parts.len(), messages);
        for consumed in parts {
            let gateway = "g".repeat(ID_BYTES_MAX);
            let message = ConsumptionMessage { gateway, consumed };
            let bytes = serde_json::to_vec(&message).unwrap().len();
            assert!(bytes <= payload_bytes_max.min(MESSAGE_BYTES_MAX), "{bytes}");
        }
    }
}

/// Returns the callers in the messages so far.
fn published(transport: &FakeTransport) -> Vec<QuotaKey> {
    let messages = transport.published();
    let consumed = messages.iter().map(|message| parse(&message.payload).unwrap().consumed);
    consumed.flat_map(|all| all.iter().map(|(key, ..)| key).collect::<Vec<_>>()).collect()
}

#[tokio::test(start_paused = true)]
async fn consumption_without_a_subscription_is_not_reported() {
    const FAILURES: usize = 3;
    let transport = FakeTransport::silent(FAILURES);
    let config = RateLimitConfig { scope: RateLimitScope::Fleet, interval: Duration::from_secs(5) };
    let limiter = Arc::new(RateLimiter::new(config));
    let carrier = Arc::clone(&transport) as Arc<dyn Transport>;
    let prefix = Subject::new("fjord").unwrap();
    limiter.add_pending(key("before"), Duration::from_secs(1));
    let exchange = start(&limiter, &prefix, &carrier, &Tasks::new()).unwrap();
    for _ in 0..FAILURES {
        sleep(SUBSCRIBE_PAUSE / 2).await;
        limiter.add_pending(key("before"), Duration::from_secs(1));
        sleep(SUBSCRIBE_PAUSE / 2).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(transport.subscription_failures_left(), 0);
    assert_eq!(
        published(&transport),
        [],
        "consumption from before the subscription is out of date"
    );
    limiter.add_pending(key("after"), Duration::from_secs(1));
    sleep(Duration::from_secs(6)).await;
    assert_eq!(published(&transport), [key("after").0]);
    // A report is sent immediately if there are many callers, and at the end of a drain.
    (0..4_096).for_each(|number| limiter.add_pending(key(&number.to_string()), LIMIT.window));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(published(&transport).len(), 1 + 4_096);
    limiter.add_pending(key("last"), Duration::from_secs(1));
    exchange.report_last().await;
    assert_eq!(published(&transport).last(), Some(&key("last").0));
    transport.refuse_messages(true);
    (0..3_000).for_each(|number| limiter.add_pending(key(&number.to_string()), LIMIT.window));
    exchange.report_last().await;
    assert_eq!(transport.refused(), 1, "a drain does not wait for each message");
    transport.refuse_messages(false);
    limiter.reconfigure(RateLimitConfig { scope: RateLimitScope::Gateway, ..config });
    limiter.add_pending(key("alone"), Duration::from_secs(1));
    exchange.report_last().await;
    assert_eq!(
        published(&transport).len(),
        4_098,
        "a gateway that enforces limits separately reports nothing"
    );
}
