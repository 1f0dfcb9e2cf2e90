//! The values that a call sets in the session context, before the procedure runs.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::catalogue::ParameterValue;
use crate::config::procedures::SessionKey;
use crate::procedures::mssql::metadata::SessionContextKind;
use crate::procedures::mssql::tds::{SessionValue, set_session_values};
use crate::procedures::{BackendError, BackendErrorKind, BadArgument, Call};

/// Encodes the calls that set the session context of a call. `earlier` has the keys that calls have
/// set on the connection before, if the server keeps them; they are removed or replaced.
///
/// # Errors
/// `Arguments` if a value is too long, or `Mismatch` if the server has no session context and the
/// endpoint has a value for it.
pub(super) fn encode(
    call: &Call<'_>,
    keys: &[SessionKey],
    kind: SessionContextKind,
    earlier: &mut Vec<Arc<str>>,
) -> Result<Bytes, BackendError> {
    let is_kept = match kind {
        SessionContextKind::Missing if call.session.values.is_empty() => return Ok(Bytes::new()),
        SessionContextKind::Missing => {
            let difference = "the endpoint sets values in the session context, which SQL Server \
                has since version 2016";
            return Err(BackendError::mismatch(call.procedure.as_str(), difference.to_owned()));
        }
        SessionContextKind::Reset => false,
        SessionContextKind::Kept => true,
    };
    let mut values = values(call, keys, is_kept);
    if is_kept {
        // Removed first, because Babelfish ignores case and trailing blanks in keys.
        let is_set = |key: &Arc<str>| values.iter().any(|one| one.key == *key);
        let removed: Vec<_> = earlier
            .iter()
            .filter(|key| !is_set(key))
            .map(|key| SessionValue { key: Arc::clone(key), value: None })
            .collect();
        values.splice(0..0, removed);
    }
    let encoded = set_session_values(&values, !is_kept).map_err(|key| too_long(&key))?;
    if is_kept {
        // Recorded before anything is sent, because the call may be stopped at any time.
        *earlier = values.into_iter().map(|one| one.key).collect();
    }
    Ok(encoded)
}

/// Returns the values of a call. Those that are absent are included `with_absent`, to remove what a
/// procedure may have set.
fn values<'a>(call: &Call<'a>, keys: &[SessionKey], with_absent: bool) -> Vec<SessionValue<'a>> {
    let session = &call.session;
    let is_sent = |value: &Option<_>| with_absent || value.is_some();
    let facts = keys.iter().filter_map(|key| {
        let value = match key {
            SessionKey::RequestId => session.request_id,
            SessionKey::TraceId => session.trace_id,
            SessionKey::Endpoint => session.endpoint,
            SessionKey::Principal => session.principal,
        };
        let value = value.map(Cow::Borrowed);
        is_sent(&value).then(|| SessionValue { key: key.as_str().into(), value })
    });
    let parameters = session.values.iter().filter_map(|one| {
        let value = text(&one.value);
        is_sent(&value).then(|| SessionValue { key: Arc::clone(&one.name), value })
    });
    facts.chain(parameters).collect()
}

/// Returns a value as text, or `None` for NULL. The catalogue permits neither bytes nor tables.
fn text<'a>(value: &'a ParameterValue<'_>) -> Option<Cow<'a, str>> {
    Some(match value {
        ParameterValue::Null | ParameterValue::Binary(_) | ParameterValue::Table(_) => return None,
        ParameterValue::Boolean(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        ParameterValue::Integer(number) => Cow::Owned(number.to_string()),
        // As in JSON: a large number has an exponent.
        ParameterValue::Number(number) => Cow::Owned(format!("{number:?}")),
        ParameterValue::Decimal(text) | ParameterValue::Text(text) | ParameterValue::Json(text) => {
            Cow::Borrowed(text)
        }
    })
}

fn too_long(key: &str) -> BackendError {
    let reason = "a value of the session context with at most 4,000 characters (UTF-16)";
    let argument = BadArgument { argument: key.to_owned(), cell: None, reason: reason.to_owned() };
    BackendErrorKind::Arguments(vec![argument]).into()
}
