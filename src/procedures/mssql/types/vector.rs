//! Checks the arrays that are passed as `vector`.

use std::borrow::Cow;

use tiberius::ColumnData;

use crate::catalogue::ParameterValue;

/// The size of the header of a `vector`, which the system views include in its length.
const HEADER_BYTES: i16 = 8;
/// The size of a single-precision number, which is the default.
const SINGLE_BYTES: usize = 4;
/// The size of a half-precision number: `vector(3, float16)`.
const HALF_BYTES: usize = 2;
/// The size of the longest `vector`, which has 1,998 single-precision numbers.
const BYTES_MAX: usize = 1998 * SINGLE_BYTES;

/// The size of the numbers of a `vector`, in bytes. The views that report the precision of the numbers exist only since
/// SQL Server 2025, so the precision is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VectorSize(usize);

impl VectorSize {
    /// Returns the size for a length in the system views, or `None` if the length is not that of a vector.
    pub(super) fn from_length(length: i16) -> Option<Self> {
        let bytes = usize::try_from(length.checked_sub(HEADER_BYTES)?).ok()?;
        let is_possible = (1..=BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(HALF_BYTES);
        is_possible.then_some(Self(bytes))
    }

    /// Returns the numbers of dimensions that a vector of this size can have, in single and in half precision.
    fn dimensions(self) -> (Option<usize>, usize) {
        let singles = self.0.is_multiple_of(SINGLE_BYTES).then_some(self.0 / SINGLE_BYTES);
        (singles, self.0 / HALF_BYTES)
    }

    /// Checks that an array with `count` numbers can have this size. Returns the reason if not.
    fn check(self, count: usize) -> Result<(), String> {
        let (singles, halves) = self.dimensions();
        if singles == Some(count) || halves == count {
            return Ok(());
        }
        Err(match singles {
            Some(singles) => format!(
                "vector({singles}) has {singles} numbers, or {halves} in half precision, not {count}"
            ),
            None => format!("vector({halves}, float16) has {halves} numbers, not {count}"),
        })
    }
}

/// Encodes an array of finite single-precision numbers as JSON text. Returns `None` for any other value. Fails with
/// the reason if the array does not have as many numbers as the vector has dimensions.
pub(super) fn encode<'a>(
    value: &'a ParameterValue<'_>,
    size: Option<VectorSize>,
) -> Result<Option<ColumnData<'a>>, String> {
    let (ParameterValue::Text(text) | ParameterValue::Json(text)) = value else { return Ok(None) };
    let Ok(numbers) = serde_json::from_str::<Vec<f32>>(text) else { return Ok(None) };
    if !numbers.iter().all(|number| number.is_finite()) {
        return Ok(None);
    }
    size.map_or(Ok(()), |size| size.check(numbers.len()))?;
    Ok(Some(ColumnData::String(Some(Cow::Borrowed(text)))))
}

#[cfg(test)]
mod tests {
    use super::super::encode::encode;
    use super::super::{CodePage, SqlType, TypeDescription};
    use super::*;

    fn sized(length: i16) -> SqlType {
        let (name, code_page) = ("vector", CodePage::UNKNOWN);
        SqlType::new(TypeDescription { name, length, precision: 0, scale: 0, code_page })
    }

    /// `vector(3)` and `vector(6, float16)` have a length of 20, and `vector(3, float16)` has one of 14.
    #[test]
    fn an_array_has_as_many_numbers_as_the_vector() {
        let refusal = |length, text: &str| {
            let value = ParameterValue::Json(text.to_owned().into());
            encode(&value, &sized(length)).err().map(|error| error.0)
        };
        for (length, text) in [(20, "[1,2,3]"), (20, "[1,2,3,4,5,6]"), (14, "[1,2,3]")] {
            assert_eq!(refusal(length, text), None, "{length} {text}");
        }
        for (length, text, reason) in [
            (20, "[1,2]", "vector(3) has 3 numbers, or 6 in half precision, not 2"),
            (20, "[]", "vector(3) has 3 numbers, or 6 in half precision, not 0"),
            (20, "[1,2,3,4]", "vector(3) has 3 numbers, or 6 in half precision, not 4"),
            (14, "[1,2]", "vector(3, float16) has 3 numbers, not 2"),
            (20, "[1,null,3]", "expected an array of numbers for vector"),
        ] {
            assert_eq!(refusal(length, text).as_deref(), Some(reason), "{length} {text}");
        }
        for unusable in [-1, 0, 8, 11, i16::MIN] {
            assert_eq!(sized(unusable), SqlType::Vector(None), "{unusable}");
            assert_eq!(refusal(unusable, "[1,2]"), None, "{unusable}");
        }
    }
}
