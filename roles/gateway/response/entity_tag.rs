//! Entity tags (RFC 9110 §8.8.3), which are computed from the content of a response or chosen by the procedure.
//!
//! A strong tag identifies one sequence of bytes. A compressed body is another representation, so it needs another tag.
//! That tag is derived from the tag of the content, not from the compressed bytes, so that a request with
//! `If-None-Match` can be answered without compressing anything.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{Response, ResponseBody};

/// The number of bytes of the digest that a tag contains. Two different contents are as unlikely to have the same tag
/// as two UUIDs are to be equal.
const TAG_BYTES: usize = 16;
/// The release, which is part of the tag of a compressed body. Different releases may compress the same content into
/// different bytes.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Marks a response whose tag was computed from its content.
#[derive(Clone, Copy, Debug)]
struct ComputedTag;

/// The kind of a response's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles::gateway) enum TagKind {
    /// The response has no tag.
    Absent,
    /// A weak tag, which may be the same for several representations.
    Weak,
    /// A strong tag that the procedure chose. It identifies the uncompressed body.
    Chosen,
    /// A strong tag that was computed from the content. Each content coding has its own.
    Computed,
}

/// Sets the tag of a complete 200 response, unless the procedure chose one.
pub(in crate::roles::gateway) fn set_computed(response: &mut Response) {
    if response.status() != StatusCode::OK || response.headers().contains_key(header::ETAG) {
        return;
    }
    let ResponseBody::Whole(body) = response.body() else { return };
    let mut digest = Context::new(&SHA256);
    // The media type is part of the representation, although it is not part of its bytes.
    let content_type = response.headers().get(header::CONTENT_TYPE);
    digest.update(content_type.map_or(&[], HeaderValue::as_bytes));
    digest.update(b"\n");
    digest.update(body);
    if let Some(tag) = finish(digest) {
        response.headers_mut().insert(header::ETAG, tag);
        response.extensions_mut().insert(ComputedTag);
    }
}

/// Returns the kind of a response's tag.
pub(in crate::roles::gateway) fn kind(response: &Response) -> TagKind {
    kind_of(response.headers(), response.extensions())
}

fn kind_of(headers: &HeaderMap, extensions: &http::Extensions) -> TagKind {
    match headers.get(header::ETAG) {
        None => TagKind::Absent,
        Some(tag) if tag.as_bytes().starts_with(b"W/") => TagKind::Weak,
        Some(_) if extensions.get::<ComputedTag>().is_some() => TagKind::Computed,
        Some(_) => TagKind::Chosen,
    }
}

/// Returns the tag of a body with a content coding, derived from the computed tag of the content.
pub(in crate::roles::gateway) fn of_encoded(
    computed: &HeaderValue,
    coding: &str,
) -> Option<HeaderValue> {
    let mut digest = Context::new(&SHA256);
    for part in [computed.as_bytes(), b"\n", coding.as_bytes(), b"\n", RELEASE.as_bytes()] {
        digest.update(part);
    }
    finish(digest)
}

/// Changes the tag of a response whose body has been compressed.
pub(in crate::roles::gateway) fn on_encoded(parts: &mut http::response::Parts, coding: &str) {
    let Some(tag) = parts.headers.get(header::ETAG) else { return };
    let tag = match kind_of(&parts.headers, &parts.extensions) {
        TagKind::Computed => of_encoded(tag, coding),
        // The procedure does not know the codings, so its tag can only be weak here.
        TagKind::Chosen => HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok(),
        TagKind::Absent | TagKind::Weak => return,
    };
    match tag {
        Some(tag) => parts.headers.insert(header::ETAG, tag),
        None => parts.headers.remove(header::ETAG),
    };
}

fn finish(digest: Context) -> Option<HeaderValue> {
    let digest = digest.finish();
    let bytes = digest.as_ref().get(..TAG_BYTES)?;
    HeaderValue::try_from(format!("\"{}\"", URL_SAFE_NO_PAD.encode(bytes))).ok()
}

/// The method of comparing tags (RFC 9110 §8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles::gateway) enum Comparison {
    /// Weak tags never match.
    Strong,
    /// `W/` is ignored.
    Weak,
}

/// The result of matching the tags in a header with the current tags.
#[derive(Debug)]
pub(in crate::roles::gateway) enum Matched<'a> {
    /// The header contains `*`, which matches any current representation.
    Any,
    /// The header contains this current tag.
    Tag(&'a HeaderValue),
}

