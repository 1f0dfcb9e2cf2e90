//! What the operating system says about a process: processor time and memory.

use std::fs;

/// Clock ticks of `/proc` in a second, on every Linux that fjord runs on.
const TICKS: f64 = 100.0;

/// Processor seconds that a process has used, all its threads together.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // `pid (name) state …`: the name may have a bracket of its own.
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    let times = fields.skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    times.sum::<f64>() / TICKS
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let number = line.trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}
