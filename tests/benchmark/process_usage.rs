//! CPU time and memory of a process, as reported by the system.

use std::fs;

/// The number of clock ticks per second in `/proc`, on every Linux that fjord supports.
const TICKS: f64 = 100.0;

/// Returns the CPU time of all threads of a process, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is running");
    // The format is `pid (name) state …`, and the name can contain parentheses.
    let fields =
        stat.rsplit(')').next().expect("the line has fields after the name").split_whitespace();
    let times = fields.skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    times.sum::<f64>() / TICKS
}

/// Returns the resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is running");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("the file has the line VmRSS");
    let number = line.trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}