/// Returns the first match between the tags in a header and the current tags (RFC 9110 §8.8.3.2).
pub(in crate::roles::gateway) fn matching<'a>(
    headers: &HeaderMap,
    name: HeaderName,
    current: &'a [HeaderValue],
    comparison: Comparison,
) -> Option<Matched<'a>> {
    for value in headers.get_all(name) {
        let Ok(text) = value.to_str() else { continue };
        if text.trim() == "*" {
            return Some(Matched::Any);
        }
        let mut rest = text;
        while let Some((tag, is_weak)) = next_tag(&mut rest) {
            if is_weak && comparison == Comparison::Strong {
                continue;
            }
            let is_same = |known: &&HeaderValue| match known.to_str().unwrap_or_default() {
                weak if weak.starts_with("W/") => {
                    comparison == Comparison::Weak && weak.strip_prefix("W/") == Some(tag)
                }
                strong => strong == tag,
            };
            if let Some(found) = current.iter().find(is_same) {
                return Some(Matched::Tag(found));
            }
        }
    }
    None
}

/// Reads the next tag of a list. Returns the tag, with its quotes but without `W/`, and whether it is weak. If the list
/// is malformed, the rest of it matches nothing.
fn next_tag<'a>(rest: &mut &'a str) -> Option<(&'a str, bool)> {
    let text = rest.trim_start_matches([' ', '\t', ',']);
    let strong = text.strip_prefix("W/").unwrap_or(text);
    let length = strong.strip_prefix('"')?.find('"')? + 2;
    let (tag, after) = strong.split_at_checked(length)?;
    *rest = after;
    Some((tag, strong.len() < text.len()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tag_of(content_type: &'static str, body: &'static str) -> HeaderValue {
        let mut response = Response::new(Bytes::from_static(body.as_bytes()).into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        set_computed(&mut response);
        assert_eq!(kind(&response), TagKind::Computed);
        response.headers()[header::ETAG].clone()
    }

    #[test]
    fn a_tag_identifies_the_content_the_media_type_and_the_coding() {
        let tag = tag_of("application/json", "[1]");
        assert_eq!(tag, tag_of("application/json", "[1]"));
        assert_eq!(tag.len(), 24);
        let gzip = of_encoded(&tag, "gzip").unwrap();
        assert_eq!(gzip, of_encoded(&tag, "gzip").unwrap());
        let others = [tag_of("application/json", "[2]"), tag_of("text/csv", "[1]"), gzip.clone()];
        assert!(others.iter().all(|other| *other != tag));
        assert_ne!(gzip, of_encoded(&tag, "br").unwrap());
    }

    #[test]
    fn a_tag_that_the_procedure_chose_is_kept_and_becomes_weak_when_the_body_is_compressed() {
        let mut response = Response::new(Bytes::from_static(b"[1]").into());
        response.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"7\""));
        set_computed(&mut response);
        assert_eq!(
            (kind(&response), &response.headers()[header::ETAG]),
            (TagKind::Chosen, &HeaderValue::from_static("\"7\""))
        );
        let mut parts = response.into_parts().0;
        on_encoded(&mut parts, "gzip");
        on_encoded(&mut parts, "gzip");
        assert_eq!(parts.headers[header::ETAG], "W/\"7\"");
    }

    fn is_match(list: &[&str], current: &'static str, comparison: Comparison) -> bool {
        let mut headers = HeaderMap::new();
        for value in list {
            headers.append(header::IF_MATCH, value.parse().unwrap());
        }
        let current = [HeaderValue::from_static(current)];
        matching(&headers, header::IF_MATCH, &current, comparison).is_some()
    }

    #[test]
    fn tags_are_compared_as_rfc_9110_specifies() {
        // RFC 9110 §8.8.3.2: the two tags, and the results of the strong and the weak comparison.
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "W/\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            assert_eq!(is_match(&[one], other, Comparison::Strong), strong, "{one} {other}");
            assert_eq!(is_match(&[one], other, Comparison::Weak), weak, "{one} {other}");
        }
    }

    #[test]
    fn lists_of_tags_are_read() {
        for list in [
            &["\"a\", \"1\""][..],
            &["\"a\",W/\"1\" , \"b\""],
            &[" , \"a,b\",\t\"1\""],
            &["\"a\"", "\"1\""],
            &["*"],
            &[" * "],
        ] {
            assert!(is_match(list, "\"1\"", Comparison::Weak), "{list:?}");
        }
        for list in [&[""][..], &["1"], &["\"1"], &["\"a\" 1, \"1\""], &["\"a\", *"], &["w/\"1\""]]
        {
            assert!(!is_match(list, "\"1\"", Comparison::Weak), "{list:?}");
        }
    }
}
