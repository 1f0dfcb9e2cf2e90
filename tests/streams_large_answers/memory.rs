//! How much of a large answer is in memory at a time, as the system counts it.

use std::fs;
use std::time::Duration;

use super::{ROWS_PER_MIB, begin, client, read, rows};
use crate::support::client::Http;
use crate::support::eventually::for_a_while;
use crate::support::fjord::{Fleet, FleetOptions, Node};

/// What a role may grow by for 10 MiB: a few parts, 2 to 3 MiB on a machine at rest, and room for one that is busy.
const GROWTH_BYTES_MAX: u64 = 6 << 20;
/// The same for 100 MiB: a few parts as well, and what the allocator gives back late.
const GROWTH_LATE_BYTES_MAX: u64 = 12 << 20;

/// A figure of `/proc/<pid>/status` in bytes.
pub(crate) fn status(node: &Node, name: &str) -> u64 {
    let text =
        fs::read_to_string(format!("/proc/{}/status", node.process.pid())).expect("its status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") * 1024
}

/// Forgets the peak so far (`clear_refs` of proc(5)); what is resident now.
pub(crate) fn watch(node: &Node) -> u64 {
    fs::write(format!("/proc/{}/clear_refs", node.process.pid()), "5").expect("our own child");
    status(node, "VmRSS")
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_role_holds_more_than_a_few_parts() {
    let worker_toml = "[worker]\nanswer_bytes_max = '256MiB'\n".to_owned();
    for http in super::BOTH {
        for mib in [10, 100] {
            let options =
                FleetOptions { worker_toml: worker_toml.clone(), ..FleetOptions::default() };
            let fleet = Fleet::start(options).await;
            let client = client(&fleet, http);
            let count = mib * ROWS_PER_MIB;
            // What is measured is the answer, and not the program that is read from disk when it first streams.
            for rows in [10, 100, 1000] {
                client.get(&format!("/v1/flow?rows={rows}")).await.is(200);
            }
            let nodes = [&fleet.gateways[0], &fleet.workers[0]];
            let before = nodes.map(watch);
            let mut response = begin(&client, &format!("/v1/flow?rows={count}")).await;
            if http == Http::One {
                // Who reads slowly keeps the rows in the database, and not in memory.
                let first = response.chunk().await.expect("bytes").expect("some");
                for_a_while(Duration::from_millis(500)).await;
                assert!(first.starts_with(b"[{"));
                let (body, is_whole) = read(response).await;
                assert!(is_whole && body.len() + first.len() > mib << 20);
            } else {
                let (body, is_whole) = read(response).await;
                assert!(is_whole && body.len() > mib << 20);
                assert_eq!(rows(&body), count);
            }
            for (node, before) in nodes.iter().zip(before) {
                let grown = status(node, "VmHWM").saturating_sub(before);
                let kib = grown / 1024;
                println!("MEMORY of the {}: {mib} MiB over {http:?}: +{kib} KiB", node.role());
                let most = if mib > 10 { GROWTH_LATE_BYTES_MAX } else { GROWTH_BYTES_MAX };
                assert!(grown < most, "the {} grew by {kib} KiB", node.role());
            }
        }
    }
}
