//! The values that a call sets in the session context, before the procedure runs.
//!
//! Usually, the values are sent in the call's message. The server then executes the call even if it
//! has refused a value. Therefore, a separate message sets the values first in two cases: if the
//! endpoint declares values, because policies may depend on them, and if the server has not
//! confirmed that the login may set values.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tiberius::Query;
use tiberius::error::Error;

use crate::catalogue::ParameterValue;
use crate::catalogue::violations::VIOLATIONS_MAX;
use crate::config::procedures::SessionKey;
use crate::procedures::mssql::error_numbers;
use crate::procedures::mssql::metadata::{SessionContextKind, unsupported_session_context};
use crate::procedures::mssql::pools::TdsConnection;
use crate::procedures::mssql::tds::{
    PrecedingCalls, SESSION_VALUE_UNITS_MAX, SessionValue, TdsClient, set_session_values,
};
use crate::procedures::{BackendError, BackendErrorKind, BadArgument, Call};

/// Sets a value that no procedure reads, to find out whether the login may set values. The reset
/// before the next call removes the value.
const PROBE: &str = "EXEC sp_set_session_context @key = N'fjord_probe', @value = NULL";

/// Whether the login may set values in the session context.
#[derive(Debug, Default)]
pub(crate) struct SessionContextPermission {
    /// Whether the server has accepted a value since it last refused one.
    is_confirmed: AtomicBool,
    is_denied: AtomicBool,
}

impl SessionContextPermission {
    /// Returns whether the server has denied the login the permission.
    pub(crate) fn is_denied(&self) -> bool {
        self.is_denied.load(Ordering::Relaxed)
    }

