//! Determines the number of connections that a worker can open to each database, and the queues
//! that share them.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::{Catalogue, QueueName};
use crate::config::procedures::{APPLICATION_NAME, DatabaseConfig, PoolConfig};
use crate::config::{Config, WorkerConfig};

use super::databases::{self, DatabaseKey};

/// Returns the configuration of each database of a worker, with pools sized for its queues.
#[must_use]
pub fn database_configs(
    config: &Config,
    catalogue: &Catalogue,
) -> BTreeMap<DatabaseKey, DatabaseConfig> {
    let mut configs = databases::configs(&config.procedures, &config.worker);
    set_pools(&mut configs, &config.worker, catalogue);
    configs
}

/// Describes the connections to each database in a line for the operator. The first list contains
/// the databases whose calls might have to wait for a connection. The second list contains the
/// others.
#[must_use]
pub fn summaries(config: &Config, catalogue: &Catalogue) -> (Vec<String>, Vec<String>) {
    let (mut short, mut enough) = (Vec::new(), Vec::new());
    for (key, database) in database_configs(config, catalogue) {
        if let Some((line, is_short)) = summary(&key, &database) {
            if is_short { short.push(line) } else { enough.push(line) }
        }
    }
    (short, enough)
}

/// Sets the pools of each database. A pool gets one connection per concurrent call of its queues,
/// or its share of `connections_max` if that is less.
fn set_pools(
    configs: &mut BTreeMap<DatabaseKey, DatabaseConfig>,
    worker: &WorkerConfig,
    catalogue: &Catalogue,
) {
    let queues = catalogue.endpoints().iter().flat_map(|endpoint| endpoint.queues.iter());
    let with_procedure = queues.filter(|queue| queue.procedure.is_some());
    let queues: BTreeSet<&QueueName> = with_procedure.map(|queue| &queue.name).collect();
    for (key, config) in configs {
        let DatabaseConfig::Mssql(config) = config else { continue };
        let mut pools: BTreeMap<&str, PoolConfig> = BTreeMap::new();
        for queue in &queues {
            let Some(limits) = worker.queue(queue) else { continue };
            if DatabaseKey::from_queue(limits) != *key {
                continue;
            }
            let name = limits.application_name.as_deref().unwrap_or(APPLICATION_NAME);
            let pool = pools.entry(name).or_insert_with(|| PoolConfig::new(name));
            pool.concurrency += limits.concurrency;
            pool.queues.push((*queue).clone());
        }
        let mut pools: Vec<PoolConfig> = pools.into_values().collect();
        pools.sort_by_key(|pool| pool.application_name != APPLICATION_NAME);
        divide(config.connections_max, &mut pools);
        config.pools = pools;
    }
}

/// Divides connections in proportion to each pool's concurrency. Each pool gets at least one.
fn divide(connections_max: usize, pools: &mut [PoolConfig]) {
    let needed: usize = pools.iter().map(|pool| pool.concurrency).sum();
    for pool in pools.iter_mut() {
        let share = pool.concurrency.saturating_mul(connections_max) / needed.max(1);
        pool.connections_max = share.clamp(1, pool.concurrency.max(1));
    }
    let given = |pools: &[PoolConfig]| pools.iter().map(|pool| pool.connections_max).sum::<usize>();
    // The largest pools give up connections to pools whose share is less than one connection.
    for _ in connections_max..given(pools) {
        let larger = pools.iter_mut().filter(|pool| pool.connections_max > 1);
        if let Some(largest) = larger.max_by_key(|pool| pool.connections_max) {
            largest.connections_max -= 1;
        }
    }
    let given = given(pools);
    // The largest pool gets the remainder from rounding.
    if let Some(largest) = pools.iter_mut().max_by_key(|pool| pool.concurrency) {
        let fair = (largest.connections_max + connections_max).saturating_sub(given);
        largest.connections_max = fair.clamp(1, largest.concurrency.max(1));
    }
}

/// Describes a database's connections. Also returns whether calls might have to wait for one.
fn summary(key: &DatabaseKey, config: &DatabaseConfig) -> Option<(String, bool)> {
    let DatabaseConfig::Mssql(config) = config else { return None };
    let sum = |field: fn(&PoolConfig) -> usize| config.pools.iter().map(field).sum::<usize>();
    let (connections, calls) = (sum(|pool| pool.connections_max), sum(|pool| pool.concurrency));
    if calls == 0 {
        return None;
    }
    let queues = match sum(|pool| pool.queues.len()) {
        1 => "1 queue that can run".to_owned(),
        number => format!("{number} queues that can run"),
    };
    let mut line = format!(
        "database {key}: at most {connections} connections for {queues} {calls} calls concurrently"
    );
    if let [_, _, ..] = config.pools.as_slice() {
        let each = config
            .pools
            .iter()
            .map(|pool| format!("{} as {:?}", pool.connections_max, pool.application_name));
        line = format!("{line} ({})", each.collect::<Vec<_>>().join(", "));
    }
    let is_short = connections < calls;
    if is_short {
        line.push_str(": further calls wait for a connection (connections_max)");
    }
    Some((line, is_short))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(connections_max: usize, concurrency: &[usize], expected: &[usize]) {
        let mut pools: Vec<PoolConfig> = concurrency
            .iter()
            .map(|calls| PoolConfig { concurrency: *calls, ..PoolConfig::new("a") })
            .collect();
        divide(connections_max, &mut pools);
        let found: Vec<usize> = pools.iter().map(|pool| pool.connections_max).collect();
        assert_eq!(found, expected, "{connections_max} for {concurrency:?}");
    }

    #[test]
    fn a_pool_gets_one_connection_per_call_or_its_share() {
        check(512, &[320], &[320]);
        check(16, &[320], &[16]);
        check(512, &[16, 2], &[16, 2]);
        check(9, &[16, 2], &[8, 1]);
        check(10, &[320, 2], &[9, 1]);
        check(10, &[10, 10, 10], &[3, 3, 4]);
        check(3, &[100, 1, 1], &[1, 1, 1]);
        check(6, &[30, 30, 1, 1, 1, 1], &[1, 1, 1, 1, 1, 1]);
        check(8, &[30, 30, 1, 1, 1, 1], &[2, 2, 1, 1, 1, 1]);
        check(512, &[10_000], &[512]);
        check(512, &[], &[]);
    }
}
