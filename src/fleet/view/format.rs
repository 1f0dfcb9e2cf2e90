//! Formats numbers and durations for human readers. An unknown value is shown as `-`.

/// Formats a fraction as a percentage.
pub(crate) fn percent(share: f64) -> String {
    if share.is_nan() {
        return "-".to_owned();
    }
    format!("{:.0} %", share * 100.0)
}

/// Formats a time in seconds with about three significant digits.
pub(crate) fn seconds(time: Option<f64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < 0.01 => format!("{:.2} ms", time * 1e3),
        Some(time) if time < 1.0 => format!("{:.0} ms", time * 1e3),
        Some(time) => format!("{time:.2} s"),
    }
}

/// Formats a rate per second.
pub(crate) fn rate(rate: f64) -> String {
    if rate.is_nan() {
        return "-".to_owned();
    }
    if rate > 0.0 && rate < 10.0 { format!("{rate:.2}") } else { format!("{rate:.0}") }
}

pub(crate) fn bytes(bytes: f64) -> String {
    match bytes {
        b if b.is_nan() => "-".to_owned(),
        b if b < 1e3 => format!("{b:.0} B"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b => format!("{:.1} MB", b / 1e6),
    }
}

pub(crate) fn uptime(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    match minutes {
        m if m < 2.0 => format!("{seconds:.0} s"),
        m if m < 120.0 => format!("{m:.0} min"),
        m if m < 48.0 * 60.0 => format!("{:.0} h", m / 60.0),
        m => format!("{:.0} d", m / 1440.0),
    }
}
