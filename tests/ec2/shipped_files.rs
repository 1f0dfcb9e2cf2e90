//! The shipped examples for `CloudFormation` and Prometheus are valid, and agree with fjord and with user-data.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::shipped;
use crate::support::external_tools::{find, run};
use crate::support::fjord_binary;
use crate::support::prometheus;

/// The maximum length of a stack's parameter value, in bytes.
const PARAMETER_BYTES_MAX: usize = 4096;

fn text(file: &str) -> String {
    fs::read_to_string(shipped(file)).expect("the shipped file can be read")
}

#[tokio::test]
async fn cfn_lint_accepts_the_template() {
    let what = "the check of the CloudFormation template";
    let Some(tool) = find("cfn-lint", "cfn-lint/bin", what, "run make cfn-lint") else { return };
    let limit = Duration::from_mins(2);
    let template = shipped("config/ec2/autoscaling.yaml");
    let path = template.to_str().expect("UTF-8");
    assert_eq!(run(&tool, &["--include-checks", "I", "--", path], limit).await, "");
    // The tool reports an unknown property, which shows that the check can fail.
    let home = tempfile::tempdir().expect("a temporary directory");
    let broken = home.path().join("broken.yaml");
    let wrong = text("config/ec2/autoscaling.yaml").replace("TargetValue: 70", "Target: 70");
    fs::write(&broken, wrong).expect("the file can be written");
    let output = run(&tool, &["--", broken.to_str().expect("UTF-8")], limit).await;
    assert!(output.contains("TargetValue"), "{output}");
}

#[test]
fn the_template_agrees_with_fjord_and_with_user_data() {
    let template = text("config/ec2/autoscaling.yaml");
    let worker = text("config/ec2/worker.yaml");
    let default = |name: &str| {
        let after = template.split(&format!("  {name}:\n")).nth(1).expect("the parameter");
        let line = after.lines().find_map(|line| line.trim().strip_prefix("Default: "));
        line.expect("a default").to_owned()
    };
    // These are the defaults of worker.pool and of fjord ec2 publish.
    assert_eq!(default("Pool"), fjord::config::DEFAULT_POOL);
    assert_eq!(default("Namespace"), "fjord");
    for line in [
        "FJORD_WORKER__POOL=default".to_owned(),
        format!("GROUP={}", default("GroupName")),
        "HOOK=fjord-drain".to_owned(),
        format!("s3://{}/", default("ConfigurationBucket")),
    ] {
        assert!(worker.contains(&line), "{line}");
    }
    for line in ["MetricName: Load\n", "Statistic: Average\n", "LifecycleHookName: fjord-drain\n"] {
        assert!(template.contains(line), "{line}");
    }
    let encoded = worker.len().div_ceil(3) * 4;
    assert!(encoded <= PARAMETER_BYTES_MAX, "user-data has {encoded} bytes in base64");
}

#[test]
fn instances_of_a_group_serve_requests_until_their_replacement_has_started() {
    assert!(text("config/ec2/autoscaling.yaml").contains("CapacityRebalance: true"));
    let accepts = |options: &str| {
        let mut watch = Command::new(fjord_binary());
        watch.args(["ec2", "watch", "--hook=h", "--group=g"]).args(options.split_whitespace());
        watch.arg("--help").output().expect("fjord runs").status.success()
    };
    assert!(!accepts("--unknown"), "the check can fail");
    for file in ["config/ec2/worker.yaml", "config/ec2/gateway.yaml"] {
        let user_data = text(file);
        let mut lines = user_data.lines().map(str::trim);
        let unit = lines.find(|line| line.ends_with("/etc/sysconfig/fjord-lifecycle"));
        assert!(unit.is_some(), "{file}");
        let options = lines
            .take_while(|line| !line.starts_with("- path:"))
            .find_map(|line| line.strip_prefix("OPTIONS="));
        let options = options.unwrap_or_default();
        assert!(options.contains("--ignore-rebalance") && accepts(options), "{file}: {options}");
    }
}

#[test]
fn the_hook_waits_longer_than_both_units_take_to_stop() {
    let template = text("config/ec2/autoscaling.yaml");
    let number = |text: &str, key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.expect("the key").trim().parse().expect("a number")
    };
    let unit = number(&text("systemd/fjord@.service"), "TimeoutStopSec=");
    let help = Command::new(fjord_binary()).args(["ec2", "watch", "--help"]).output();
    let help = String::from_utf8(help.expect("fjord runs").stdout).expect("UTF-8");
    let default = |option: &str| -> u64 {
        let after = help.split(option).nth(1).expect("the option");
        let default = after.split("[default: ").nth(1).and_then(|after| after.split(']').next());
        default.expect("a default").parse().expect("a number")
    };
    let limit = default("--stop-timeout <");
    assert!(limit > unit, "the command must not give up before systemd does");
    let heartbeat_timeout = number(&template, "HeartbeatTimeout:");
    assert!(heartbeat_timeout > 2 * limit, "the group waits even if heartbeats are lost");
    assert!(heartbeat_timeout >= 2 * default("--heartbeat-interval <"));
    for action in ["CompleteLifecycleAction", "RecordLifecycleActionHeartbeat"] {
        assert!(template.contains(&format!("autoscaling:{action}")), "the role permits {action}");
    }
}

#[test]
fn promtool_accepts_the_configuration_for_ec2() {
    let Some(promtool) = prometheus::promtool("the check of prometheus.yml") else { return };
    let file = shipped("config/prometheus/prometheus.yml");
    let file = file.to_str().expect("UTF-8");
    let output = prometheus::run(&promtool, &["check", "config", file], "");
    assert!(output.is_ok(), "{}", output.unwrap_err());
    let wrong = text("config/prometheus/prometheus.yml").replace("ec2_sd_configs", "ec2_configs");
    let home = tempfile::tempdir().expect("a temporary directory");
    let broken = home.path().join("prometheus.yml");
    fs::write(&broken, wrong).expect("the file can be written");
    let broken = broken.to_str().expect("UTF-8");
    assert!(prometheus::run(&promtool, &["check", "config", broken], "").is_err());
}
