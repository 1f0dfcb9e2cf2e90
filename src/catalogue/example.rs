//! Examples of an endpoint: requests with the answers that they should get. `fjord test` runs them, and the generated
//! documentation shows them.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::exact_json::ExactJson;
use crate::problem::ProblemKind;

pub mod comparison;
pub mod matcher;
pub mod pairing;
pub mod value_type;

pub use comparison::Difference;
pub use matcher::Matcher;

/// The maximum number of examples for an endpoint.
pub const EXAMPLES_MAX: usize = 64;
/// The maximum size of an example's JSON in bytes.
pub const EXAMPLE_BYTES_MAX: usize = 64 * 1024;
/// The maximum total size of an endpoint's examples in bytes.
pub const EXAMPLES_BYTES_MAX: usize = 256 * 1024;
/// The problems that an example can expect, besides `REFUSED`.
pub const PROBLEMS: [ProblemKind; 5] = [
    ProblemKind::InvalidRequest,
    ProblemKind::NoRow,
    ProblemKind::Conflict,
    ProblemKind::PreconditionFailed,
    ProblemKind::NotAcceptable,
];
/// The problem that reports a procedure's own refusal. Its status varies.
pub const REFUSED: &str = "refused";
/// The principal of calls that `fjord test` makes without a gateway, if the example names none.
pub const PRINCIPAL_DEFAULT: &str = "example";

/// A request and the answer that it should get.
#[derive(Clone, Debug)]
pub struct Example {
    /// The name, which is unique within the endpoint.
    pub name: Arc<str>,
    /// One sentence for the generated documentation.
    pub summary: Option<String>,
    /// The values of parameters in the path, the query, headers and the body, by name.
    pub parameters: Vec<(Arc<str>, ExactJson)>,
    /// Further request headers, such as `Prefer` and `Accept`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The caller, if the example runs without a gateway.
    pub caller: ExampleCaller,
    /// The expected answer, or `None` if it has not been recorded yet.
    pub answer: Option<ExampleAnswer>,
}

/// The caller of an example that runs without a gateway and therefore without credentials.
#[derive(Clone, Debug, Default)]
pub struct ExampleCaller {
    /// The name of the caller.
    pub principal: Option<Arc<str>>,
    /// The claims for parameters with `in: claim`.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// The expected answer of an example.
#[derive(Clone, Debug)]
pub struct ExampleAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The last part of the problem's type URI, if the answer is a problem document.
    pub problem: Option<Arc<str>>,
    /// The response headers, with their names as written in the catalogue. Each value is a string or a matcher.
    pub headers: Vec<(Arc<str>, ExactJson)>,
    /// The body, which can contain matchers. For a problem document, it contains only the members to compare. If the
    /// answer is not JSON, it contains the answer's text as a string.
    pub body: Option<ExactJson>,
}

impl Example {
    /// Returns the value of a request header.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.to_str().ok())
    }

    /// Returns the value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&ExactJson> {
        self.parameters.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Returns whether the request should be refused because it breaks the rules of the parameters.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        let problem = self.answer.as_ref().and_then(|answer| answer.problem.as_deref());
        problem == Some(ProblemKind::InvalidRequest.definition().slug)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_slug_of_its_problem() {
        assert_eq!(ProblemKind::ProcedureError(422).definition().slug, REFUSED);
    }
}
