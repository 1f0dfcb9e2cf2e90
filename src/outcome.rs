//! Outcomes: how requests and calls end. Logs, metrics and the protocol use the same names.

use std::fmt;

macro_rules! outcomes {
    ($($name:ident $text:literal, $meaning:literal;)+) => {
        /// The outcome of a request or a call: a closed set, because it is a metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $(#[doc = $meaning] $name,)+
        }

        impl Outcome {
            /// All outcomes.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the name, in lower case with `_`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Returns a description for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

outcomes! {
    Ok "ok", "answered as the endpoint defines";

    BadRequest "bad_request", "the request violates the rules of the endpoint or of HTTP";
    Unauthorized "unauthorized", "the credentials are missing or invalid";
    Forbidden "forbidden", "the credentials are valid, but the caller may not call this endpoint";
    NoRoute "no_route", "no endpoint has this path";
    MethodNotAllowed "method_not_allowed", "the path has no endpoint with this method";
    NotImplemented "not_implemented", "no endpoint can have this method";
    NotAcceptable "not_acceptable", "the caller accepts no available representation";
    PreconditionFailed "precondition_failed", "`If-Match` of a GET or HEAD does not match the answer";
    RequestTimeout "request_timeout", "the body did not arrive in time";
    BodyTooLarge "body_too_large", "the body is larger than the endpoint or NATS allows";
    UriTooLong "uri_too_long", "the URI is too long";
    HeadersTooLarge "headers_too_large", "the request has too many headers, or they are too large";
    UnsupportedMediaType "unsupported_media_type", "the body is not JSON";
    ExpectationFailed "expectation_failed", "the expectation in the Expect header cannot be met";
    Misdirected "misdirected", "the request is for another host";
    RateLimited "rate_limited", "the caller has exceeded its rate limit";
    TooManyInFlight "too_many_in_flight", "the caller has too many requests in flight";
    ClientGone "client_gone", "the client disconnected before the response";

    Overloaded "overloaded", "refused immediately, because too many requests are waiting or in flight";
    Busy "busy", "every worker was busy for as long as the request could wait";
    NoWorkers "no_workers", "no worker serves the queue";
    QueuePaused "queue_paused", "an operator has paused the queue";
    BusDown "bus_down", "the process is not connected to NATS";
    BackendDown "backend_down", "the database cannot be reached";
    PoolTimeout "pool_timeout", "no database connection was free in time";
    Draining "draining", "this process is about to stop";
    NotExecuted "not_executed", "no worker accepted the request in time";
    Expired "expired", "the request's time ran out before a worker could start it";
    NotGranted "not_granted", "the gateway denied the claim: another worker had the grant, or the session had ended";
    ClaimTimeout "claim_timeout", "the gateway did not answer the claim in time";

    NoRow "no_row", "the procedure found no record";
    SqlReturn "sql_return", "the procedure refused the request with its RETURN status";
    SqlUser "sql_user", "the procedure raised an error of its own";
    SqlConflict "sql_conflict", "a unique or foreign key constraint was violated";
    SqlBadValue "sql_bad_value", "a value did not fit the database";
    BadArgument "bad_argument", "an argument did not fit its SQL type";

    SqlDeadlock "sql_deadlock", "the call was chosen as a deadlock victim, even after the retries";
    SqlTimeout "sql_timeout", "the call ran past its deadline and was stopped";
    SqlLost "sql_lost", "the connection broke during the call";
    SqlMismatch "sql_mismatch", "the procedure in the database does not match the catalogue";
    SqlPermission "sql_permission", "the login lacks a permission that the procedure needs";
    SqlError "sql_error", "any other database error";
    SqlUndecodable "sql_undecodable", "the result cannot be read";
    AnswerTooLarge "answer_too_large", "the answer is larger than its limit";
    AnswerShape "answer_shape", "the result does not have the shape that the endpoint declares";

    AttemptTimeout "attempt_timeout", "no worker replied in time";
    SessionTimeout "session_timeout", "the procedure ran longer than the endpoint's session time";
    OutcomeUnknown "outcome_unknown", "it is unknown whether a granted at-most-once request was executed";
    Cancelled "cancelled", "the call was stopped because its session had ended";
    BadAnswer "bad_answer", "a worker's answer cannot be forwarded";
    BadMessage "bad_message", "a worker received a message that violates the protocol or the catalogue";
    Panic "panic", "a bug in fjord caused a panic, which was caught";
    Internal "internal", "an error in fjord or in its configuration";

    ServiceError "service_error", "an error from a NATS service (ADR-32)";
    Other "other", "a third-party worker reported an outcome that is not in this table";
}

impl Outcome {
    /// Parses an outcome. Unknown outcomes become `Other`, so that workers cannot create new metric labels.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::ALL.iter().copied().find(|word| word.as_str() == text).unwrap_or(Self::Other)
    }

    /// Returns whether operators should look into the outcome. Such an outcome is caused by neither the caller nor the
    /// procedure.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        let is_due_to_caller = matches!(
            self,
            Self::BadRequest
                | Self::Unauthorized
                | Self::Forbidden
                | Self::NoRoute
                | Self::MethodNotAllowed
                | Self::NotAcceptable
                | Self::PreconditionFailed
                | Self::RequestTimeout
                | Self::BodyTooLarge
                | Self::UriTooLong
                | Self::HeadersTooLarge
                | Self::UnsupportedMediaType
                | Self::ExpectationFailed
                | Self::Misdirected
                | Self::RateLimited
                | Self::TooManyInFlight
                | Self::ClientGone
                | Self::Cancelled
                | Self::NotGranted
        );
        !self.is_complete() && !matches!(self, Self::BadArgument) && !is_due_to_caller
    }

    /// Returns whether the call was not started or was stopped because it, or something that it waited for, took too long, or because
    /// its session had ended.
    #[must_use]
    pub const fn is_stalled(self) -> bool {
        matches!(
            self,
            Self::SqlTimeout
                | Self::PoolTimeout
                | Self::Expired
                | Self::NotGranted
                | Self::ClaimTimeout
                | Self::Cancelled
                | Self::AttemptTimeout
                | Self::SessionTimeout
        )
    }

    /// Returns whether a worker started the call and stopped it before its end.
    #[must_use]
    pub const fn is_stopped(self) -> bool {
        matches!(self, Self::SqlTimeout | Self::Cancelled)
    }

    /// Returns whether the procedure completed with an answer that the endpoint defines.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Ok
                | Self::NoRow
                | Self::SqlReturn
                | Self::SqlUser
                | Self::SqlConflict
                | Self::SqlBadValue
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_parsed_and_unknown_ones_are_other() {
        for word in Outcome::ALL {
            assert_eq!(Outcome::parse(word.as_str()), *word);
            let is_plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
            assert!(word.as_str().len() <= 32 && word.as_str().bytes().all(is_plain), "{word}");
        }
        assert_eq!(Outcome::parse("brewing_coffee"), Outcome::Other);
    }
}
