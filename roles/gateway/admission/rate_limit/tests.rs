//! Tests rate limits with simulated time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::catalogue::load::fixture::catalogue;

fn endpoint(id: &str, rate_limit: Option<RateLimit>) -> Endpoint {
    let catalogue = catalogue(&format!(r#""{id}": {{"route":"GET /{id}", KEYS}}"#));
    Endpoint { rate_limit, ..Endpoint::clone(&catalogue.endpoints()[0]) }
}

fn limited(requests: u32, seconds: u64) -> Endpoint {
    endpoint("e", Some(RateLimit { requests, window: Duration::from_secs(seconds) }))
}

fn named(principal: &str) -> Caller {
    Caller { principal: Some(principal.into()), ..Caller::default() }
}

fn at(address: impl Into<IpAddr>) -> ClientNetwork {
    ClientNetwork::new(address.into(), 56)
}

fn somewhere() -> ClientNetwork {
    at(Ipv4Addr::LOCALHOST)
}

/// Returns `RateLimit`, and `Retry-After` if the request was limited.
fn headers_and_retry_after(verdict: &RateDecision) -> (String, Option<Duration>) {
    let (headers, retry_after) = match verdict {
        RateDecision::Allowed { headers } => (headers, None),
        RateDecision::Limited { problem, headers } => {
            assert_eq!(problem.kind, ProblemKind::RateLimited);
            (headers, problem.retry_after)
        }
    };
    let mut map = HeaderMap::new();
    headers.apply(&mut map);
    let text = map.get(LIMIT).map_or("", |value| value.to_str().unwrap());
    (text.to_owned(), retry_after)
}

fn is_allowed(verdict: &RateDecision) -> bool {
    matches!(verdict, RateDecision::Allowed { .. })
}

#[test]
fn a_caller_can_use_its_quota_at_once_and_then_has_a_steady_rate() {
    let (limiter, endpoint, start) = (RateLimiter::new(), limited(3, 60), Instant::now());
    let check = |seconds: u64, limit: &str, retry_after: Option<u64>| {
        let now = start + Duration::from_secs(seconds);
        let verdict = limiter.admit(&endpoint, &named("anna"), somewhere(), now);
        let expected = (limit.to_owned(), retry_after.map(Duration::from_secs));
        assert_eq!(headers_and_retry_after(&verdict), expected, "after {seconds} s");
    };
    check(0, r#""default";r=2;t=20"#, None);
    check(0, r#""default";r=1;t=40"#, None);
    check(0, r#""default";r=0;t=60"#, None);
    check(0, r#""default";r=0;t=20"#, Some(20));
    check(5, r#""default";r=0;t=15"#, Some(15));
    check(20, r#""default";r=0;t=60"#, None);
    check(21, r#""default";r=0;t=19"#, Some(19));
    check(79, r#""default";r=1;t=21"#, None);
    check(1000, r#""default";r=2;t=20"#, None);
}

#[test]
fn a_request_after_retry_after_is_allowed() {
    let (limiter, endpoint, mut now) = (RateLimiter::new(), limited(7, 3), Instant::now());
    for _ in 0..100 {
        let verdict = limiter.admit(&endpoint, &named("anna"), somewhere(), now);
        if let (_, Some(wait)) = headers_and_retry_after(&verdict) {
            now += wait;
            assert!(is_allowed(&limiter.admit(&endpoint, &named("anna"), somewhere(), now)));
        }
    }
}

#[test]
fn the_headers_contain_the_policy_if_there_is_one() {
    let limiter = RateLimiter::new();
    let mut headers = HeaderMap::new();
    let admit = |endpoint: &Endpoint| match limiter.admit(
        endpoint,
        &named("anna"),
        somewhere(),
        Instant::now(),
    ) {
        RateDecision::Allowed { headers } => headers,
        RateDecision::Limited { .. } => panic!("the first request is never limited"),
    };
    admit(&endpoint("free", None)).apply(&mut headers);
    assert!(headers.is_empty());
    admit(&limited(100, 60)).apply(&mut headers);
    assert_eq!(headers["ratelimit-policy"], r#""default";q=100;w=60"#);
    assert_eq!(headers["ratelimit"], r#""default";r=99;t=1"#);
}

#[test]
fn callers_and_endpoints_have_separate_quotas() {
    let (limiter, now) = (RateLimiter::new(), Instant::now());
    let v6 = |text: &str| at(text.parse::<Ipv6Addr>().unwrap());
    let other = endpoint("other", limited(1, 60).rate_limit);
    let public = Caller::default();
    let check = |endpoint: &Endpoint, caller: &Caller, network: ClientNetwork, allowed: bool| {
        let verdict = limiter.admit(endpoint, caller, network, now);
        assert_eq!(is_allowed(&verdict), allowed, "{} {caller:?} {network:?}", endpoint.id);
    };
    let e = limited(1, 60);
    check(&e, &named("anna"), somewhere(), true);
    check(&e, &named("anna"), at([192, 0, 2, 1]), false);
    check(&e, &named("bert"), somewhere(), true);
    check(&other, &named("anna"), somewhere(), true);
    check(&e, &public, somewhere(), true);
    check(&e, &public, v6("::ffff:127.0.0.1"), false);
    check(&e, &public, at([127, 0, 0, 2]), true);
    check(&e, &public, v6("2001:db8:0:1::1"), true);
    check(&e, &public, v6("2001:db8:0:ff:ffff::2"), false);
    check(&e, &public, v6("2001:db8:0:200::1"), true);
    check(&e, &named("127.0.0.1"), somewhere(), true);
}

#[test]
fn many_addresses_neither_grow_the_table_nor_evict_a_named_caller() {
    let (limiter, endpoint, now) =
        (RateLimiter::with_callers_max(100), limited(1, 60), Instant::now());
    assert!(is_allowed(&limiter.admit(&endpoint, &named("anna"), somewhere(), now)));
    for bits in 0..10_000 {
        let peer = at(Ipv4Addr::from_bits(bits));
        assert!(is_allowed(&limiter.admit(&endpoint, &Caller::default(), peer, now)));
    }
    assert!(limiter.addresses.lock().unwrap().len() <= 200);
    assert!(!is_allowed(&limiter.admit(&endpoint, &named("anna"), somewhere(), now)));
}

#[test]
fn a_shorter_window_applies_at_once() {
    let (limiter, now) = (RateLimiter::new(), Instant::now());
    assert!(is_allowed(&limiter.admit(&limited(1, 3600), &named("anna"), somewhere(), now)));
    let (_, wait) =
        headers_and_retry_after(&limiter.admit(&limited(1, 10), &named("anna"), somewhere(), now));
    assert_eq!(wait, Some(Duration::from_secs(10)));
}

proptest! {
    #[test]
    fn no_window_admits_more_than_twice_the_quota(
        requests in 0..50_u32,
        window_ms in 1..5_000_u64,
        steps in prop::collection::vec(0..500_u64, 1..200),
    ) {
        let window = Duration::from_millis(window_ms);
        let endpoint = endpoint("e", Some(RateLimit { requests, window }));
        let (limiter, start) = (RateLimiter::new(), Instant::now());
        let mut elapsed = Duration::ZERO;
        let mut passed = Vec::new();
        for step in steps {
            elapsed += Duration::from_millis(step);
            if is_allowed(&limiter.admit(&endpoint, &named("a"), somewhere(), start + elapsed)) {
                passed.push(elapsed);
            }
        }
        let quota = requests.max(1) as usize;
        for (index, begin) in passed.iter().enumerate() {
            let seen = passed[index..].iter().take_while(|t| **t < *begin + window).count();
            prop_assert!(seen <= 2 * quota, "{seen} of {quota}");
        }
        let burst = passed.iter().take_while(|t| **t == passed[0]).count();
        prop_assert!(burst <= quota);
    }
}
