//! One REST operation, checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::cors::CorsRules;
use super::names::{EndpointId, ProcedureName, QueueName};
use super::parameter::Parameter;

/// One REST operation: its route, what runs, and every promise about it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its key in the catalogue.
    pub id: EndpointId,
    /// The HTTP method.
    pub method: Method,
    /// The path with its parameters in braces, e.g. `/v1/horses/{ueln}`.
    pub path: Arc<str>,
    /// One sentence about it.
    pub summary: Option<String>,
    /// More about it, for the generated documentation.
    pub description: Option<String>,
    /// Groups of the generated documentation.
    pub tags: Vec<String>,
    /// Whether callers should stop using it.
    pub deprecated: bool,
    /// The queue that serves it; by default its own id.
    pub queue: QueueName,
    /// The name of the worker's handler; `procedure` unless the catalogue says otherwise.
    pub handler: Arc<str>,
    /// The procedure, for handlers that run one.
    pub procedure: Option<ProcedureName>,
    /// What a caller sends.
    pub parameters: Arc<[Parameter]>,
    /// The shape of the answer.
    pub result: ResultKind,
    /// OUTPUT parameters that join a `row` or `value` answer.
    pub outputs: Vec<String>,
    /// How the procedure's own outcomes become statuses.
    pub status: StatusMap,
    /// Whether a second execution would do harm.
    pub execution: Execution,
    /// Whether the procedure is called in a transaction of the worker's own.
    pub transaction: bool,
    /// Whether a caller may have that transaction rolled back at its end.
    pub dry_run: bool,
    /// How long one attempt may take while no worker reports progress.
    pub timeout: Duration,
    /// The longest a client is kept waiting while a worker reports progress; at least `timeout`.
    pub session: Duration,
    /// How often the request is sent at most when attempts go unanswered.
    pub attempts: u32,
    /// What happens to a running call when its client leaves.
    pub on_disconnect: OnDisconnect,
    /// Who may call it.
    pub auth: Auth,
    /// Largest body in bytes.
    pub body_bytes_max: usize,
    /// The caller's own rate, when one is set.
    pub rate_limit: Option<RateLimit>,
    /// The `Cache-Control` of a good answer; `no-store` when absent.
    pub cache_control: Option<String>,
    /// Which web pages of other origins may call it, when any may.
    pub cors: Option<Arc<CorsRules>>,
}

impl Endpoint {
    /// Whether any parameter is a member of a JSON body.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        self.parameters.iter().any(|p| p.place == super::Place::Body)
    }

    /// Whether a large answer may begin before its procedure has ended: it has no fixed size, and its status does not
    /// depend on how the procedure ends.
    #[must_use]
    pub fn may_stream(&self) -> bool {
        use ResultKind::{Full, Json, Rows, Sets};
        self.status.returns.is_empty() && matches!(self.result, Rows | Sets | Json | Full)
    }
}

/// Whether a request may be executed again when nobody knows whether it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// A second execution does no harm.
    AtLeastOnce,
    /// Never executed twice: a worker asks for the gateway's grant first.
    AtMostOnce,
}

impl Execution {
    /// The word on the wire and in the catalogue.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::AtMostOnce => "at-most-once",
        }
    }
}

/// What happens to a running at-most-once call when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It runs to its end.
    Finish,
    /// It is cancelled.
    Cancel,
}

/// The shape of an endpoint's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// An array of objects.
    Rows,
    /// One object; 404 when there is no row.
    Row,
    /// The first column of the first row.
    Value,
    /// An array of arrays of objects.
    Sets,
    /// The JSON text that the procedure returns, joined over its rows and passed through.
    Json,
    /// Nothing: 204.
    None,
    /// `{"sets": …, "outputs": …, "return": …}`.
    Full,
}

/// How the procedure's outcomes become statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusMap {
    /// RETURN status to HTTP status.
    pub returns: BTreeMap<i32, u16>,
    /// Error number to HTTP status.
    pub errors: BTreeMap<u32, u16>,
}

/// Who may call an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody.
    Public,
    /// Callers who prove who they are by one of these methods and have every one of the scopes.
    Required {
        /// The accepted methods.
        methods: Vec<AuthMethod>,
        /// Scopes that the caller needs, all of them.
        scopes: Vec<String>,
        /// The issuers whose tokens are accepted, by their names in the configuration; none: every one.
        issuers: Vec<String>,
    },
}

/// A way for a caller to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// A JWT as bearer token.
    Jwt,
    /// An API key.
    ApiKey,
    /// A TLS client certificate.
    ClientCertificate,
}

impl AuthMethod {
    /// The word in the catalogue and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::ApiKey => "api-key",
            Self::ClientCertificate => "certificate",
        }
    }
}

/// So many requests in a window, for each caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in a window.
    pub requests: u32,
    /// The window.
    pub window: Duration,
}
