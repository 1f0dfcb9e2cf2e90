//! `fjord ec2 publish`: measures the headroom of each pool and publishes it to `CloudWatch`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::failed;
use super::http_client::HttpClient;
use super::instance_metadata::InstanceMetadata;
use super::metric_data::{self, PoolMetric};
use super::signed_api::SignedApi;
use crate::cli::PublishArguments;
use crate::commands::Output;
use crate::commands::nats_connection::{self, NatsConnection};
use crate::commands::status;
use crate::config::Sources;
use crate::fleet::view::{FleetView, PoolView};

/// The name of `CloudWatch` in signatures and endpoint names, followed by its name in policies.
const SERVICE: (&str, &str) = ("monitoring", "cloudwatch");
/// The maximum number of pools. `CloudWatch` accepts 1,000 metrics in one request, and each pool has four.
const POOLS_MAX: usize = 250;

pub(super) fn run(
    arguments: &PublishArguments,
    client: HttpClient,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    nats_connection::run(sources, "fjord ec2 publish", output, async |connection, output| {
        match measure(arguments, &connection).await {
            Ok(pools) => report(arguments, client, &pools, output).await,
            Err(failure) => failed(&failure, output),
        }
    })
}

async fn measure(
    arguments: &PublishArguments,
    connection: &NatsConnection,
) -> Result<Vec<PoolView>, String> {
    let interval = Duration::from_secs(arguments.interval);
    let FleetView { processes, pools, is_cut_off, .. } =
        status::measure(connection, interval).await?;
    if is_cut_off {
        return Err(format!(
            "the load is not known, because the fleet is too large: only {} processes could be queried (divide the fleet \
             into several with different prefixes)",
            processes.len()
        ));
    }
    if let Some(process) = processes.iter().find(|process| process.is_truncated) {
        return Err(format!(
            "the load is not known, because the queues of {} on {} do not fit into one message: increase max_payload of \
             the NATS servers",
            process.id, process.host
        ));
    }
    if pools.is_empty() {
        return Err("no worker serves a queue, so there is no headroom to publish".to_owned());
    }
    // The measurement has already waited for the partial processes. A process that restarts repeatedly must not prevent
    // the group from scaling with the load of the others.
    for process in processes.iter().filter(|process| process.is_partial) {
        tracing::warn!(
            role = process.role,
            id = process.id,
            host = process.host,
            "the load does not include this process, because it has not sent two reports with all its queues"
        );
    }
    if pools.iter().all(|pool| pool.load.is_none()) {
        return Err(
            "the load is not known: no process has sent two reports with all queues".to_owned()
        );
    }
    if pools.len() > POOLS_MAX {
        return Err(format!(
            "the workers have {} pools, expected at most {POOLS_MAX}",
            pools.len()
        ));
    }
    Ok(pools)
}

/// Publishes the headroom of the pools and prints it.
async fn report(
    arguments: &PublishArguments,
    client: HttpClient,
    pools: &[PoolView],
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    for pool in pools.iter().filter(|pool| pool.is_mixed) {
        writeln!(output.err, "warning: {}", pool.mixed_note())?;
    }
    let metrics = metric_data::metrics(pools);
    if !arguments.dry_run
        && let Err(failure) = publish(arguments, client, &metrics).await
    {
        return failed(&failure, output);
    }
    for PoolMetric { name, pool, value, .. } in &metrics {
        writeln!(output.out, "{} {name}{{Pool={pool}}} {value:.1}", arguments.namespace)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn publish(
    arguments: &PublishArguments,
    client: HttpClient,
    metrics: &[PoolMetric<'_>],
) -> Result<(), String> {
    let direct = HttpClient::direct(arguments.aws.ca.as_deref())?;
    let mut metadata = InstanceMetadata::new(direct, &arguments.aws.metadata_url);
    let url = arguments.cloudwatch_url.as_deref();
    let api = SignedApi::new(client, SERVICE, url, &mut metadata).await?;
    let form = metric_data::form(&arguments.namespace, metrics);
    let called = api.call("PutMetricData", &form, &mut metadata).await;
    called.map_err(|failure| failure.message)
}
