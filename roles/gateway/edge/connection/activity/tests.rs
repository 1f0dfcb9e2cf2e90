//! Tests the timeouts of a connection.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_idle_while_a_request_runs() {
    let activity = Arc::new(ConnectionActivity::new());
    let start = Instant::now();
    tokio::join!(activity.until_idle(SECOND, SECOND), async {
        let running = activity.begin_request(true);
        tokio::time::sleep(5 * SECOND).await;
        drop(running);
    });
    assert_eq!(start.elapsed(), 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_keeps_reading_is_not_idle() {
    const ENOUGH: u64 = DELIVERED_BYTES_MIN;
    let activity = Arc::new(ConnectionActivity::new());
    drop(activity.begin_request(true));
    let start = Instant::now();
    let reading = async {
        for _ in 0..4 {
            tokio::time::sleep(SECOND / 2).await;
            activity.add_delivered(ENOUGH);
        }
        for _ in 0..100 {
            tokio::time::sleep(SECOND / 10).await;
            activity.add_delivered(ENOUGH / 100);
        }
    };
    let idle = async {
        activity.until_idle(SECOND, SECOND).await;
        start.elapsed()
    };
    let (ended, ()) = tokio::join!(idle, reading);
    assert!(ended >= 2 * SECOND && ended <= 4 * SECOND, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_and_the_next_request_have_separate_timeouts() {
    let start = Instant::now();
    let overdue = async |activity: &Arc<ConnectionActivity>| {
        (activity.until_overdue(SECOND, 10 * SECOND).await, start.elapsed())
    };
    let activity = Arc::new(ConnectionActivity::new());
    assert_eq!(overdue(&activity).await, (Overdue::Head, SECOND), "nothing arrived");
    let running = activity.begin_request(true);
    let (found, ()) = tokio::join!(overdue(&activity), async {
        tokio::time::sleep(5 * SECOND).await;
        drop(running);
    });
    assert_eq!(
        found,
        (Overdue::NextRequest, 16 * SECOND),
        "nothing is overdue while a request runs"
    );
    activity.record_read();
    assert_eq!(overdue(&activity).await, (Overdue::Head, 17 * SECOND), "one head has begun");
    activity.record_read();
    let found = overdue(&activity).await;
    assert_eq!(found, (Overdue::Head, 17 * SECOND), "more bytes do not begin another head");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_overdue_while_a_write_waits() {
    let start = Instant::now();
    let activity = Arc::new(ConnectionActivity::new());
    drop(activity.begin_request(true));
    activity.block();
    activity.record_read();
    let (found, ()) = tokio::join!(activity.until_overdue(SECOND, SECOND), async {
        tokio::time::sleep(5 * SECOND).await;
        activity.unblock();
    });
    assert_eq!((found, start.elapsed()), (Overdue::Head, 6 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_overdue_while_the_peer_accepts_a_response() {
    let start = Instant::now();
    let activity = Arc::new(ConnectionActivity::new());
    drop(activity.begin_request(true));
    activity.record_read();
    let reading = async {
        for _ in 0..8 {
            tokio::time::sleep(SECOND / 2).await;
            activity.record_write();
        }
    };
    let (found, ()) = tokio::join!(activity.until_overdue(SECOND, SECOND), reading);
    assert_eq!(found, Overdue::Head);
    assert!(start.elapsed() > 4 * SECOND, "{:?}", start.elapsed());
}
