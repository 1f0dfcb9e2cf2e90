//! Tests rate limits with simulated time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::FutureExt;
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

fn config(scope: RateLimitScope) -> RateLimitConfig {
    RateLimitConfig { scope, interval: Duration::from_millis(500) }
}

/// Returns a limiter that enforces separate limits.
fn limiter() -> RateLimiter {
    RateLimiter::new(config(RateLimitScope::Gateway))
}

/// Returns limiters that enforce shared limits.
fn fleet<const GATEWAYS: usize>() -> [RateLimiter; GATEWAYS] {
    std::array::from_fn(|_| RateLimiter::new(config(RateLimitScope::Fleet)))
}

/// Reports the consumption at each limiter to all other limiters.
fn exchange(fleet: &[RateLimiter], now: Instant) {
    for (number, limiter) in fleet.iter().enumerate() {
        let (consumed, omitted) = limiter.take_consumed();
        assert_eq!(omitted, 0);
        let others = fleet.iter().enumerate().filter(|(other, _)| *other != number);
        let gateway = number.to_string();
        others.for_each(|(_, other)| other.add_consumed_elsewhere(&gateway, &consumed, now));
    }
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
    let (limiter, endpoint, start) = (limiter(), limited(3, 60), Instant::now());
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
    let (limiter, endpoint, mut now) = (limiter(), limited(7, 3), Instant::now());
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
    let limiter = limiter();
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
    let (limiter, now) = (limiter(), Instant::now());
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
    let (limiter, endpoint, now) = (
        RateLimiter::with_callers_max(config(RateLimitScope::Gateway), 100),
        limited(1, 60),
        Instant::now(),
    );
    assert!(is_allowed(&limiter.admit(&endpoint, &named("anna"), somewhere(), now)));
    for bits in 0..10_000 {
        let peer = at(Ipv4Addr::from_bits(bits));
        assert!(is_allowed(&limiter.admit(&endpoint, &Caller::default(), peer, now)));
    }
    assert!(limiter.addresses.lock().unwrap().len_max() <= 200);
    assert!(!is_allowed(&limiter.admit(&endpoint, &named("anna"), somewhere(), now)));
}

#[test]
fn a_changed_limit_is_a_new_quota() {
    let (limiter, now) = (limiter(), Instant::now());
    let admit = |endpoint: &Endpoint| limiter.admit(endpoint, &named("anna"), somewhere(), now);
    assert!(is_allowed(&admit(&limited(1, 3600))));
    assert!(is_allowed(&admit(&limited(1, 10))), "the new limit applies at once");
    let (_, wait) = headers_and_retry_after(&admit(&limited(1, 10)));
    assert_eq!(wait, Some(Duration::from_secs(10)));
}

