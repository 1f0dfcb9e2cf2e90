//! `fjord status`: asks every gateway and worker over NATS how it is, and names the bottleneck.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::sleep;

use super::bus::{self, Bus};
use super::{EXIT_FAILED, Output};
use crate::cli::StatusArguments;
use crate::config::Sources;
use crate::fleet;

mod bottleneck;
mod monitoring;
mod system;
mod text;
mod view;

use view::{Snapshot, View};

/// Longest wait for the reports of the fleet.
const GATHER_LIMIT: Duration = Duration::from_secs(3);
/// Moves a terminal's cursor home and clears what stands below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Looks, waits, looks again, and tells what happened in between.
pub(super) fn run(
    arguments: &StatusArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    bus::run(sources, "fjord status", output, async |bus, output| {
        watch(arguments, &bus, output).await
    })
}

async fn watch(
    arguments: &StatusArguments,
    bus: &Bus,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let mut earlier = match seen(bus, 0, 0).await {
        Ok(look) => look,
        Err(failure) => return failed(&failure, output),
    };
    let clears = arguments.watch && !arguments.json && io::stdout().is_terminal();
    loop {
        sleep(Duration::from_secs(arguments.interval)).await;
        let later = match seen(bus, earlier.reports.len(), earlier.servers.len()).await {
            Ok(later) => later,
            Err(failure) => return failed(&failure, output),
        };
        let view = View::between(&earlier, &later);
        if clears {
            output.out.write_all(CLEAR.as_bytes())?;
        }
        if arguments.json {
            writeln!(output.out, "{}", serde_json::to_string(&view)?)?;
        } else {
            output.out.write_all(text::page(&view).as_bytes())?;
        }
        output.out.flush()?;
        if !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        earlier = later;
    }
}

fn failed(failure: &str, output: &mut Output<impl Write, impl Write>) -> io::Result<ExitCode> {
    writeln!(output.err, "error: {failure}")?;
    Ok(ExitCode::from(EXIT_FAILED))
}

/// A look at which somebody answered.
async fn seen(bus: &Bus, expected: usize, servers_expected: usize) -> Result<Snapshot, String> {
    let look = look(bus, expected, servers_expected).await?;
    if look.reports.is_empty() {
        return Err(format!(
            "nobody answered on {prefix}.{}: no gateway or worker is connected to this NATS under the prefix {prefix}, or \
             the account may not ask there",
            fleet::query::STATUS_TOKEN,
            prefix = bus.prefix
        ));
    }
    Ok(look)
}

/// Looks at the fleet and at the NATS servers.
async fn look(bus: &Bus, expected: usize, servers_expected: usize) -> Result<Snapshot, String> {
    let servers = async {
        match &bus.system {
            Some(system) => system::look(&**system, servers_expected).await,
            None => monitoring::look_all(&bus.monitoring).await,
        }
    };
    let reports = fleet::query::gather(&*bus.transport, &bus.prefix, expected, GATHER_LIMIT);
    let (servers, reports) = tokio::join!(servers, reports);
    let reports = reports.map_err(|error| format!("the fleet cannot be asked: {error}"))?;
    Ok(Snapshot { reports, servers })
}
