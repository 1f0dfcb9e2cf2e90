//! `fjord routes`, `fjord check`, `fjord call` and `fjord test` with several queues.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::options;
use crate::support::fjord_binary;
use crate::support::fleet::Fleet;

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(fjord_binary());
    command.args(arguments).arg("--config").arg(directory).output().expect("fjord runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_knows_all_queues() {
    let fleet = Fleet::start(options(1, 1)).await;
    let (gateway, worker) = (fleet.gateways[0].directory(), fleet.workers[0].directory());

    let routes = text(&run(gateway, &["routes", "--role", "gateway"]).stdout);
    for row in [["split=95", "ledger.v1"], ["split-v2=5", "ledger.v2"]] {
        let is_row = |line: &str| line.split_whitespace().skip(3).take(2).eq(row);
        assert!(routes.lines().any(is_row), "{row:?} is missing in\n{routes}");
    }

    let json = |output: &Output| -> serde_json::Value {
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    for (queue, version) in [("split", "v1"), ("split-v2", "v2")] {
        let called = json(&run(gateway, &["call", "split", "--queue", queue, "--json"]));
        assert_eq!((&called["body"], &called["queue"]), (&version.into(), &queue.into()));
        let tested = run(worker, &["test", "split", "--queue", queue, "--format", "json"]);
        let status = i32::from(version != "v1");
        assert_eq!(tested.status.code(), Some(status), "{queue}: {}", text(&tested.stdout));
    }
    assert_eq!(run(worker, &["test", "split"]).status.code(), Some(0), "the first queue");
    let refused = run(gateway, &["call", "split", "--queue", "slow"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = text(&refused.stderr);
    let expected = "--queue: split has no queue \"slow\": expected one of split, split-v2";
    assert!(error.contains(expected), "{error}");
    let refused = run(worker, &["test", "--queue", "none"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("no endpoint has the queue \"none\""));

    // The check compares the procedures of all queues with the database.
    let checked = run(worker, &["check", "--online"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let file = fleet.catalogue().join("versions.json");
    let catalogue = fs::read_to_string(&file).expect("the catalogue can be read");
    fs::write(&file, catalogue.replace("ledger.v2", "ledger.v3")).expect("the file can be written");
    let checked = run(worker, &["check", "--online"]);
    assert_eq!(checked.status.code(), Some(2));
    let error = text(&checked.stderr);
    assert!(error.contains("queue split-v2, endpoint \"split\": "), "{error}");
    assert!(error.contains("ledger.v3") && !error.contains("queue split,"), "{error}");
}
