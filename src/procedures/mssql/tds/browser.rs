//! Asks SQL Server Browser for the TCP port of a named instance (MC-SQLR 2.2.3, 2.2.5).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::select_ok;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::addresses::resolve;
use crate::config::procedures::MssqlInstance;

/// The first bytes of a request for one instance, and of an answer.
const REQUEST: u8 = 0x04;
const ANSWER: u8 = 0x05;
/// The length of an answer's header: the first byte and the length of its text.
const HEADER_BYTES: usize = 3;
/// The maximum length of the text about one instance.
const TEXT_BYTES_MAX: usize = 1024;
/// The times to wait for an answer. After each wait except the last one, the request is sent again.
const WAITS: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(700), Duration::from_secs(2)];

/// The reason why the port of an instance was not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrowserError {
    /// The host has no address, or a socket failed.
    #[error("cannot ask SQL Server Browser")]
    Io(#[from] io::Error),
    /// No valid answer arrived. SQL Server Browser does not answer if it has no such instance.
    #[error(
        "SQL Server Browser does not answer: expected it to be running and to have an instance of this name"
    )]
    NoAnswer,
    /// An answer does not have the form of an answer from SQL Server Browser, or is about another
    /// instance.
    #[error("the answer from SQL Server Browser is not valid")]
    Invalid,
    /// The instance does not listen on TCP.
    #[error("the instance has no TCP port")]
    NoTcp,
}

/// Returns the TCP port of an instance. Takes at most a few seconds. This function is cancel safe.
pub(super) async fn find_port(host: &str, instance: &MssqlInstance) -> Result<u16, BrowserError> {
    let addresses = resolve(host, instance.browser_port).await?;
    let requests = addresses.into_iter().map(|address| Box::pin(ask(address, &instance.name)));
    select_ok(requests).await.map(|(port, _)| port)
}

async fn ask(address: SocketAddr, instance: &str) -> Result<u16, BrowserError> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // A connected socket receives only datagrams from this address.
    socket.connect(address).await?;
    let request = [&[REQUEST][..], instance.as_bytes(), &[0]].concat();
    // The buffer has one byte more than the longest answer, so that a longer message can be
    // detected.
    let mut answer = [0; HEADER_BYTES + TEXT_BYTES_MAX + 1];
    let mut failure = BrowserError::NoAnswer;
    for wait in WAITS {
        socket.send(&request).await?;
        let deadline = Instant::now() + wait;
        while let Ok(received) = timeout_at(deadline, socket.recv(&mut answer)).await {
            match port(answer.get(..received?).unwrap_or_default(), instance) {
                Ok(port) => return Ok(port),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

/// Reads the port from an answer about an instance: names and values, separated by semicolons.
fn port(answer: &[u8], instance: &str) -> Result<u16, BrowserError> {
    let [ANSWER, low, high, text @ ..] = answer else { return Err(BrowserError::Invalid) };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    if length != text.len() || length > TEXT_BYTES_MAX {
        return Err(BrowserError::Invalid);
    }
    // Values other than the name of the instance and the port may be in any code page.
    let mut parts = text.split(|byte| *byte == b';');
    let (mut name, mut tcp) = (None, None);
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let place = match key {
            b"InstanceName" => &mut name,
            b"tcp" => &mut tcp,
            _ => continue,
        };
        place.get_or_insert(value);
    }
    if !name.is_some_and(|name: &[u8]| name.eq_ignore_ascii_case(instance.as_bytes())) {
        return Err(BrowserError::Invalid);
    }
    let tcp = std::str::from_utf8(tcp.ok_or(BrowserError::NoTcp)?).unwrap_or_default();
    // `parse` accepts a sign.
    let port = tcp.parse().ok().filter(|port| *port > 0 && !tcp.starts_with('+'));
    port.ok_or(BrowserError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Vec<u8> {
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [&[ANSWER, length[0], length[1]][..], text.as_bytes()].concat()
    }

    #[test]
    fn only_a_valid_answer_about_the_instance_has_a_port() {
        let text = "ServerName;SQL1;InstanceName;Reports;IsClustered;No;Version;15.0.2000.5;\
            np;\\\\SQL1\\pipe\\MSSQL$Reports\\sql\\query;tcp;51433;;";
        assert_eq!(port(&answer(text), "REPORTS").unwrap(), 51433);
        let other = |from: &str, to: &str| port(&answer(&text.replace(from, to)), "reports");
        assert!(matches!(other("tcp;51433;", ""), Err(BrowserError::NoTcp)));
        for (from, to) in [
            ("Reports", "Report"),
            ("InstanceName;Reports;", ""),
            ("51433", "0"),
            ("51433", "65536"),
            ("51433", "+1433"),
            ("51433", ""),
            ("51433", "-"),
        ] {
            assert!(matches!(other(from, to), Err(BrowserError::Invalid)), "{from} {to}");
        }
        let valid = answer(text);
        for invalid in [&valid[..valid.len() - 1], &[&valid[..], b";"].concat(), &[], &[5], &[5, 0]]
        {
            assert!(matches!(port(invalid, "reports"), Err(BrowserError::Invalid)), "{invalid:?}");
        }
        let mut request = valid.clone();
        request[0] = REQUEST;
        assert!(matches!(port(&request, "reports"), Err(BrowserError::Invalid)));
        let long = format!("{text}{}", "x".repeat(TEXT_BYTES_MAX));
        assert!(matches!(port(&answer(&long), "reports"), Err(BrowserError::Invalid)));
    }
}
