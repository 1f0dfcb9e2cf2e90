//! Converts dates and times between RFC 3339 and SQL Server's days and fractions of a second.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use tiberius::time::{self, Date, DateTime2, DateTimeOffset, SmallDateTime, Time};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;
const MINUTES_PER_DAY: u64 = 1440;
/// The resolution of `datetime`, in steps per second.
const DATETIME_STEPS: u64 = 300;
/// The number of days from 0001-01-01 to 1900-01-01. The latter is day 0 of `datetime` and
/// `smalldatetime`.
const DAYS_TO_1900: i64 = 693_595;
/// The number of days from 1900-01-01 to 1753-01-01, the first day of `datetime`.
const DATETIME_DAYS_MIN: i64 = -53_690;
/// The format of a date and time without an offset.
const LOCAL: &str = "%Y-%m-%dT%H:%M:%S%.f";
/// The maximum number of fractional digits of `time`, `datetime2` and `datetimeoffset`.
const SCALE_MAX: u8 = 7;
/// The largest offset of a `datetimeoffset`, in minutes.
const OFFSET_MINUTES_MAX: i16 = 14 * 60;
/// The steps of `datetime` in a minute.
const DATETIME_STEPS_PER_MINUTE: u64 = 60 * DATETIME_STEPS;

/// A point in time: UTC days since 0001-01-01 and nanoseconds of the day, and the offset in minutes
/// east of Greenwich.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParsedDateTime {
    days: i64,
    nanos: u64,
    offset: i16,
}

impl ParsedDateTime {
    /// Parses an RFC 3339 date and time. A missing offset means UTC, and a missing time means
    /// midnight.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (utc, offset) = if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            (moment.naive_utc(), moment.offset().local_minus_utc() / 60)
        } else if let Ok(moment) = NaiveDateTime::parse_from_str(text, LOCAL) {
            (moment, 0)
        } else {
            (parse_date(text)?.and_time(NaiveTime::MIN), 0)
        };
        Some(Self {
            days: days_of(utc.date())?,
            nanos: nanos_of(utc.time())?,
            offset: i16::try_from(offset).ok()?,
        })
    }

    /// Rounds to a resolution of `per_second` steps per second, possibly into the next day. Returns
    /// the days, and the steps since midnight.
    fn steps(self, per_second: u64) -> (i64, u64) {
        let steps = rounded(self.nanos, per_second);
        let day = SECONDS_PER_DAY * per_second;
        if steps == day { (self.days + 1, 0) } else { (self.days, steps) }
    }

    pub(super) fn datetime2(self, scale: u8) -> Option<DateTime2> {
        let scale = scale.min(SCALE_MAX);
        let (days, steps) = self.steps(10_u64.pow(u32::from(scale)));
        Some(DateTime2::new(date_of(days)?, Time::new(steps, scale)))
    }

    /// Returns whether SQL Server can store the offset.
    pub(super) fn has_possible_offset(self) -> bool {
        (-OFFSET_MINUTES_MAX..=OFFSET_MINUTES_MAX).contains(&self.offset)
    }

    /// Returns whether the moment is before the given day in UTC.
    pub(super) fn is_before(self, day: Date) -> bool {
        self.days < i64::from(day.days())
    }

    pub(super) fn datetimeoffset(self, scale: u8) -> Option<DateTimeOffset> {
        // SQL Server stores neither a larger offset nor a local date outside of its range.
        if !self.has_possible_offset() || !self.has_local_date(scale) {
            return None;
        }
        // On the wire, the time is in UTC, followed by the offset (MS-TDS 2.2.5.5.1.9).
        Some(DateTimeOffset::new(self.datetime2(scale)?, self.offset))
    }

    pub(super) fn datetime(self) -> Option<time::DateTime> {
        let (days, steps) = self.steps(DATETIME_STEPS);
        let days = days - DAYS_TO_1900;
        date_of(days + DAYS_TO_1900).filter(|_| days >= DATETIME_DAYS_MIN)?;
        Some(time::DateTime::new(i32::try_from(days).ok()?, u32::try_from(steps).ok()?))
    }

    pub(super) fn smalldatetime(self) -> Option<SmallDateTime> {
        // SQL Server converts text in the same way. The text becomes a `datetime` first, so 29.998
        // s is rounded down and 29.999 s is rounded up.
        let (days, steps) = self.steps(DATETIME_STEPS);
        let minutes = (steps + DATETIME_STEPS_PER_MINUTE / 2) / DATETIME_STEPS_PER_MINUTE;
        let (carry, minutes) = if minutes == MINUTES_PER_DAY { (1, 0) } else { (0, minutes) };
        let days = u16::try_from(days + carry - DAYS_TO_1900).ok()?;
        Some(SmallDateTime::new(days, u16::try_from(minutes).ok()?))
    }
}