    /// Finds out whether the login may set values, unless this is already known. If this future is
    /// dropped, the connection must be discarded.
    pub(crate) async fn probe(&self, client: &mut TdsClient) -> Result<(), Error> {
        if self.is_confirmed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let answer = async { client.simple_query(PROBE).await?.into_results().await }.await;
        match answer {
            Ok(_) => self.record_accepted(),
            Err(Error::Server(token)) if !error_numbers::is_fatal(&token) => {
                let is_denied = error_numbers::denies_permission(&token);
                self.is_denied.store(is_denied, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Records that the server accepted the values of a call.
    pub(super) fn record_accepted(&self) {
        self.is_confirmed.store(true, Ordering::Relaxed);
        self.is_denied.store(false, Ordering::Relaxed);
    }

    /// Records that the server refused a value.
    pub(super) fn record_refused(&self) {
        self.is_confirmed.store(false, Ordering::Relaxed);
    }

    /// Returns whether the values of a call can be sent in the call's message.
    pub(super) fn permits_joining(&self, call: &Call<'_>) -> bool {
        call.session.values.is_empty() && self.is_confirmed.load(Ordering::Relaxed)
    }
}

/// The values that a call sets.
#[derive(Debug, Default)]
pub(super) struct SessionValues<'a> {
    values: Vec<SessionValue<'a>>,
    is_read_only: bool,
}

impl<'a> SessionValues<'a> {
    /// Returns the values of a call. If the server keeps the values of earlier calls on this
    /// connection, they are removed or replaced.
    ///
    /// # Errors
    /// Returns `Arguments` with all values that are too long, or `Mismatch` if the server has no session
    /// context and the endpoint has a value for it.
    pub(super) fn new(
        call: &Call<'a>,
        keys: &[SessionKey],
        kind: SessionContextKind,
        connection: &TdsConnection,
    ) -> Result<Self, BackendError> {
        let is_kept = match kind {
            SessionContextKind::Missing if call.session.values.is_empty() => {
                return Ok(Self::default());
            }
            SessionContextKind::Missing => {
                let names: Vec<&str> = call.session.values.iter().map(|one| &*one.name).collect();
                let difference = unsupported_session_context(&names);
                return Err(BackendError::mismatch(call.procedure.as_str(), difference));
            }
            SessionContextKind::Reset => false,
            SessionContextKind::Kept => true,
        };
        let mut values = values(call, keys, is_kept);
        if is_kept {
            // The earlier keys are removed first, because Babelfish ignores case and trailing
            // blanks in keys.
            let is_set = |key: &Arc<str>| values.iter().any(|one| one.key == *key);
            let earlier = connection.session_keys.iter().filter(|key| !is_set(key));
            let removed = earlier.map(|key| SessionValue { key: Arc::clone(key), value: None });
            let removed: Vec<_> = removed.collect();
            values.splice(0..0, removed);
        }
        let is_long = |one: &&SessionValue<'_>| {
            let length = one.value.as_ref().map(|value| value.encode_utf16().count());
            length > Some(SESSION_VALUE_UNITS_MAX)
        };
        let long = values.iter().filter(is_long).take(VIOLATIONS_MAX);
        let long: Vec<BadArgument> = long.map(|one| too_long(&one.key)).collect();
        if long.is_empty() {
            Ok(Self { values, is_read_only: !is_kept })
        } else {
            Err(BackendErrorKind::Arguments(long).into())
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// If the reset of the connection keeps the values, records which of them a later call must
    /// remove. Must be called before anything is sent, because the call may be stopped at any time.
    pub(super) fn record(&self, connection: &mut TdsConnection) {
        if !self.is_read_only {
            connection.session_keys = self.values.iter().map(|one| Arc::clone(&one.key)).collect();
        }
    }

    /// Encodes calls that set the values, to be sent in front of the call.
    pub(super) fn preceding(&self) -> Result<PrecedingCalls, BackendError> {
        set_session_values(&self.values, self.is_read_only)
            .map_err(|key| BackendErrorKind::Arguments(vec![too_long(&key)]).into())
    }

    /// Sets the values in a separate message. If this future is dropped, the connection must be
    /// discarded.
    ///
    /// Each value is assigned to a variable of the type `nvarchar(4000)`, because the driver sends
    /// text of more than 4,000 bytes in UTF-8 as `nvarchar(max)`. SQL Server does not convert
    /// `nvarchar(max)` to `sql_variant`, the type of the procedure's parameter.
    pub(super) async fn set(&self, client: &mut TdsClient) -> Result<(), Error> {
        let mut text = String::new();
        let mut parameters: Vec<&str> = Vec::new();
        for SessionValue { key, value } in &self.values {
            let separator = if text.is_empty() { "" } else { "; IF @@ERROR <> 0 RETURN; " };
            parameters.push(key);
            let at = parameters.len();
            let (declared, value) = match value {
                Some(value) => {
                    parameters.push(value);
                    let (length, from) = (SESSION_VALUE_UNITS_MAX, parameters.len());
                    let declared = format!("DECLARE @v{at} nvarchar({length}) = @P{from}; ");
                    (declared, format!("@v{at}"))
                }
                None => (String::new(), "NULL".to_owned()),
            };
            let read_only = if self.is_read_only { ", @read_only = 1" } else { "" };
            let written = write!(
                text,
                "{separator}{declared}EXEC sp_set_session_context @key = @P{at}, @value = {value}{read_only}"
            );
            debug_assert!(written.is_ok(), "writing to a string does not fail");
        }
        let mut query = Query::new(text);
        for parameter in parameters {
            query.bind(parameter);
        }
        query.query(client).await?.into_results().await.map(drop)
    }
}

/// Returns the values of a call. With `with_absent`, absent values are included too, so that values
/// that a procedure may have set are removed.
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
        // The format is that of JSON: a large number has an exponent.
        ParameterValue::Number(number) => Cow::Owned(format!("{number:?}")),
        ParameterValue::Decimal(text) | ParameterValue::Text(text) | ParameterValue::Json(text) => {
            Cow::Borrowed(text)
        }
    })
}

fn too_long(key: &str) -> BadArgument {
    let reason = "a value of the session context with at most 4,000 characters (UTF-16)";
    BadArgument { argument: key.to_owned(), cell: None, reason: reason.to_owned() }
}
