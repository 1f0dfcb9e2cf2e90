//! An independent computation of AWS Signature Version 4. The stand-ins for AWS services use it to check requests.

use aws_lc_rs::{digest, hmac};

use super::hex::hex;

/// The secret and the scope from which the key of a signature is derived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigningKey<'a> {
    pub(crate) secret: &'a str,
    pub(crate) date: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

/// Returns the signature of a request for `/` without a query. `headers` are the signed headers in alphabetical order.
pub(crate) fn signature(
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    time: &str,
    key: SigningKey<'_>,
) -> String {
    let lines = headers
        .iter()
        .fold(String::new(), |text, (name, value)| text + &format!("{name}:{}\n", value.trim()));
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let hash = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let request = format!("{method}\n/\n\n{lines}\n{}\n{}", names.join(";"), hash(body));
    let SigningKey { secret, date, region, service } = key;
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(request.as_bytes()));
    let mut signing_key = format!("AWS4{secret}").into_bytes();
    for part in [date, region, service, "aws4_request"] {
        signing_key = mac(&signing_key, part);
    }
    hex(&mac(&signing_key, &text))
}

/// The first request in the test suite that AWS publishes for this algorithm.
#[test]
fn the_signature_of_a_published_example_is_correct() {
    let time = "20150830T123600Z";
    let headers = [("host", "example.amazonaws.com"), ("x-amz-date", time)];
    let key = SigningKey {
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        date: "20150830",
        region: "us-east-1",
        service: "service",
    };
    let expected = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    assert_eq!(signature("GET", &headers, b"", time, key), expected);
}