impl ParsedDateTime {
    /// Returns whether the date at the moment's own offset is in SQL Server's range.
    fn has_local_date(self, scale: u8) -> bool {
        let (days, steps) = self.steps(10_u64.pow(u32::from(scale.min(SCALE_MAX))));
        let per_minute = 60 * 10_u64.pow(u32::from(scale.min(SCALE_MAX)));
        let minutes = i64::try_from(steps / per_minute).unwrap_or_default();
        let day = i64::try_from(MINUTES_PER_DAY).unwrap_or(i64::MAX);
        date_of(days + (minutes + i64::from(self.offset)).div_euclid(day)).is_some()
    }
}

/// Returns whether a text is a date, regardless of its year.
pub(super) fn is_date(text: &str) -> bool {
    parse_date(text).is_some()
}

/// Returns whether a text is a date and time, regardless of its year.
pub(super) fn is_moment(text: &str) -> bool {
    DateTime::parse_from_rfc3339(text).is_ok()
        || NaiveDateTime::parse_from_str(text, LOCAL).is_ok()
        || is_date(text)
}

/// Returns whether the seconds in a text are 60.
pub(super) fn is_leap_second(text: &str) -> bool {
    let time = text.split(['T', 't']).next_back().unwrap_or_default();
    time.get(5..8) == Some(":60")
}

/// Parses `YYYY-MM-DD` for `date`.
pub(super) fn date(text: &str) -> Option<Date> {
    date_of(days_of(parse_date(text)?)?)
}

/// Parses `HH:MM[:SS[.fraction]]` for `time`.
pub(super) fn time_of_day(text: &str, scale: u8) -> Option<Time> {
    let scale = scale.min(SCALE_MAX);
    let time = NaiveTime::parse_from_str(text, "%H:%M:%S%.f")
        .or_else(|_| NaiveTime::parse_from_str(text, "%H:%M"))
        .ok()?;
    let per_second = 10_u64.pow(u32::from(scale));
    // Rounding does not carry past midnight, because a `time` has no day.
    let last = SECONDS_PER_DAY * per_second - 1;
    Some(Time::new(rounded(nanos_of(time)?, per_second).min(last), scale))
}

pub(super) fn write_date(date: Date, into: &mut String) -> Option<()> {
    write_days(i64::from(date.days()), into)
}

pub(super) fn write_time(time: Time, into: &mut String) -> Option<()> {
    let per_second = 10_u64.checked_pow(u32::from(time.scale()))?;
    write_steps(time.increments(), per_second, into)
}

/// Writes a `datetime2`, which has no offset and is treated as UTC.
pub(super) fn write_datetime2(moment: DateTime2, into: &mut String) -> Option<()> {
    write_date(moment.date(), into)?;
    into.push('T');
    write_time(moment.time(), into)?;
    into.push('Z');
    Some(())
}

/// Writes a `datetime`, rounded from 1/300 s to milliseconds, as SQL Server displays it.
pub(super) fn write_datetime(moment: time::DateTime, into: &mut String) -> Option<()> {
    write_days(i64::from(moment.days()) + DAYS_TO_1900, into)?;
    into.push('T');
    let millis =
        (u64::from(moment.seconds_fragments()) * 1000 + DATETIME_STEPS / 2) / DATETIME_STEPS;
    write_steps(millis, 1000, into)?;
    into.push('Z');
    Some(())
}

pub(super) fn write_smalldatetime(moment: SmallDateTime, into: &mut String) -> Option<()> {
    write_days(i64::from(moment.days()) + DAYS_TO_1900, into)?;
    into.push('T');
    write_steps(u64::from(moment.seconds_fragments()) * 60, 1, into)?;
    into.push('Z');
    Some(())
}

