//! Unit tests of status queries and their replies.

use super::*;
use crate::fleet::report::QueueReport;
use crate::messaging::fake::FakeTransport;

#[test]
fn a_query_addresses_the_processes_that_it_names_or_all() {
    for (payload, is_for_a) in [
        ("", true),
        ("{}", true),
        (r#"{"ids":[]}"#, true),
        (r#"{"ids":["b","a"]}"#, true),
        (r#"{"ids":["b"]}"#, false),
        ("unreadable", true),
    ] {
        assert_eq!(is_addressed(payload.as_bytes(), "a"), is_for_a, "{payload}");
    }
}

#[test]
fn a_query_that_is_too_large_addresses_no_process() {
    let padded = |bytes: usize| format!("{}{}", r#"{"ids":["a"]}"#, " ".repeat(bytes - 13));
    assert!(is_addressed(padded(QUERY_BYTES_MAX).as_bytes(), "a"));
    assert!(!is_addressed(padded(QUERY_BYTES_MAX + 1).as_bytes(), "a"));
}

#[test]
fn a_query_contains_as_many_ids_as_fit() {
    let ids = |bytes: usize| vec!["a".repeat(bytes); 1_001];
    for (id_bytes, bytes_max, fitting) in [
        (32, 1 << 20, REPLIES_MAX),
        (32, 0, 0),
        // {"ids":["…"]}
        (32, 43, 0),
        (32, 44, 1),
        (32, 78, 1),
        (32, 79, 2),
        (253, 1 << 20, 255),
        (70_000, 1 << 20, 0),
    ] {
        let mut ids = ids(id_bytes);
        truncate(&mut ids, bytes_max).unwrap();
        assert_eq!(ids.len(), fitting, "{id_bytes} {bytes_max}");
        let bytes = json(&StatusQuery { ids }).unwrap().len();
        assert!(fitting == 0 || bytes <= bytes_max.min(QUERY_BYTES_MAX), "{bytes}");
    }
}

fn large_report() -> Arc<Report> {
    let queue = |n| QueueReport { name: format!("queue-{n}"), ..QueueReport::default() };
    Arc::new(Report { queues: (0..20_000).map(queue).collect(), ..Report::default() })
}

/// The condition would otherwise begin anew with each `fjord status`.
#[tokio::test(start_paused = true)]
async fn that_reports_omit_queues_is_logged_once_however_rare_the_queries_are() {
    let transport = FakeTransport::silent(0);
    let watching = Tasks::new().spawn(conditions::watch());
    let inbox = || Subject::new("inbox").unwrap();
    let mut shortened = None;
    let large = large_report();
    for report in [&large, &large, &large_report()] {
        answer(&*transport, report, &mut shortened, inbox()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(!conditions::raise(&QUEUES_OMITTED, ""), "it has not ended by itself");
    tokio::time::sleep(Duration::from_mins(10)).await;
    answer(&*transport, &Arc::default(), &mut shortened, inbox()).await.unwrap();
    assert_eq!(conditions::resolve(&QUEUES_OMITTED, ""), 0, "it ended when a report fitted");
    assert!(shortened.is_none(), "it is kept no longer than needed");
    let published = transport.published();
    let [first, second, third, _] = &published[..] else { panic!("{} replies", published.len()) };
    assert_eq!(first.payload.as_ptr(), second.payload.as_ptr(), "it was serialised once");
    assert_ne!(second.payload.as_ptr(), third.payload.as_ptr(), "another report was serialised");
    let omitting = parse(&published).iter().filter(|report| report.queues_omitted > 0).count();
    assert_eq!(omitting, 3);
    watching.abort();
}
