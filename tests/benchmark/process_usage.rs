//! CPU time, context switches and memory of a process, as reported by the system.

use std::fs;
use std::ops::Sub;

use serde::{Deserialize, Serialize};

/// The number of clock ticks per second in `/proc`. It is the same on every Linux that fjord supports.
const TICKS: f64 = 100.0;

/// The resources that all threads of a process have used. In a sample, the values are per 1,000 requests.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct ProcessUsage {
    /// The CPU time in the program itself, in seconds.
    pub(crate) user: f64,
    /// The CPU time in the kernel, in seconds.
    pub(crate) kernel: f64,
    /// The number of times that a thread gave up its core because it had nothing to do. Each such wait ends with a
    /// wake-up.
    pub(crate) waits: f64,
    /// The number of times that the kernel took a thread off its core.
    pub(crate) preemptions: f64,
}

impl ProcessUsage {
    /// Returns the resources that the threads of a process have used since they started. The context switches do not
    /// include those of threads that have ended.
    pub(crate) fn of_process(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is running");
        // The format is `pid (name) state …`, and the name can contain parentheses.
        let mut fields = stat.rsplit(')').next().expect("fields").split_whitespace().skip(11);
        let mut seconds =
            || fields.next().expect("a field").parse::<f64>().expect("a number") / TICKS;
        let (user, kernel) = (seconds(), seconds());
        let mut usage = Self { user, kernel, ..Self::default() };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is running");
        for thread in threads.flatten() {
            // A thread can end between the listing and this line.
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            usage.waits += status_field(&status, "voluntary_ctxt_switches:");
            usage.preemptions += status_field(&status, "nonvoluntary_ctxt_switches:");
        }
        usage
    }

    /// Returns the CPU time in seconds.
    pub(crate) fn cpu(self) -> f64 {
        self.user + self.kernel
    }

    /// Returns the usage with every value multiplied by `factor`.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self {
            user: self.user * factor,
            kernel: self.kernel * factor,
            waits: self.waits * factor,
            preemptions: self.preemptions * factor,
        }
    }
}

impl Sub for ProcessUsage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user - earlier.user,
            kernel: self.kernel - earlier.kernel,
            waits: self.waits - earlier.waits,
            preemptions: self.preemptions - earlier.preemptions,
        }
    }
}

/// Returns the value of a line of `/proc/<pid>/status`, or 0 if the line is missing.
fn status_field(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(0.0)
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