/// Writes a `datetimeoffset` with its offset.
pub(super) fn write_datetimeoffset(moment: DateTimeOffset, into: &mut String) -> Option<()> {
    let (date, time) = (moment.datetime2().date(), moment.datetime2().time());
    let per_second = i64::try_from(10_u64.checked_pow(u32::from(time.scale()))?).ok()?;
    let day = i64::try_from(SECONDS_PER_DAY).ok()? * per_second;
    let minutes = i64::from(moment.offset());
    let local = i64::from(date.days()) * day
        + i64::try_from(time.increments()).ok()?
        + minutes * 60 * per_second;
    write_days(local.div_euclid(day), into)?;
    into.push('T');
    let (steps, per_second) =
        (u64::try_from(local.rem_euclid(day)).ok()?, u64::try_from(per_second).ok()?);
    write_steps(steps, per_second, into)?;
    let sign = if minutes < 0 { '-' } else { '+' };
    let minutes = minutes.abs();
    write!(into, "{sign}{:02}:{:02}", minutes / 60, minutes % 60).ok()
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()
}

fn days_of(date: NaiveDate) -> Option<i64> {
    (1..=9999).contains(&date.year()).then(|| i64::from(date.num_days_from_ce()) - 1)
}

fn date_of(days: i64) -> Option<Date> {
    // The range is 0001-01-01 to 9999-12-31.
    (0..=3_652_058).contains(&days).then(|| u32::try_from(days).ok().map(Date::new))?
}

/// Returns the nanoseconds of the day, or `None` for a leap second, which SQL Server cannot store.
fn nanos_of(time: NaiveTime) -> Option<u64> {
    let nanos = u64::from(time.nanosecond());
    (nanos < NANOS_PER_SECOND)
        .then(|| u64::from(time.num_seconds_from_midnight()) * NANOS_PER_SECOND + nanos)
}

/// Converts nanoseconds to steps, rounding half up.
fn rounded(nanos: u64, per_second: u64) -> u64 {
    let (seconds, rest) = (nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND);
    seconds * per_second + (rest * per_second + NANOS_PER_SECOND / 2) / NANOS_PER_SECOND
}

fn write_days(days: i64, into: &mut String) -> Option<()> {
    let date = NaiveDate::from_num_days_from_ce_opt(i32::try_from(days + 1).ok()?)?;
    write!(into, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day()).ok()
}

/// Writes the steps since midnight as `HH:MM:SS`, with a fraction without trailing zeros.
fn write_steps(steps: u64, per_second: u64, into: &mut String) -> Option<()> {
    let (seconds, fraction) = (steps / per_second, steps % per_second);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 23 {
        return None;
    }
    write!(into, "{hours:02}:{minutes:02}:{seconds:02}").ok()?;
    if fraction > 0 {
        let width = usize::try_from(per_second.ilog10()).ok()?;
        write!(into, ".{fraction:0width$}").ok()?;
        into.truncate(into.trim_end_matches('0').len());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits come from the documentation of `smalldatetime`.
    #[test]
    fn a_smalldatetime_is_rounded_once() {
        for (text, minutes) in [
            ("2024-02-29T12:34:29.499Z", 754),
            ("2024-02-29T12:34:29.5Z", 754),
            ("2024-02-29T12:34:29.998Z", 754),
            ("2024-02-29T12:34:29.999Z", 755),
            ("2024-02-29T12:34:30Z", 755),
            ("2024-02-29T23:59:29Z", 1439),
        ] {
            let at = ParsedDateTime::parse(text).unwrap().smalldatetime().unwrap();
            assert_eq!(u64::from(at.seconds_fragments()), minutes, "{text}");
        }
        let last = |text| ParsedDateTime::parse(text).unwrap().smalldatetime();
        assert!(last("2079-06-06T23:59:29.998Z").is_some());
        assert!(last("2079-06-06T23:59:29.999Z").is_none());
    }

    #[test]
    fn an_offset_is_within_14_hours_and_the_local_date_in_range() {
        for (text, fits) in [
            ("2024-01-01T00:00:00+14:00", true),
            ("2024-01-01T00:00:00+14:01", false),
            ("2024-01-01T00:00:00-14:00", true),
            ("2024-01-01T00:00:00-14:01", false),
            ("9999-12-31T23:59:59.9999999Z", true),
            ("0001-01-01T00:00:00Z", true),
        ] {
            assert_eq!(
                ParsedDateTime::parse(text).unwrap().datetimeoffset(7).is_some(),
                fits,
                "{text}"
            );
        }
    }
}
