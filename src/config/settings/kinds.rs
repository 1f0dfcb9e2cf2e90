//! The kinds of values that a key may have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use crate::config::duration::{
    BYTES_EXPECTED, DURATION_EXPECTED, format_duration, parse_bytes, parse_duration,
};

/// A kind of value: how it is read and how `fjord config` shows it, in TOML.
pub(crate) trait Kind: Sized {
    /// What is expected, for an error.
    const EXPECTED: &'static str;
    /// Reads a value. Text from a variable or a flag is as good as the type itself.
    fn read(value: &Value) -> Option<Self>;
    /// The value as TOML.
    fn show(&self) -> String;
}

/// What a value is, in words and without saying it: it may be a secret at the wrong place.
pub(super) fn what(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "other text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

impl Kind for String {
    const EXPECTED: &'static str = "text in quotes";

    fn read(value: &Value) -> Option<Self> {
        value.as_str().filter(|text| !text.contains('\0')).map(ToOwned::to_owned)
    }

    fn show(&self) -> String {
        // JSON's escapes are all TOML's too.
        serde_json::Value::from(self.as_str()).to_string()
    }
}

impl Kind for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Value) -> Option<Self> {
        value.to_bool().or_else(|| value.as_str()?.parse().ok())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_number {
    ($($number:ty),+) => {$(
        impl Kind for $number {
            const EXPECTED: &'static str = "a whole number";

            fn read(value: &Value) -> Option<Self> {
                match value {
                    Value::Num(_, number) => {
                        let signed = number.to_i128().and_then(|n| n.try_into().ok());
                        signed.or_else(|| number.to_u128()?.try_into().ok())
                    }
                    other => other.as_str()?.parse().ok(),
                }
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
whole_number!(u16, u32, u64, usize);

impl Kind for f64 {
    const EXPECTED: &'static str = "a number";

    fn read(value: &Value) -> Option<Self> {
        let number = match value {
            Value::Num(_, number) => {
                number.to_f64().or_else(|| u32::try_from(number.to_i128()?).ok().map(Self::from))
            }
            other => other.as_str()?.parse().ok(),
        };
        number.filter(|number| number.is_finite())
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Bytes(pub(crate) usize);

impl Kind for Bytes {
    const EXPECTED: &'static str = BYTES_EXPECTED;

    fn read(value: &Value) -> Option<Self> {
        usize::read(value).or_else(|| parse_bytes(value.as_str()?)).map(Self)
    }

    fn show(&self) -> String {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.into_iter().find(|(size, _)| self.0 > 0 && self.0.is_multiple_of(*size));
        unit.map_or_else(
            || self.0.to_string(),
            |(size, name)| format!("\"{}{name}\"", self.0 / size),
        )
    }
}

impl Kind for Duration {
    const EXPECTED: &'static str = DURATION_EXPECTED;

    fn read(value: &Value) -> Option<Self> {
        parse_duration(value.as_str()?)
    }

    fn show(&self) -> String {
        format!("\"{}\"", format_duration(*self))
    }
}

impl Kind for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, e.g. \"0.0.0.0:8443\" or \"[::]:8443\"";

    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Kind for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(value: &Value) -> Option<Self> {
        String::read(value).filter(|path| !path.is_empty()).map(Self::from)
    }

    fn show(&self) -> String {
        self.display().to_string().show()
    }
}

impl Kind for Vec<String> {
    const EXPECTED: &'static str = "a list of texts, e.g. [\"a\", \"b\"]";

    /// A list, or in one text with commas, for variables.
    fn read(value: &Value) -> Option<Self> {
        if let Some(items) = value.as_array() {
            return items.iter().map(String::read).collect();
        }
        let text = value.as_str().filter(|text| !text.trim_start().starts_with('['))?;
        Some(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(Into::into)
                .collect(),
        )
    }

    fn show(&self) -> String {
        serde_json::json!(self).to_string().replace("\",\"", "\", \"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Kind>(value: impl Into<Value>) -> Option<T> {
        T::read(&value.into())
    }

    #[test]
    fn text_from_a_variable_is_as_good_as_the_type() {
        assert_eq!(read("64"), Some(64_usize));
        assert_eq!(read(64), Some(64_u16));
        assert_eq!(read::<u32>(-1), None);
        assert_eq!(read::<u16>("70000"), None);
        assert_eq!(read::<usize>(1.5), None);
        assert_eq!(read("true"), Some(true));
        assert_eq!(read::<bool>("yes"), None);
        assert_eq!(read("2s"), Some(Duration::from_secs(2)));
        assert_eq!(read::<Duration>(2), None);
        assert_eq!(read("1MiB"), Some(Bytes(1 << 20)));
        assert_eq!(read(1024), Some(Bytes(1024)));
        assert_eq!(read("a, b,"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read::<Vec<String>>("[a, b]"), None);
        assert_eq!(read(vec!["a"]), Some(vec!["a".to_owned()]));
        assert_eq!(read::<String>(12345), None);
    }

    #[test]
    fn what_is_shown_is_toml() {
        assert_eq!("a\"b\n".to_owned().show(), r#""a\"b\n""#);
        assert_eq!(Bytes(32 << 20).show(), "\"32MiB\"");
        assert_eq!(Bytes(1000).show(), "1000");
        assert_eq!(Duration::from_millis(250).show(), "\"250ms\"");
        assert_eq!(vec!["a".to_owned(), "b".to_owned()].show(), r#"["a", "b"]"#);
    }
}
