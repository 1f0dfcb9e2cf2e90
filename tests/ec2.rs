//! Promise: the load of each pool reaches `CloudWatch`, and a host that EC2 is about to stop is drained first. Every
//! failure of an AWS service is reported in one line, within a bounded time.

mod host;
mod metadata_failures;
mod new_processes;
mod proxy;
mod publish;
mod shipped_files;
mod termination;
mod watch;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::support::aws::AwsServices;
use super::support::certs::Certs;
use super::support::fjord_binary;

/// The maximum duration of a command: all limits of its requests, and a margin for a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// Returns the command `fjord ec2` with a configuration that makes it use the local services.
fn ec2(command: &str, aws: &AwsServices, certs: &Certs) -> Command {
    let mut ec2 = Command::new(fjord_binary());
    ec2.args(["ec2", command]).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.metadata_url());
    ec2.arg("--ca").arg(&certs.ca).kill_on_drop(true);
    for variable in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        ec2.env_remove(variable);
    }
    let url = aws.api_url();
    ec2.arg(if command == "publish" { "--cloudwatch-url" } else { "--autoscaling-url" }).arg(url);
    ec2
}

/// Runs a command to its end. Checks that it does not print a secret.
async fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = timeout(LIMIT, command.output()).await.expect("the command ends in time");
    let Output { status, stdout, stderr } = output.expect("fjord runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let (stdout, stderr) = (text(stdout), text(stderr));
    let secrets = ["secret-key-".to_owned(), "session-token".to_owned(), "token-1".to_owned()];
    for secret in secrets {
        assert!(!stdout.contains(&secret) && !stderr.contains(&secret), "{stdout}{stderr}");
    }
    (status.code(), stdout, stderr)
}

fn shipped(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}
