//! The patterns of the texts that the gateway accepts. They are needed for types without a JSON Schema format, and for
//! types whose format accepts texts that the gateway refuses.

use regex_syntax::hir::ClassUnicode;

use super::pattern;
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};

/// The pattern of a date. The year is at least 0001, but the format `date` also permits the year 0000.
const DATE: &str = "^(?!0000)";
const TIME: &str = r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?$";
/// The pattern of a date and time without a leap second, and with an offset of at most 14 hours.
const DATETIME: &str = r"^(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[Zz]|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))$";
/// The pattern of a header's value. The value neither starts nor ends with a space, because HTTP removes such spaces.
const HEADER: &str = r"^(?:[!-~](?:[\u0009 -~]*[!-~])?)?$";
/// The patterns of a complete group of base64, and of the final groups that encode one and two bytes (RFC 4648 §4).
const BASE64: [&str; 3] =
    ["[A-Za-z0-9+/]{4}", "[A-Za-z0-9+/][AQgw]==", "[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]="];
/// The largest number of bytes that a pattern counts. Engines are slow with larger counts, or refuse them.
const COUNTED_BYTES_MAX: usize = 3000;
/// Excludes dot segments, which a path cannot contain.
const NO_DOT_SEGMENT: &str = r"(?!\.{1,2}$)";

/// The pattern of a text, and a note for readers about the rules that it does not express.
#[derive(Debug, Default)]
pub(super) struct TextPattern {
    pub(super) pattern: Option<String>,
    pub(super) note: Option<String>,
}

/// Returns the pattern of the texts that are valid for a parameter.
pub(super) fn text_pattern(parameter: &Parameter) -> TextPattern {
    let fixed = |pattern: &str| TextPattern { pattern: Some(pattern.to_owned()), note: None };
    match parameter.kind {
        ParameterType::String if parameter.constraints.allowed.is_some() => TextPattern::default(),
        ParameterType::String => string(parameter),
        ParameterType::Date => fixed(DATE),
        ParameterType::Time => fixed(TIME),
        ParameterType::Datetime => fixed(DATETIME),
        ParameterType::Binary => binary(parameter),
        _ => TextPattern::default(),
    }
}

fn string(parameter: &Parameter) -> TextPattern {
    let is_segment = parameter.source == ParameterSource::Path;
    let Some(regex) = &parameter.constraints.pattern else {
        let pattern = match parameter.source {
            ParameterSource::Path => {
                format!(r"^{NO_DOT_SEGMENT}[^\u0000-\u001F/\\\u007F-\u009F]+$")
            }
            ParameterSource::Header => HEADER.to_owned(),
            _ => r"^[^\u0000]*$".to_owned(),
        };
        return TextPattern { pattern: Some(pattern), note: None };
    };
    let translated = pattern::translate(regex.as_str(), &characters(parameter.source));
    let translated = translated.map(|pattern| match pattern.strip_prefix('^') {
        Some(rest) if is_segment && (regex.is_match(".") || regex.is_match("..")) => {
            format!("^{NO_DOT_SEGMENT}{rest}")
        }
        _ => pattern,
    });
    let note = translated.is_none().then(|| {
        format!(
            "The text must match the regular expression `{regex}` (in the syntax of Rust's regex crate)."
        )
    });
    TextPattern { pattern: translated, note }
}

/// Returns the characters that a text can contain.
fn characters(source: ParameterSource) -> ClassUnicode {
    match source {
        ParameterSource::Path => {
            pattern::class(&[(' ', '.'), ('0', '['), (']', '~'), ('\u{A0}', char::MAX)])
        }
        ParameterSource::Header => pattern::class(&[('\t', '\t'), (' ', '~')]),
        _ => pattern::class(&[('\u{1}', char::MAX)]),
    }
}

