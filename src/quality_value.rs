//! Quality values (RFC 9110 §12.4.2): the weights in `Accept` and `Accept-Encoding`.

/// Returns the weight in the parameters of an element, in thousandths. Returns 1000 if there is no `q`, and `None` if
/// `q` is invalid.
#[must_use]
pub fn from_parameters<'a>(parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
        .map_or(Some(1000), |(_, text)| parse(text.trim()))
}

/// Parses a number from 0 to 1 with at most three decimal places.
fn parse(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_short = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction = is_short.then(|| format!("{fraction:0<3}"))?.parse::<u16>().ok()?;
    match (whole, fraction) {
        ("0", _) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}
