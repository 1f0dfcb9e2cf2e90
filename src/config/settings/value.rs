//! The types of values that settings can have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use crate::units::{
    BYTES_EXPECTED, DURATION_EXPECTED, format_duration, parse_bytes, parse_duration,
};

/// A type of value that can be read from the settings and shown by `fjord config`.
pub(crate) trait SettingValue: Sized {
    /// The text of the error about a value of another type.
    const EXPECTED: &'static str;
    /// Converts a value. Text is accepted for every type, because variables and flags contain text.
    fn from_value(value: &Value) -> Option<Self>;
    /// Returns the value as TOML.
    fn to_toml(&self) -> String;
}

/// Describes a value's type but not the value itself, which may be a misplaced secret.
pub(super) fn description(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "another string",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

impl SettingValue for String {
    const EXPECTED: &'static str = "a string in quotes";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().filter(|text| !text.contains('\0')).map(ToOwned::to_owned)
    }

    fn to_toml(&self) -> String {
        // Every escape sequence that `serde_json` writes is also valid in TOML. TOML also requires
        // U+007F to be escaped. `serde_json` does not do this.
        serde_json::Value::from(self.as_str()).to_string().replace('\u{7f}', "\\u007f")
    }
}

impl SettingValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: &Value) -> Option<Self> {
        value.to_bool().or_else(|| value.as_str()?.parse().ok())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_number {
    ($($number:ty),+) => {$(
        impl SettingValue for $number {
            const EXPECTED: &'static str = "a whole number";

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Num(_, number) => {
                        let signed = number.to_i128().and_then(|n| n.try_into().ok());
                        signed.or_else(|| number.to_u128()?.try_into().ok())
                    }
                    other => other.as_str()?.parse().ok(),
                }
            }

            fn to_toml(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
whole_number!(u16, u32, u64, usize);

impl SettingValue for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_value(value: &Value) -> Option<Self> {
        let number = match value {
            Value::Num(_, number) => {
                number.to_f64().or_else(|| u32::try_from(number.to_i128()?).ok().map(Self::from))
            }
            other => other.as_str()?.parse().ok(),
        };
        number.filter(|number| number.is_finite())
    }

    fn to_toml(&self) -> String {
        format!("{self:?}")
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct ByteCount(pub(crate) usize);

impl SettingValue for ByteCount {
    const EXPECTED: &'static str = BYTES_EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        usize::from_value(value).or_else(|| parse_bytes(value.as_str()?)).map(Self)
    }

    fn to_toml(&self) -> String {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.into_iter().find(|(size, _)| self.0 > 0 && self.0.is_multiple_of(*size));
        unit.map_or_else(
            || self.0.to_string(),
            |(size, name)| format!("\"{}{name}\"", self.0 / size),
        )
    }
}

impl SettingValue for Duration {
    const EXPECTED: &'static str = DURATION_EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        parse_duration(value.as_str()?)
    }

    fn to_toml(&self) -> String {
        format!("\"{}\"", format_duration(*self))
    }
}

impl SettingValue for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, e.g. \"0.0.0.0:8443\" or \"[::]:8443\"";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }

    fn to_toml(&self) -> String {
        format!("\"{self}\"")
    }
}

impl SettingValue for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value).filter(|path| !path.is_empty()).map(Self::from)
    }

    fn to_toml(&self) -> String {
        self.display().to_string().to_toml()
    }
}

impl SettingValue for Vec<String> {
    const EXPECTED: &'static str = "a list of strings, e.g. [\"a\", \"b\"]";

    /// Converts a list or, for environment variables, comma-separated text.
    fn from_value(value: &Value) -> Option<Self> {
        if let Some(items) = value.as_array() {
            return items.iter().map(String::from_value).collect();
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

    fn to_toml(&self) -> String {
        serde_json::json!(self).to_string().replace("\",\"", "\", \"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: SettingValue>(value: impl Into<Value>) -> Option<T> {
        T::from_value(&value.into())
    }

    #[test]
    fn text_is_converted_to_every_type() {
        assert_eq!(read("64"), Some(64_usize));
        assert_eq!(read(64), Some(64_u16));
        assert_eq!(read::<u32>(-1), None);
        assert_eq!(read::<u16>("70000"), None);
        assert_eq!(read::<usize>(1.5), None);
        assert_eq!(read("true"), Some(true));
        assert_eq!(read::<bool>("yes"), None);
        assert_eq!(read("2s"), Some(Duration::from_secs(2)));
        assert_eq!(read::<Duration>(2), None);
        assert_eq!(read("1MiB"), Some(ByteCount(1 << 20)));
        assert_eq!(read(1024), Some(ByteCount(1024)));
        assert_eq!(read("a, b,"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read::<Vec<String>>("[a, b]"), None);
        assert_eq!(read(vec!["a"]), Some(vec!["a".to_owned()]));
        assert_eq!(read::<String>(12345), None);
    }

    #[test]
    fn values_are_formatted_as_toml() {
        assert_eq!("a\"b\n".to_owned().to_toml(), r#""a\"b\n""#);
        assert_eq!("\u{7f}".to_owned().to_toml(), r#""\u007f""#);
        assert_eq!(ByteCount(32 << 20).to_toml(), "\"32MiB\"");
        assert_eq!(ByteCount(1000).to_toml(), "1000");
        assert_eq!(Duration::from_millis(250).to_toml(), "\"250ms\"");
        assert_eq!(vec!["a".to_owned(), "b".to_owned()].to_toml(), r#"["a", "b"]"#);
    }
}
