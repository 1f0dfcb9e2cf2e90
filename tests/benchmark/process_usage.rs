//! Processor time and memory of a process, as the system reports them.

use std::fs;

/// The number of clock ticks per second in `/proc`, on every Linux that fjord supports.
const TICKS: f64 = 100.0;

/// Returns the processor time of a process with all of its threads, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is running");
    // `pid (name) state …`: the name may contain a parenthesis.
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    let times = fields.skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    times.sum::<f64>() / TICKS
}

/// Returns the resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
    let number = line.trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}
