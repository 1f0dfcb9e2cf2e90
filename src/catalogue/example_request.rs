//! Builds the HTTP request of an example.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::endpoint::Endpoint;
use super::exact_json::ExactJson;
use super::example::Example;
use super::parameter::{Parameter, ParameterSource, ParameterType};
use super::representation::Representation;
use super::route::{self, Segment};
use super::uri;

/// The HTTP request of an example, without an address and credentials.
#[derive(Clone, Debug)]
pub struct ExampleRequest {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or `None` if the endpoint takes none.
    pub body: Option<String>,
}

impl ExampleRequest {
    /// Builds the request for an example.
    #[must_use]
    pub fn new(endpoint: &Endpoint, example: &Example) -> Self {
        let given = |source: ParameterSource| {
            let own = endpoint.parameters.iter().filter(move |one| one.source == source);
            own.filter_map(|one| Some((one, example.parameter(&one.name)?)))
        };
        let mut headers: HeaderMap = example.headers.iter().cloned().collect();
        for (parameter, value) in given(ParameterSource::Header) {
            let name = HeaderName::from_bytes(parameter.name.as_bytes());
            let value = HeaderValue::from_str(&text(parameter, value));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
        let body = endpoint.takes_body().then(|| {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let members = given(ParameterSource::Body);
            let members = members.map(|(one, value)| ((&*one.name).into(), value.clone()));
            ExactJson::Object(members.collect()).to_string()
        });
        let mut target = path(endpoint, example);
        for (index, (parameter, value)) in given(ParameterSource::Query).enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            let (name, value) =
                (uri::encode(&parameter.name), uri::encode(&text(parameter, value)));
            // Writing into a string cannot fail.
            write!(target, "{mark}{name}={value}").ok();
        }
        Self { method: endpoint.method.clone(), target, headers, body }
    }
}

/// Returns the path with the values of an example. The segment of a missing value is empty.
pub(super) fn path(endpoint: &Endpoint, example: &Example) -> String {
    let mut path = String::new();
    for segment in route::segments(&endpoint.path) {
        let segment = match segment {
            Segment::Literal(text) => text.to_owned(),
            Segment::Parameter(name) => {
                let parameter = endpoint
                    .parameters
                    .iter()
                    .find(|one| one.source == ParameterSource::Path && *one.name == *name);
                let value = parameter.and_then(|one| Some(text(one, example.parameter(name)?)));
                uri::encode(&value.unwrap_or_default())
            }
        };
        path.push('/');
        path.push_str(&segment);
    }
    path
}

/// Returns the text of a value in a path, a query or a header. The text of `null` is empty.
#[must_use]
pub fn text<'a>(parameter: &Parameter, value: &'a ExactJson) -> Cow<'a, str> {
    match value {
        _ if parameter.kind == ParameterType::Json => Cow::Owned(value.to_string()),
        ExactJson::Null => Cow::Borrowed(""),
        ExactJson::Text(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// Returns the representation that an example asks for, or `None` if its `Accept` is not exactly
/// one of the endpoint's media types.
#[must_use]
pub fn representation<'a>(endpoint: &'a Endpoint, example: &Example) -> Option<&'a Representation> {
    match example.header(&ACCEPT) {
        None => endpoint.representation(None),
        Some(accept) => endpoint.produces.iter().find(|one| one.is_content_type(accept)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn values_are_sent_where_their_parameters_are() {
        let catalogue = catalogue(
            r#""move": {"route":"POST /v1/horses/{name}/moves", KEYS, "parameters":{
                "name":{"in":"path","type":"string"}, "from":{"in":"query","type":"string"},
                "since":{"in":"query","type":"date"}, "where":{"in":"query","type":"json"},
                "X-Device":{"in":"header","as":"device","type":"int32"},
                "price":{"in":"body","type":"decimal"}, "to":{"in":"body","type":"string"}},
              "examples":{"one":{"headers":{"Prefer":"return=minimal"},"parameters":{
                "name":"Ä b","from":"a&b=c +","since":"2026-01-31","where":{"a":[1]},"X-Device":7,"price":12345678901234567890.10}}}}"#,
        );
        let endpoint = &catalogue.endpoints()[0];
        let request = ExampleRequest::new(endpoint, &endpoint.examples[0]);
        assert_eq!(
            request.target,
            "/v1/horses/%C3%84%20b/moves?from=a%26b%3Dc%20%2B&since=2026-01-31&where=%7B%20%22a%22%3A%20%5B1%5D%20%7D"
        );
        assert_eq!(request.method, Method::POST);
        assert_eq!(request.body.as_deref(), Some(r#"{ "price": 12345678901234567890.10 }"#));
        for (name, value) in
            [("x-device", "7"), ("prefer", "return=minimal"), ("content-type", "application/json")]
        {
            assert_eq!(request.headers[name], value);
        }
    }
}
