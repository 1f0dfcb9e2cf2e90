//! Tests the format of messages, and what is ignored.

use super::*;
use crate::roles::gateway::admission::rate_limit::consumed_quotas::{CallerKind, QuotaKey};
use crate::roles::gateway::client::network::ClientNetwork;

fn key(principal: &str) -> (QuotaKey, CallerKind) {
    let network = ClientNetwork::new([192, 0, 2, 1].into(), 56);
    QuotaKey::new("horses", Some(principal), network)
}

fn message(consumed: ConsumedQuotas) -> Vec<u8> {
    serde_json::to_vec(&ConsumptionMessage { gateway: "g1".to_owned(), consumed }).unwrap()
}

#[test]
fn a_message_names_neither_principals_nor_addresses() {
    let mut consumed = ConsumedQuotas::default();
    let address = QuotaKey::new("horses", None, ClientNetwork::new([192, 0, 2, 1].into(), 56));
    assert!(consumed.add(key("ada"), Duration::from_secs(2)));
    assert!(consumed.add(key("ada"), Duration::from_secs(1)));
    assert!(consumed.add(address, Duration::from_nanos(7)));
    let text = String::from_utf8(message(consumed.clone())).unwrap();
    let expected = r#"{"gateway":"g1","consumed":{"principals":{"GtGOkBo2P5GqiyPQgtUmPg":3000000000},"addresses":{"cij0kRt6DkuZq1ZIYKKFUQ":7}}}"#;
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
    let parts = consumed.split(CALLERS_PER_MESSAGE_MAX);
    assert_eq!(parts.iter().map(ConsumedQuotas::len).sum::<usize>(), 8_192);
    assert_eq!(parts.len(), 9);
    for part in parts {
        let bytes = message(part).len();
        assert!(bytes <= CALLERS_PER_MESSAGE_MAX * ENTRY_BYTES + 100, "{bytes}");
        assert!(bytes < MESSAGE_BYTES_MAX);
    }
}
