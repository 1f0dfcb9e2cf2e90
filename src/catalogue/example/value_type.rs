//! Checks whether a JSON value in an answer has a given catalogue type.

use crate::catalogue::exact_json::ExactJson;
use crate::catalogue::parameter::ParameterType;
use crate::catalogue::validate::scalar;

/// Returns whether a value has a type. Every value has the type `json`, and every array the type `table`.
#[must_use]
pub fn has_type(kind: ParameterType, value: &ExactJson) -> bool {
    match (kind, value) {
        (ParameterType::Json, _)
        | (ParameterType::String, ExactJson::Text(_))
        | (ParameterType::Boolean, ExactJson::Boolean(_))
        | (ParameterType::Number | ParameterType::Decimal, ExactJson::Number(_))
        | (ParameterType::Table, ExactJson::Array(_)) => true,
        (ParameterType::Int32, ExactJson::Number(text)) => text.parse::<i32>().is_ok(),
        (ParameterType::Int64, ExactJson::Number(text)) => text.parse::<i64>().is_ok(),
        (ParameterType::Uuid, ExactJson::Text(text)) => scalar::uuid(text).is_some(),
        (ParameterType::Date, ExactJson::Text(text)) => scalar::is_date(text),
        (ParameterType::Time, ExactJson::Text(text)) => scalar::is_time(text),
        (ParameterType::Datetime, ExactJson::Text(text)) => scalar::datetime(text).is_some(),
        (ParameterType::Binary, ExactJson::Text(text)) => scalar::binary(text).is_some(),
        _ => false,
    }
}

/// Returns a sample value of a type, for the documentation.
#[must_use]
pub fn sample(kind: ParameterType) -> ExactJson {
    match kind {
        ParameterType::String => ExactJson::Text("text".into()),
        ParameterType::Int32 | ParameterType::Int64 => ExactJson::Number("1".into()),
        ParameterType::Number => ExactJson::Number("1.5".into()),
        ParameterType::Decimal => ExactJson::Number("12.5".into()),
        ParameterType::Boolean => ExactJson::Boolean(true),
        ParameterType::Uuid => ExactJson::Text("3f2504e0-4f89-41d3-9a0c-0305e82c3301".into()),
        ParameterType::Date => ExactJson::Text("2026-01-31".into()),
        ParameterType::Time => ExactJson::Text("12:30:00".into()),
        ParameterType::Datetime => ExactJson::Text("2026-01-31T12:30:00Z".into()),
        ParameterType::Binary => ExactJson::Text("SGVsbG8=".into()),
        ParameterType::Json => ExactJson::Object(Vec::new()),
        ParameterType::Table => ExactJson::Array(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_types_of_its_form() {
        use ParameterType as T;
        let all = [
            T::String,
            T::Int32,
            T::Int64,
            T::Number,
            T::Decimal,
            T::Boolean,
            T::Uuid,
            T::Date,
            T::Time,
            T::Datetime,
            T::Binary,
        ];
        for (text, expected) in [
            ("null", &[][..]),
            ("true", &[T::Boolean]),
            ("7", &[T::Int32, T::Int64, T::Number, T::Decimal]),
            ("2147483648", &[T::Int64, T::Number, T::Decimal]),
            ("7.0", &[T::Number, T::Decimal]),
            ("\"a b\"", &[T::String]),
            ("\"2026-02-28\"", &[T::String, T::Date]),
            ("\"2026-02-30\"", &[T::String]),
            ("\"10:00:00\"", &[T::String, T::Time]),
            ("\"2026-02-28T10:00:00Z\"", &[T::String, T::Datetime]),
            ("\"3f2504e0-4f89-41d3-9a0c-0305e82c3301\"", &[T::String, T::Uuid]),
            ("\"AAAA\"", &[T::String, T::Binary]),
            ("[]", &[]),
        ] {
            let value = ExactJson::parse(text).unwrap();
            let found: Vec<T> = all.into_iter().filter(|kind| has_type(*kind, &value)).collect();
            assert_eq!(found, expected, "{text}");
            assert!(has_type(T::Json, &value));
        }
        for kind in all.into_iter().chain([T::Json, T::Table]) {
            assert!(has_type(kind, &sample(kind)), "{kind:?}");
        }
    }
}
