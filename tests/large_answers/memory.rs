//! Measures the memory that each process uses for a large answer, as reported by the kernel.

use std::fs;
use std::time::Duration;

use super::{ROWS_PER_MIB, begin, client, count_rows, read};
use crate::support::client::HttpVersion;
use crate::support::eventually::for_a_while;
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};

/// The maximum growth of a process for an answer of 10 MiB. It allows for a few parts (2 to 3 MiB on an idle machine)
/// and a margin.
const GROWTH_BYTES_MAX: u64 = 6 << 20;
/// The maximum growth of a process for an answer of 100 MiB. It includes memory that the allocator returns late.
const GROWTH_LATE_BYTES_MAX: u64 = 12 << 20;

/// Returns a value of `/proc/<pid>/status` in bytes.
pub(crate) fn status(node: &FjordProcess, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", node.process.pid()))
        .expect("the process is running");
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).expect("the file has this line");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") * 1024
}

/// Resets the peak of resident memory (`clear_refs` in proc(5)). Returns the resident memory.
pub(crate) fn reset_peak(node: &FjordProcess) -> u64 {
    fs::write(format!("/proc/{}/clear_refs", node.process.pid()), "5")
        .expect("the child process is running");
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
            // These requests warm up the processes, so that code pages loaded for the first answers are not counted.
            for rows in [10, 100, 1000] {
                client.get(&format!("/v1/flow?rows={rows}")).await.is(200);
            }
            let nodes = [&fleet.gateways[0], &fleet.workers[0]];
            let before = nodes.map(reset_peak);
            let mut response = begin(&client, &format!("/v1/flow?rows={count}")).await;
            if http == HttpVersion::One {
                // While the client does not read, the remaining rows stay in the database.
                let first = response.chunk().await.expect("a chunk").expect("a chunk");
                for_a_while(Duration::from_millis(500)).await;
                assert!(first.starts_with(b"[{"));
                let (body, is_complete) = read(response).await;
                assert!(is_complete && body.len() + first.len() > mib << 20);
            } else {
                let (body, is_complete) = read(response).await;
                assert!(is_complete && body.len() > mib << 20);
                assert_eq!(count_rows(&body), count);
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