#[test]
fn a_quota_that_was_consumed_elsewhere_is_not_available_here() {
    let (fleet, endpoint, now) = (fleet::<2>(), limited(3, 60), Instant::now());
    let admit =
        |limiter: &RateLimiter, now| limiter.admit(&endpoint, &named("anna"), somewhere(), now);
    assert!(is_allowed(&admit(&fleet[0], now)));
    assert!(is_allowed(&admit(&fleet[0], now)));
    exchange(&fleet, now);
    let last = admit(&fleet[1], now);
    assert_eq!(headers_and_retry_after(&last).0, r#""default";r=0;t=60"#);
    assert!(!is_allowed(&admit(&fleet[1], now)));
    exchange(&fleet, now);
    assert!(!is_allowed(&admit(&fleet[0], now)));
    assert!(is_allowed(&fleet[1].admit(&endpoint, &named("bert"), somewhere(), now)));
    exchange(&fleet, now);
    assert!(
        fleet.iter().all(|limiter| limiter.take_consumed().0.is_empty()),
        "nothing is passed on"
    );
}

#[test]
fn excess_consumption_is_deducted_later() {
    let (fleet, endpoint, start) = (fleet::<3>(), limited(3, 60), Instant::now());
    let admit =
        |limiter: &RateLimiter, now| limiter.admit(&endpoint, &named("anna"), somewhere(), now);
    for limiter in &fleet {
        assert!((0..3).all(|_| is_allowed(&admit(limiter, start))));
    }
    exchange(&fleet, start);
    let (headers, wait) = headers_and_retry_after(&admit(&fleet[0], start));
    assert_eq!(
        (headers.as_str(), wait),
        (r#""default";r=0;t=140"#, Some(Duration::from_secs(140)))
    );
    let later = start + Duration::from_secs(140);
    assert!(is_allowed(&admit(&fleet[0], later)));
    exchange(&fleet, later);
    assert!(!is_allowed(&admit(&fleet[1], later)));
    fleet[2].reconfigure(config(RateLimitScope::Gateway));
    assert!(
        is_allowed(&admit(&fleet[2], later)),
        "a gateway that enforces limits separately has its own quotas"
    );
    assert!(fleet[2].take_consumed().0.is_empty());
}

/// Returns the `Retry-After` of a request after each of `gateways` gateways has reported more consumption than is
/// possible.
fn wait_after_impossible_consumption(gateways: usize) -> Duration {
    let ([limiter], endpoint, now) = (fleet(), limited(1, 10), Instant::now());
    let mut consumed = ConsumedQuotas::default();
    let limit = endpoint.rate_limit.unwrap();
    consumed.add(QuotaKey::new(("e", limit), Some("anna"), somewhere()), Duration::from_hours(48));
    for number in 0..gateways {
        limiter.add_consumed_elsewhere(&number.to_string(), &consumed, now);
    }
    let decision = limiter.admit(&endpoint, &named("anna"), somewhere(), now);
    headers_and_retry_after(&decision).1.unwrap()
}

#[test]
fn a_caller_owes_at_most_one_quota_for_each_gateway() {
    let windows = |number: u64| Duration::from_secs(10 * number);
    assert_eq!(wait_after_impossible_consumption(1), windows(2), "one other gateway");
    assert_eq!(wait_after_impossible_consumption(3), windows(4));
    assert_eq!(wait_after_impossible_consumption(1_000), windows(64));
}

#[test]
fn a_gateway_that_was_not_heard_from_for_a_day_no_longer_counts() {
    let (fleet, start) = (fleet::<2>(), Instant::now());
    fleet[0].add_consumed_elsewhere("1", &ConsumedQuotas::default(), start);
    assert_eq!(fleet[0].gateways.load(Ordering::Relaxed), 2);
    fleet[0].count_gateways(start + Duration::from_hours(24));
    assert_eq!(fleet[0].gateways.load(Ordering::Relaxed), 1);
}

/// Returns the consumption of 10,000 callers at another gateway, in one message for each caller.
fn flood(principal: impl Fn(u32) -> Option<String>) -> impl Iterator<Item = ConsumedQuotas> {
    let limit = RateLimit { requests: 1, window: Duration::from_mins(1) };
    (0..10_000_u32).map(move |number| {
        let (principal, network) = (principal(number), at(Ipv4Addr::from_bits(number)));
        let quota = QuotaKey::new(("e", limit), principal.as_deref(), network);
        let mut consumed = ConsumedQuotas::default();
        consumed.add(quota, Duration::from_mins(1));
        consumed
    })
}

#[test]
fn many_callers_of_other_gateways_neither_grow_the_tables_nor_evict_a_caller_of_this_one() {
    let (endpoint, now) = (limited(1, 60), Instant::now());
    let limiter = RateLimiter::with_callers_max(config(RateLimitScope::Fleet), 100);
    let admit = |caller: &Caller| limiter.admit(&endpoint, caller, at([192, 0, 2, 1]), now);
    let callers = [named("anna"), Caller::default()];
    assert!(callers.iter().all(|caller| is_allowed(&admit(caller))));
    let principals = flood(|number| Some(number.to_string()));
    for consumed in principals.chain(flood(|_| None)) {
        limiter.add_consumed_elsewhere("1", &consumed, now);
    }
    assert!(callers.iter().all(|caller| !is_allowed(&admit(caller))), "the limits still work");
    for tables in [&limiter.named, &limiter.addresses] {
        assert!(tables.lock().unwrap().len_max() <= 200);
    }
    let last = at(Ipv4Addr::from_bits(9_999));
    let decision = limiter.admit(&endpoint, &Caller::default(), last, now);
    assert!(!is_allowed(&decision), "a caller of the last message has used its quota elsewhere");
}

#[test]
fn a_changed_limit_is_a_new_quota_at_all_gateways() {
    let (fleet, now) = (fleet::<2>(), Instant::now());
    let admit = |limiter: &RateLimiter, endpoint: &Endpoint| {
        is_allowed(&limiter.admit(endpoint, &named("anna"), somewhere(), now))
    };
    let [before, after] = [limited(10, 86_400), limited(10, 1)];
    for limiter in &fleet {
        assert!((0..10).all(|_| admit(limiter, &before)));
    }
    // The first gateway has reloaded, but the second one has not.
    assert!(admit(&fleet[0], &after));
    exchange(&fleet, now);
    assert!(!admit(&fleet[0], &before) && !admit(&fleet[1], &before));
    for limiter in &fleet {
        assert!(
            (0..9).all(|_| admit(limiter, &after)),
            "consumption of the old quota, with a window of a day, does not count towards the new one"
        );
    }
    assert!(!admit(&fleet[0], &after));
    exchange(&fleet, now);
    assert!(!admit(&fleet[1], &after), "the new quota is also shared");
    let other_quota = limited(11, 86_400);
    assert!(admit(&fleet[0], &other_quota), "a different number of requests is a new quota, too");
}

#[test]
fn many_addresses_do_not_keep_principals_out_of_the_message() {
    let ([limiter], endpoint, now) = (fleet(), limited(1, 60), Instant::now());
    let from = |number: u32| at(Ipv4Addr::from_bits(number));
    let mut is_notified_at = None;
    for number in 0..9_000 {
        assert!(is_allowed(&limiter.admit(&endpoint, &Caller::default(), from(number), now)));
        let notified = limiter.many_are_pending.notified().now_or_never();
        is_notified_at = is_notified_at.or(notified.map(|()| number + 1));
    }
    assert_eq!(is_notified_at, Some(4_096), "the message is sent before there are too many");
    assert!(is_allowed(&limiter.admit(&endpoint, &named("anna"), somewhere(), now)));
    let (consumed, omitted) = limiter.take_consumed();
    assert_eq!((consumed.len(), omitted), (8_192 + 1, 9_000 - 8_192));
    let principals = consumed.iter().filter(|(_, kind, _)| *kind == CallerKind::Principal);
    assert_eq!(principals.count(), 1);
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
        let (limiter, start) = (limiter(), Instant::now());
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

    /// In any period since the start, the number of a caller's admitted requests is at most the sum of one quota, the
    /// requests by which the quota refills in that period, and the requests that the other gateways admit between two
    /// exchanges.
    #[test]
    fn a_fleet_admits_no_more_than_the_bound(
        requests in 1..30_u32,
        window_ms in 1_000..20_000_u64,
        steps in prop::collection::vec((0..200_u64, 0..3_usize), 1..400),
    ) {
        let window = Duration::from_millis(window_ms);
        let endpoint = endpoint("e", Some(RateLimit { requests, window }));
        let (fleet, start) = (fleet::<3>(), Instant::now());
        let exchanged_every = Duration::from_millis(500);
        let (mut elapsed, mut exchange_at) = (Duration::ZERO, exchanged_every);
        let (mut admitted, mut since_exchange, mut most) = (0_u32, [0_u32; 3], 0_u32);
        for (step, gateway) in steps {
            elapsed += Duration::from_millis(step);
            while exchange_at <= elapsed {
                exchange(&fleet, start + exchange_at);
                exchange_at += exchanged_every;
                since_exchange = [0; 3];
            }
            let now = start + elapsed;
            if is_allowed(&fleet[gateway].admit(&endpoint, &named("a"), somewhere(), now)) {
                admitted += 1;
                since_exchange[gateway] += 1;
                most = most.max(since_exchange[gateway]);
            }
            let refilled = elapsed.as_secs_f64() / window.as_secs_f64() * f64::from(requests);
            let bound = f64::from(requests + 2 * most) + refilled + 1e-6;
            prop_assert!(f64::from(admitted) <= bound, "{admitted} of {bound}");
        }
    }
}
