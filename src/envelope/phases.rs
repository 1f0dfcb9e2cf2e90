//! The `Fjord-Phases` header, which reports how a worker spent the time of a call.

use std::time::Duration;

/// The maximum length of the header's value, in bytes.
const BYTES_MAX: usize = 128;
/// The maximum plausible time in milliseconds. This is one day.
const MILLIS_MAX: f64 = 86_400_000.0;

/// The initial capacity of the header's value. This is enough if every duration is shorter than a
/// thousand seconds.
const TEXT_BYTES_USUAL: usize = 48;

/// The time that a worker spent on one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The time spent waiting for a connection to the database.
    pub pool: Duration,
    /// The time spent in the procedure, including the transfer of its rows.
    pub call: Duration,
    /// The time since the job got its slot. It consists of `pool`, `call` and the time that the
    /// worker itself needs.
    pub total: Duration,
}

impl Phases {
    /// Formats the header's value in milliseconds: `pool=0.410;call=12.100;total=13.000`.
    #[must_use]
    pub fn to_text(self) -> String {
        let mut text = String::with_capacity(TEXT_BYTES_USUAL);
        let phases = [("pool=", self.pool), (";call=", self.call), (";total=", self.total)];
        for (name, time) in phases {
            text.push_str(name);
            push_millis(&mut text, time);
        }
        text
    }

    /// Parses the header's value. A missing phase is zero, and an unknown phase is ignored. Returns
    /// `None` if the value is malformed or implausible.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let mut phases = Self::default();
        for part in text.split(';') {
            let (name, millis) = part.split_once('=')?;
            let millis: f64 = millis.parse().ok()?;
            if !(0.0..=MILLIS_MAX).contains(&millis) {
                return None;
            }
            let time = Duration::try_from_secs_f64(millis / 1000.0).ok()?;
            match name.trim() {
                "pool" => phases.pool = time,
                "call" => phases.call = time,
                "total" => phases.total = time,
                _ => {}
            }
        }
        phases.total = phases.total.max(phases.pool.saturating_add(phases.call));
        Some(phases)
    }
}

/// Appends a time in milliseconds with three decimals. `format!` is not used, because it would
/// dominate the cost of a short call.
fn push_millis(text: &mut String, time: Duration) {
    let mut digits = itoa::Buffer::new();
    text.push_str(digits.format(time.as_millis()));
    text.push('.');
    // The leading 1 preserves leading zeros and is removed afterwards.
    let micros = digits.format(1000 + time.subsec_micros() % 1000);
    text.push_str(micros.get(1..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_written_as_milliseconds_with_three_decimals(micros: u64) {
            let mut text = String::new();
            push_millis(&mut text, Duration::from_micros(micros));
            prop_assert_eq!(text, format!("{}.{:03}", micros / 1000, micros % 1000));
        }
    }

    #[test]
    fn a_gateway_parses_the_phases_that_a_worker_writes() {
        let ms = Duration::from_micros;
        let phases = Phases { pool: ms(410), call: ms(12_100), total: ms(13_000) };
        assert_eq!(phases.to_text(), "pool=0.410;call=12.100;total=13.000");
        assert_eq!(Phases::parse(&phases.to_text()), Some(phases));
        assert_eq!(
            Phases::parse("call=2"),
            Some(Phases { call: ms(2000), total: ms(2000), ..Phases::default() })
        );
        assert!(Phases::parse("tea=5;call=2").is_some());
    }

    #[test]
    fn implausible_values_are_rejected() {
        for bad in ["", "pool", "pool=", "pool=x", "pool=-1", "pool=NaN", "call=inf", "call=1e99"] {
            assert_eq!(Phases::parse(bad), None, "{bad}");
        }
        assert_eq!(Phases::parse(&"call=1;".repeat(40)), None, "too long");
    }
}
