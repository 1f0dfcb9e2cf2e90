//! How a request or a call ended, as one word: every word there is. The same in logs, in metrics and on the wire.

use std::fmt;

macro_rules! words {
    ($($name:ident $word:literal, $meaning:literal;)+) => {
        /// How a request or a call ended. A closed set, because it is a label of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Word {
            $(#[doc = $meaning] $name,)+
        }

        impl Word {
            /// Every word.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word itself: lower case and `_`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// What it says, for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

words! {
    Ok "ok", "answered as the endpoint says";

    BadRequest "bad_request", "the request breaks the endpoint's rules, or HTTP's";
    Unauthorized "unauthorized", "no credentials, or bad ones";
    Forbidden "forbidden", "good credentials that may not do this";
    NoRoute "no_route", "no endpoint has this path";
    MethodNotAllowed "method_not_allowed", "the path has other methods";
    NotImplemented "not_implemented", "no path has this method";
    NotAcceptable "not_acceptable", "the caller accepts no JSON";
    RequestTimeout "request_timeout", "the body did not come in time";
    BodyTooLarge "body_too_large", "the body is larger than the endpoint or the bus allows";
    UriTooLong "uri_too_long", "the URI is too long";
    HeadersTooLarge "headers_too_large", "the headers are too large";
    UnsupportedMediaType "unsupported_media_type", "the body is no JSON";
    ExpectationFailed "expectation_failed", "an Expect that cannot be met";
    Misdirected "misdirected", "the request is for another host";
    RateLimited "rate_limited", "the caller is over its own rate";
    ClientGone "client_gone", "the client left before its answer";

    Shed "shed", "refused at once: too many wait, or are in flight, already";
    Busy "busy", "every worker was busy for as long as the request could wait";
    NoWorkers "no_workers", "no worker serves the queue";
    BusDown "bus_down", "not connected to NATS";
    BackendDown "backend_down", "the database cannot be reached";
    PoolTimeout "pool_timeout", "no database connection was free in time";
    Draining "draining", "this process is about to stop";
    NotExecuted "not_executed", "no worker took the request in time";
    Expired "expired", "the time was spent before a worker could start";
    NotGranted "not_granted", "the gateway denied the claim: another worker had it, or nobody waited";
    ClaimTimeout "claim_timeout", "the gateway did not answer the claim in time";

    NoRow "no_row", "the procedure found no record";
    SqlReturn "sql_return", "the procedure refused by its RETURN status";
    SqlUser "sql_user", "the procedure raised an error of its own";
    SqlConflict "sql_conflict", "a unique or foreign key is in the way";
    SqlBadValue "sql_bad_value", "a value did not fit the database";
    BadArgument "bad_argument", "an argument does not fit its SQL type";

    SqlDeadlock "sql_deadlock", "chosen as deadlock victim, also after the retries";
    SqlTimeout "sql_timeout", "the call ran past its deadline and was stopped";
    SqlLost "sql_lost", "the connection broke during the call";
    SqlMismatch "sql_mismatch", "catalogue and database disagree about the procedure";
    SqlPermission "sql_permission", "the login may not do what the procedure needs";
    SqlError "sql_error", "any other error of the database";
    SqlUndecodable "sql_undecodable", "the result cannot be read";
    AnswerTooLarge "answer_too_large", "the answer is larger than its limit";
    AnswerShape "answer_shape", "the result does not have the shape that the endpoint declares";

    AttemptTimeout "attempt_timeout", "nothing was heard of the call in time";
    SessionTimeout "session_timeout", "the procedure ran longer than the endpoint's session";
    OutcomeUnknown "outcome_unknown", "nobody knows whether a granted at-most-once request ran";
    Cancelled "cancelled", "the call was stopped: nobody waited for it any more";
    BadAnswer "bad_answer", "a worker's answer cannot be passed on";
    BadMessage "bad_message", "a worker got a message that does not keep to the protocol or the catalogue";
    Panic "panic", "a fault of this program, caught";
    Internal "internal", "a fault of this program or of its configuration";

    ServiceError "service_error", "an error of a NATS service (ADR-32)";
    Other "other", "a word of a foreign worker that is not in this table";
}

impl Word {
    /// The word that a foreign worker wrote: `Other` when it is none of ours, so that nobody out there can make labels.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::ALL.iter().copied().find(|word| word.as_str() == text).unwrap_or(Self::Other)
    }

    /// Whether somebody who runs the system should look: not what the caller or the procedure meant to happen.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        let is_callers = matches!(
            self,
            Self::BadRequest
                | Self::Unauthorized
                | Self::Forbidden
                | Self::NoRoute
                | Self::MethodNotAllowed
                | Self::NotAcceptable
                | Self::RequestTimeout
                | Self::BodyTooLarge
                | Self::UriTooLong
                | Self::HeadersTooLarge
                | Self::UnsupportedMediaType
                | Self::ExpectationFailed
                | Self::Misdirected
                | Self::RateLimited
                | Self::ClientGone
                | Self::Cancelled
                | Self::NotGranted
        );
        !self.is_complete() && !matches!(self, Self::BadArgument) && !is_callers
    }

    /// Whether the procedure ran to its end, and its answer is one that the endpoint describes.
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

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_itself_again_and_a_foreign_one_is_other() {
        for word in Word::ALL {
            assert_eq!(Word::of(word.as_str()), *word);
            let is_plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
            assert!(word.as_str().len() <= 32 && word.as_str().bytes().all(is_plain), "{word}");
        }
        assert_eq!(Word::of("brewing_coffee"), Word::Other);
    }
}
