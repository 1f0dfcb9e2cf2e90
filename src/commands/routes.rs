//! `fjord routes`: prints a line for each endpoint, followed by warnings.

use std::fmt::Write as _;
use std::sync::Arc;

use super::table;
use crate::catalogue::{Auth, AuthMethod, Catalogue, Endpoint, EndpointQueue};
use crate::units::format_duration;

/// The columns of the table.
const HEADINGS: [&str; 8] =
    ["ENDPOINT", "METHOD", "PATH", "QUEUE", "PROCEDURE", "EXECUTION", "TIMEOUT", "AUTH"];

/// Returns the output of the command.
#[must_use]
pub fn run(catalogue: &Catalogue) -> String {
    let rows = |endpoint: &Arc<Endpoint>| -> Vec<Vec<String>> {
        endpoint.queues.iter().map(|queue| row(endpoint, queue).to_vec()).collect()
    };
    let rows: Vec<Vec<String>> = catalogue.endpoints().iter().flat_map(rows).collect();
    let mut text = table::text(&HEADINGS, &rows);
    for warning in warnings(catalogue) {
        writeln!(text, "warning: {warning}").ok();
    }
    text
}

/// Returns a warning for each setting that is permitted but probably unintended.
#[must_use]
pub fn warnings(catalogue: &Catalogue) -> Vec<String> {
    catalogue
        .endpoints()
        .iter()
        .filter(|endpoint| endpoint.auth == Auth::Public && !endpoint.method.is_safe())
        .map(|endpoint| {
            format!("endpoint {:?} writes ({}) and is public", endpoint.id, endpoint.method)
        })
        .collect()
}

/// Returns the row for an endpoint and one of its queues. If the endpoint has several queues, the weight follows the
/// queue name.
fn row(endpoint: &Endpoint, queue: &EndpointQueue) -> [String; HEADINGS.len()] {
    let weight =
        if endpoint.queues.has_several() { format!("={}", queue.weight) } else { String::new() };
    let procedure = queue.procedure.as_ref().map_or_else(
        || format!("({})", endpoint.handler),
        |procedure| procedure.as_str().to_owned(),
    );
    [
        endpoint.id.to_string(),
        endpoint.method.to_string(),
        endpoint.path.to_string(),
        format!("{}{weight}", queue.name),
        procedure,
        endpoint.execution.as_str().to_owned(),
        format_duration(endpoint.timeout),
        callers(&endpoint.auth),
    ]
}

fn callers(auth: &Auth) -> String {
    let Auth::Required { methods, scopes, issuers } = auth else {
        return "public".to_owned();
    };
    let method = |method: &AuthMethod| match method {
        AuthMethod::Jwt if issuers.is_empty() => "jwt".to_owned(),
        AuthMethod::Jwt => format!("jwt from {}", issuers.join(" or ")),
        AuthMethod::ApiKey => "api-key".to_owned(),
        AuthMethod::ClientCertificate => "certificate".to_owned(),
    };
    let methods: Vec<String> = methods.iter().map(method).collect();
    let methods = methods.join("|");
    if scopes.is_empty() { methods } else { format!("{methods} with {}", scopes.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture;

    #[test]
    fn each_endpoint_has_a_line() {
        let text = run(&fixture::catalogue(
            r#""get": {"route":"GET /v1/{id}","procedure":"a.b","auth":{"methods":["jwt","api-key"],"scopes":["r"]},
                       "parameters":{"id":{"in":"path","type":"int32"}},"timeout":"90s"},
               "echo": {"route":"POST /echo","handler":"echo","auth":"public","queue":"q"},
               "two": {"route":"GET /two","procedure":"a.b","auth":"public",
                       "queues":{"one":95,"other":{"weight":5,"procedure":"a.c"}}}"#,
        ));
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], HEADINGS);
        assert_eq!(lines[1][..7], ["get", "GET", "/v1/{id}", "get", "a.b", "at-least-once", "90s"]);
        assert_eq!(lines[1][7..], ["jwt|api-key", "with", "r"]);
        assert_eq!(
            lines[2],
            ["echo", "POST", "/echo", "q", "(echo)", "at-most-once", "5s", "public"]
        );
        let two = |queue, procedure| {
            ["two", "GET", "/two", queue, procedure, "at-least-once", "5s", "public"]
        };
        assert_eq!(lines[3..5], [two("one=95", "a.b"), two("other=5", "a.c")]);
        assert!(text.ends_with("warning: endpoint \"echo\" writes (POST) and is public\n"));
    }
}
