//! Tests which waiters get a permit while others leave.

use super::*;
use crate::config::Secret;
use crate::config::procedures::{MssqlConfig, MssqlEncryption};
use crate::procedures::mssql::tds::TdsConnector;
use crate::tls::Connector;

fn pool() -> Arc<Pool> {
    let config = MssqlConfig {
        host: "127.0.0.1".to_owned(),
        port: 1433,
        instance: None,
        tokens: None,
        database: "d".to_owned(),
        user: "u".to_owned(),
        password: Secret::new("p".to_owned()),
        encryption: MssqlEncryption::TrustAny,
        certificate_name: None,
        read_only: false,
        session_context: Vec::new(),
        connections_max: 2,
        pools: Vec::new(),
        connect_timeout: Duration::from_secs(1),
        cancel_timeout: Duration::from_secs(1),
        connection_age_max: Duration::from_mins(1),
        deadlock_retries: 0,
    };
    let connector = TdsConnector::new(config.clone(), Connector::trusting_any().unwrap());
    Pool::new(Arc::new(ConnectionFactory::new(&config, "d", connector)), "fjord", 2)
}

/// The other waiter already counts as a waiter at the front, but has not started to wait for its
/// permit.
#[test]
fn a_permit_for_the_front_stays_there_while_another_waiter_is_at_the_front() {
    let pool = pool();
    let leaves = WaiterGuard::new(&pool, true);
    let stays = WaiterGuard::new(&pool, true);
    pool.notify_waiter(pool.lock());
    drop(leaves);
    assert_eq!((pool.front.available_permits(), pool.idle.available_permits()), (1, 0));
    // No waiter is left at the front, so the permit goes to the other waiters.
    drop(stays);
    assert_eq!((pool.front.available_permits(), pool.idle.available_permits()), (0, 1));
}
