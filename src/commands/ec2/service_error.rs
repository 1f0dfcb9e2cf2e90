//! Errors of AWS services that use the query protocol. The errors are XML documents.

use http::StatusCode;
use quick_xml::events::Event;

/// The maximum number of characters to keep of an error message.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// The error with which a service refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceError {
    status: StatusCode,
    /// The kind of error, such as `Throttling`. Empty if the response does not contain one.
    pub(super) code: String,
    message: String,
}

impl ServiceError {
    /// Reads the code and the message from a response. Both are empty if the format is unknown.
    pub(super) fn read(status: StatusCode, answer: &str) -> Self {
        let text = |name| element(answer, name).unwrap_or_default();
        let message = text("Message").chars().take(MESSAGE_CHARACTERS_MAX).collect();
        Self { status, code: text("Code"), message }
    }

    /// Returns whether the same request may succeed a few seconds later.
    pub(super) fn is_transient(&self) -> bool {
        let is_throttled = self.code.contains("Throttl") || self.code == "RequestLimitExceeded";
        let busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        let is_busy = self.status.is_server_error() || busy.contains(&self.status);
        is_throttled || is_busy || self.has_expired()
    }

    /// Returns whether the credentials have expired. The metadata service may have newer ones.
    pub(super) fn has_expired(&self) -> bool {
        matches!(&*self.code, "ExpiredToken" | "ExpiredTokenException" | "RequestExpired")
    }

    /// Returns whether the role lacks a permission.
    pub(super) fn is_denied(&self) -> bool {
        matches!(&*self.code, "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation")
    }

    /// Returns whether the service rejects the signature, for example because the clock is wrong.
    pub(super) fn is_bad_signature(&self) -> bool {
        matches!(
            &*self.code,
            "SignatureDoesNotMatch" | "InvalidClientTokenId" | "RequestTimeTooSkewed"
        )
    }

    /// Returns whether the service rejects the parameters, for example because they name a resource that does not
    /// exist.
    pub(super) fn is_invalid(&self) -> bool {
        self.code == "ValidationError"
    }

    /// Returns whether the service may have executed the request despite the error.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::REQUEST_TIMEOUT
    }
}

impl std::fmt::Display for ServiceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.code.is_empty() {
            return write!(f, "status {}", self.status);
        }
        write!(f, "{}: {} (status {})", self.code, self.message, self.status.as_u16())
    }
}

/// Returns the text of the first element with this name.
fn element(document: &str, name: &str) -> Option<String> {
    let mut reader = quick_xml::Reader::from_str(document);
    let mut is_inside = false;
    let mut text = String::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => is_inside |= start.local_name().as_ref() == name.as_bytes(),
            Event::Text(part) if is_inside => text.push_str(&part.decode().ok()?),
            Event::GeneralRef(reference) if is_inside => text.push(character(&reference)?),
            Event::End(_) if is_inside => return Some(text.trim().to_owned()),
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// Returns the character that an entity or character reference stands for.
fn character(reference: &quick_xml::events::BytesRef<'_>) -> Option<char> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Some(character);
    }
    let name = reference.decode().ok()?;
    quick_xml::escape::resolve_predefined_entity(&name)?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(code: &str, message: &str) -> String {
        format!(
            "<ErrorResponse xmlns=\"http://monitoring.amazonaws.com/doc/2010-08-01/\">\n  <Error>\n    <Type>Sender</Type>\n    \
             <Code>{code}</Code>\n    <Message>{message}</Message>\n  </Error>\n  <RequestId>1</RequestId>\n</ErrorResponse>"
        )
    }

    #[test]
    fn an_error_has_a_code_and_a_message() {
        let read = ServiceError::read(
            StatusCode::BAD_REQUEST,
            &document("Throttling", "Rate &lt;1&#62; exceeded"),
        );
        assert_eq!(read.to_string(), "Throttling: Rate <1> exceeded (status 400)");
        assert!(read.is_transient() && !read.is_denied() && !read.has_expired());
        let read = ServiceError::read(StatusCode::FORBIDDEN, &document("AccessDenied", "no"));
        assert!(read.is_denied() && !read.is_transient());
        let read = ServiceError::read(StatusCode::FORBIDDEN, &document("ExpiredToken", "old"));
        assert!(read.has_expired() && read.is_transient());
    }

    #[test]
    fn an_answer_in_another_format_has_only_a_status() {
        for answer in
            ["", "no XML", "<a><b>", "<Code>x", "{\"Code\": 1}", "<a><!-- <Code>x</Code> -->"]
        {
            let read = ServiceError::read(StatusCode::BAD_GATEWAY, answer);
            assert_eq!(read.to_string(), "status 502 Bad Gateway", "{answer}");
            assert!(read.is_transient());
        }
    }
}
