//! The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header-07).

use http::{HeaderMap, HeaderName};

use crate::problem::Violation;

const NAME: HeaderName = HeaderName::from_static("idempotency-key");
/// The maximum length of a key, in bytes.
const BYTES_MAX: usize = 128;

/// Returns the key that identifies repetitions of a request. It is either a quoted string, as in the draft, or unquoted, as
/// many clients send it.
///
/// # Errors
/// `Violation` when there are several keys, or the key is empty, too long or not visible ASCII.
pub fn from_headers(headers: &HeaderMap) -> Result<Option<String>, Violation> {
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let violation =
        |detail: &str| Err(Violation::in_parameter("header", "Idempotency-Key", detail));
    if values.next().is_some() {
        return violation("expected at most one key");
    }
    let bare = value.to_str().unwrap_or_default().trim();
    let key = bare.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(bare);
    let is_valid = (1..=BYTES_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if is_valid {
        Ok(Some(key.to_owned()))
    } else {
        violation("expected 1 to 128 visible ASCII characters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same_key_and_others_are_rejected() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(NAME, value.parse().unwrap());
            }
            from_headers(&headers)
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["\"8e03978e\""]), Ok(Some("8e03978e".to_owned())));
        assert_eq!(read(&["8e03978e"]), Ok(Some("8e03978e".to_owned())));
        for bad in [&["a", "b"][..], &[""], &["a b"], &["\"a\"b\""], &[&"x".repeat(129)]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
