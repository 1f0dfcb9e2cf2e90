//! PROXY protocol version 2: the header in which a load balancer names the client of a connection.

use std::net::IpAddr;
use std::time::Duration;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// The size of the fixed part of a header: signature, version, command, family and length.
const START_BYTES: usize = 16;
/// The maximum size of the variable part (addresses and TLVs). The specification intends a whole
/// header to fit in a TCP segment of 536 bytes, so this leaves a large margin.
const REST_BYTES_MAX: usize = 2048;

/// The reason why a header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyHeaderError {
    /// The header did not arrive in time, or the connection ended.
    Missing,
    /// The header is invalid or too large, or the connection begins with other data.
    Malformed,
}

impl ProxyHeaderError {
    /// Returns the value of the metric label `reason`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "proxy_header_missing",
            Self::Malformed => "proxy_header_malformed",
        }
    }
}

/// Reads the header and nothing after it. Returns the client's address, or `None` if the load balancer connects on its own
/// behalf (LOCAL), as in its health checks, or does not name its client (UNSPEC, UNIX).
pub(super) async fn read_client<IO>(
    stream: &mut IO,
    limit: Duration,
) -> Result<Option<IpAddr>, ProxyHeaderError>
where
    IO: AsyncRead + Unpin,
{
    timeout(limit, read(stream)).await.unwrap_or(Err(ProxyHeaderError::Missing))
}

async fn read<IO: AsyncRead + Unpin>(stream: &mut IO) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let mut header = vec![0; START_BYTES];
    stream.read_exact(&mut header).await.map_err(|_| ProxyHeaderError::Missing)?;
    let [.., high, low] = *header else { return Err(ProxyHeaderError::Malformed) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    // The protocol is checked first, because the bytes at this position are a length only in this protocol.
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let is_other_protocol = matches!(
        ProxyHeader::parse(&header, config),
        Err(error) if error != proxy_header::Error::BufferTooShort
    );
    if is_other_protocol || rest > REST_BYTES_MAX {
        return Err(ProxyHeaderError::Malformed);
    }
    header.resize(START_BYTES + rest, 0);
    let rest = header.get_mut(START_BYTES..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(|_| ProxyHeaderError::Missing)?;
    let (parsed, _) =
        ProxyHeader::parse(&header, config).map_err(|_| ProxyHeaderError::Malformed)?;
    match parsed.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => {
            Ok(Some(address.source.ip().to_canonical()))
        }
        Some(_) => Err(ProxyHeaderError::Malformed),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0, 80, 1, 187];

    async fn read_from(sent: &[u8]) -> (Result<Option<IpAddr>, ProxyHeaderError>, usize) {
        let mut stream = sent;
        let found = read_client(&mut stream, Duration::from_secs(5)).await;
        (found, stream.len())
    }

    #[tokio::test]
    async fn the_address_is_read_and_nothing_after_the_header() {
        let mut v6 = [0_u8; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        let mut mapped = [0_u8; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        let with_more = [V4, &[0x04, 0, 3, 1, 2, 3]].concat();
        let found = Some("192.0.2.1".parse().unwrap());
        for (sent, expected) in [
            (header(0x21, 0x11, V4), Ok(found)),
            (header(0x21, 0x11, &with_more), Ok(found)),
            (header(0x21, 0x21, &mapped), Ok(found)),
            (header(0x21, 0x21, &v6), Ok(Some("2001:db8::".parse().unwrap()))),
            (header(0x20, 0x00, b""), Ok(None)),
            (header(0x20, 0x11, V4), Ok(None)),
            (header(0x21, 0x00, b"whatever"), Ok(None)),
            (header(0x21, 0x31, &[0; 216]), Ok(None)),
            (header(0x21, 0x12, V4), Err(ProxyHeaderError::Malformed)),
            (header(0x21, 0x11, &V4[..11]), Err(ProxyHeaderError::Malformed)),
        ] {
            let shown = format!("{sent:?}");
            let (result, left) = read_from(&[&sent[..], b"GET / "].concat()).await;
            assert_eq!(result, expected, "{shown}");
            assert_eq!(left, b"GET / ".len(), "{shown}");
        }
    }

    #[tokio::test]
    async fn another_protocol_is_rejected_before_its_length_is_used() {
        for sent in [
            &b"PROXY TCP4 192.0.2.1 10.0.0.1 80 443\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh",
            &header(0x11, 0x11, V4),
            &header(0x2f, 0x11, V4),
            &header(0x21, 0x11, &[0; REST_BYTES_MAX + 1]),
        ] {
            let (result, left) = read_from(sent).await;
            assert_eq!(result, Err(ProxyHeaderError::Malformed), "{sent:?}");
            assert_eq!(left, sent.len() - START_BYTES);
        }
        for cut in [0, 1, 15, 16, 27] {
            let whole = header(0x21, 0x11, V4);
            assert_eq!(read_from(&whole[..cut]).await.0, Err(ProxyHeaderError::Missing), "{cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(
            family: u8,
            command: u8,
            rest in proptest::collection::vec(0_u8.., 0..80),
        ) {
            let sent = header(command, family, &rest);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let (_, left) = runtime.unwrap().block_on(read_from(&sent));
            proptest::prop_assert!(left == 0 || left == rest.len());
        }
    }
}
