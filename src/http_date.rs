//! The value of the `Date` header (RFC 9110 §6.6.1). hyper's own value never moves backwards. If the clock is set back,
//! hyper repeats the old time until the clock has caught up.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use chrono::DateTime;
use http::HeaderValue;

/// The header value for one second. All responses sent in that second share it.
#[derive(Debug)]
struct CachedDate {
    second: i64,
    value: HeaderValue,
}

static CACHE: ArcSwapOption<CachedDate> = ArcSwapOption::const_empty();

/// Returns the value for the current time.
#[must_use]
pub fn now() -> HeaderValue {
    at(SystemTime::now())
}

fn at(time: SystemTime) -> HeaderValue {
    let second = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let second = i64::try_from(second).unwrap_or_default();
    if let Some(cached) = &*CACHE.load()
        && cached.second == second
    {
        return cached.value.clone();
    }
    let date = DateTime::from_timestamp(second, 0).unwrap_or_default();
    let text = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    // This cannot fail, because the text is ASCII.
    let value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    CACHE.store(Some(Arc::new(CachedDate { second, value: value.clone() })));
    value
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_date_follows_a_clock_that_is_set_back() {
        for (second, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_108_177, "Sun, 06 Nov 1994 07:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
        ] {
            assert_eq!(at(UNIX_EPOCH + Duration::from_secs(second)), expected);
        }
    }
}