/// Returns the pattern of base64 with a limited number of decoded bytes.
fn binary(parameter: &Parameter) -> TextPattern {
    let [group, one, two] = BASE64;
    let (min, max) = (parameter.constraints.length_min, parameter.constraints.length_max);
    if min.is_none() && max.is_none() {
        let pattern = format!("^(?:{group})*(?:{one}|{two})?$");
        return TextPattern { pattern: Some(pattern), note: None };
    }
    let min = min.unwrap_or_default();
    let bytes = match max {
        Some(max) => format!("{min} to {max} bytes"),
        None => format!("at least {min} bytes"),
    };
    let note = Some(format!("Base64 with padding, of {bytes}."));
    if max.unwrap_or(min) > COUNTED_BYTES_MAX {
        return TextPattern { pattern: Some(format!("^(?:{group})*(?:{one}|{two})?$")), note };
    }
    let mut forms = Vec::new();
    for (rest, last) in [(0, ""), (1, one), (2, two)] {
        let from = min.saturating_sub(rest).div_ceil(3);
        let up_to = max.map(|max| max.checked_sub(rest).map(|bytes| bytes / 3));
        match up_to {
            Some(Some(up_to)) if up_to >= from => {
                forms.push(format!("(?:{group}){{{from},{up_to}}}{last}"));
            }
            Some(_) => {}
            None => forms.push(format!("(?:{group}){{{from},}}{last}")),
        }
    }
    TextPattern { pattern: Some(format!("^(?:{})$", forms.join("|"))), note }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::catalogue::load::fixture::catalogue;
    use crate::catalogue::validate::{from_text, scalar};
    use crate::catalogue::violations::{Location, Violations};

    #[test]
    fn the_patterns_of_dates_and_times_accept_what_the_gateway_accepts() {
        // Rust's `regex` has no look-ahead.
        let pattern = |text: &str| Regex::new(&text.replace("(?!0000)", "")).unwrap();
        let (time, datetime) = (pattern(TIME), pattern(DATETIME));
        for text in ["00:00:00", "23:59:59.123456789", "24:00:00", "12:00:60", "12:00:00.", "1:2:3"]
        {
            assert_eq!(time.is_match(text), scalar::is_time(text), "{text}");
        }
        for rest in
            ["Z", "z", "+14:00", "-14:00", "+13:59", "+14:01", "+15:00", "", "+01:60", ".1Z"]
        {
            for between in ["T12:00:00", "t23:59:59", " 12:00:00", "T24:00:00"] {
                let text = format!("2024-02-29{between}{rest}");
                assert_eq!(datetime.is_match(&text), scalar::datetime(&text).is_some(), "{text}");
            }
        }
    }

    #[test]
    fn the_pattern_of_base64_counts_the_decoded_bytes() {
        for (min, max) in [(0, 0), (1, 1), (2, 5), (3, 3), (4, 9), (5, 8)] {
            let keys = format!(r#""minLength":{min},"maxLength":{max}"#);
            let endpoint = format!(
                r#""a": {{"route":"POST /a", KEYS, "parameters":{{"b":{{"in":"body","type":"binary",{keys}}}}}}}"#
            );
            let catalogue = catalogue(&endpoint);
            let parameter = &catalogue.endpoints()[0].parameters[0];
            let regex = Regex::new(&text_pattern(parameter).pattern.unwrap()).unwrap();
            for text in [
                "",
                "AA==",
                "AB==",
                "AAA=",
                "AAB=",
                "AAAA",
                "AAAAAA==",
                "AAAAAAA=",
                "AAAAAAAA",
                "AAAAAAAAAA==",
                "AAAAAAAAAAA=",
                "AAAAAAAAAAAA",
                "AAAAAAAAAAAAAA==",
                "AAA",
                "A-_=",
            ] {
                let mut violations = Violations::default();
                let location = Location::Parameter(parameter);
                let value = from_text(parameter, text.into(), location, &mut violations);
                assert_eq!(regex.is_match(text), value.is_some(), "{min} to {max}: {text}");
            }
        }
    }
}
