//! Opens the connections to SQL Server that the driver uses, and tracks the bytes sent and received.

mod access_tokens;
mod addresses;
mod batch_rewrite;
mod browser;
mod collation;
mod dial;
mod joined_calls;
mod login_password;
mod prelogin;
mod reply;
mod socket;
mod stream;
mod stream_state;
mod token_source;
mod tokens;
mod value_format;

pub(super) use batch_rewrite::BatchRewrite;
pub(super) use collation::{Utf8Column, may_be_utf8};
pub(super) use dial::{ConnectError, TdsClient, TdsConnector};
pub(super) use joined_calls::{
    PrecedingCalls, SESSION_VALUE_UNITS_MAX, SessionValue, set_session_values,
};
pub(super) use reply::TransactionReport;
pub(super) use stream_state::{NotSentProof, SentProof, StreamState};
