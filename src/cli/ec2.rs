//! The command line of `fjord ec2`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Commands for hosts on EC2.
#[derive(Clone, Debug, Subcommand)]
pub enum Ec2Command {
    /// Measures the headroom of each pool of workers, and publishes it to `CloudWatch` as the metrics Load (percent), Workers,
    /// `WorkersNeeded` and `WorkersFree` with the dimension Pool. Uses the credentials of the instance's role.
    Publish(PublishArguments),
    /// Waits until EC2 announces that this instance will be interrupted or terminated, and then stops the units
    /// fjord@gateway and fjord@worker, which finish their requests before they exit. With --hook, completes the lifecycle
    /// action of the autoscaling group. The exit status is 3 if the instance was not drained, or if the action was not
    /// completed.
    Watch(WatchArguments),
}

/// How to reach the services of AWS.
#[derive(Args, Clone, Debug)]
pub struct AwsArguments {
    /// The URL of the instance metadata service.
    #[arg(
        long,
        value_name = "URL",
        env = "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        default_value = "http://169.254.169.254"
    )]
    pub metadata_url: String,
    /// The file with the CA certificates that verify the certificates of services [default: the system's].
    #[arg(long, value_name = "FILE", env = "AWS_CA_BUNDLE")]
    pub ca: Option<PathBuf>,
}

/// Options of `fjord ec2 publish`.
#[derive(Args, Clone, Debug)]
pub struct PublishArguments {
    /// The namespace of the metrics. Give each fleet in an account and region its own.
    #[arg(long, value_name = "NAME", default_value = "fjord", value_parser = namespace)]
    pub namespace: String,
    /// The time over which the load is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub interval: u64,
    /// Prints the metrics instead of publishing them.
    #[arg(long)]
    pub dry_run: bool,
    /// The URL of `CloudWatch`, such as that of a VPC endpoint [default: the public endpoint of the instance's region].
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_CLOUDWATCH", value_parser = https_url)]
    pub cloudwatch_url: Option<String>,
    /// How to reach AWS.
    #[command(flatten)]
    pub aws: AwsArguments,
}

/// Options of `fjord ec2 watch`.
#[derive(Args, Clone, Debug)]
pub struct WatchArguments {
    /// The lifecycle hook of the autoscaling group. An empty name is ignored.
    #[arg(long, value_name = "NAME", requires = "group")]
    pub hook: Option<String>,
    /// The autoscaling group to which the instance belongs.
    #[arg(long, value_name = "NAME", requires = "hook")]
    pub group: Option<String>,
    /// Does not stop the units after a rebalance recommendation, because an interruption does not always follow.
    #[arg(long)]
    pub ignore_rebalance: bool,
    /// The time between two queries of the instance metadata.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub interval: u64,
    /// How long each unit may take to stop. Must be longer than `TimeoutStopSec` of the unit. After twice this time, the action of
    /// the hook is completed even if requests are still in progress.
    #[arg(long, value_name = "SECONDS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=7200))]
    pub stop_timeout: u64,
    /// The interval between heartbeats of the lifecycle action. Heartbeats are sent while the units are stopping, so that
    /// the group keeps waiting. Must be shorter than half the hook's heartbeat timeout.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub heartbeat_interval: u64,
    /// The URL of EC2 Auto Scaling, such as that of a VPC endpoint [default: the public endpoint of the instance's region].
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_AUTO_SCALING", value_parser = https_url)]
    pub autoscaling_url: Option<String>,
    /// How to reach AWS.
    #[command(flatten)]
    pub aws: AwsArguments,
}

/// Checks a namespace of `CloudWatch`.
fn namespace(text: &str) -> Result<String, String> {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/' | b'#');
    let is_reserved = text.starts_with("AWS/") || text.starts_with(':');
    if text.is_empty() || text.len() > 255 || is_reserved || !text.bytes().all(is_allowed) {
        return Err(
            "expected 1 to 255 letters, digits, '.', '-', '_', '/' and '#', not starting with AWS/"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// Checks the URL of a service. Requests contain a session token, which must not be sent unencrypted.
fn https_url(text: &str) -> Result<String, String> {
    let uri: http::Uri = text.parse().map_err(|_| "expected a URL".to_owned())?;
    let is_plain = uri.path() == "/" && uri.query().is_none();
    if uri.scheme_str() != Some("https") || uri.host().is_none() || !is_plain {
        return Err("expected https://HOST or https://HOST:PORT".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}
