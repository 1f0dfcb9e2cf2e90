//! Who is served by a connection that is freed while others leave.

use super::*;
use crate::config::Secret;
use crate::config::procedures::{MssqlConfig, MssqlEncryption};
use crate::procedures::mssql::connect::Dialer;
use crate::tls::Connector;

fn pool() -> Arc<Pool> {
    let config = MssqlConfig {
        host: "127.0.0.1".to_owned(),
        port: 1433,
        database: "d".to_owned(),
        user: "u".to_owned(),
        password: Secret::new("p".to_owned()),
        encryption: MssqlEncryption::TrustAny,
        certificate_name: None,
        read_only: false,
        connections_max: 2,
        pools: Vec::new(),
        connect_timeout: Duration::from_secs(1),
        cancel_timeout: Duration::from_secs(1),
        connection_age_max: Duration::from_mins(1),
        deadlock_retries: 0,
    };
    let dialer = Dialer::new(config.clone(), Connector::trusting_any().unwrap());
    Pool::new(Arc::new(Shared::new(&config, "d", dialer)), "fjord", 2)
}

/// The other one stands in front, and does not wait for its permit yet.
#[test]
fn a_connection_freed_for_who_is_in_front_stays_there_when_another_in_front_leaves() {
    let pool = pool();
    let leaves = Place::enter(&pool, true);
    let stays = Place::enter(&pool, true);
    pool.free(pool.lock());
    drop(leaves);
    assert_eq!((pool.front.available_permits(), pool.idle.available_permits()), (1, 0));
    // Nobody is in front any more: it is for the line.
    drop(stays);
    assert_eq!((pool.front.available_permits(), pool.idle.available_permits()), (0, 1));
}
