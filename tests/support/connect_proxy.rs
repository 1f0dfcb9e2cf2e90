//! An HTTP proxy that forwards connections (`CONNECT`) or refuses to do so, and records the requests that it
//! receives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use fjord::lifecycle::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// The maximum length of the headers of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A request to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyRequest {
    /// The first line.
    pub(crate) line: String,
    /// The header `Proxy-Authorization`, or an empty string if it is absent.
    pub(crate) authorization: String,
}

/// A running proxy. It stops with the runtime.
#[derive(Debug)]
pub(crate) struct ConnectProxy {
    /// The address of the proxy's listener.
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<ProxyRequest>>>,
}

impl ConnectProxy {
    /// Starts a proxy. If there is a `refusal`, such as `403 Forbidden`, the proxy answers every request with it.
    pub(crate) async fn start(refusal: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&requests);
        let _detached = Tasks::new().spawn_background(async move {
            while let Ok((client, _)) = listener.accept().await {
                let record = Arc::clone(&record);
                let _detached = Tasks::new().spawn_background(serve(client, record, refusal));
            }
        });
        Self { address, requests }
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<ProxyRequest> {
        self.requests.lock().unwrap().clone()
    }
}

/// Serves one connection. Whatever error occurs, the client notices that the connection has ended.
async fn serve(
    mut client: TcpStream,
    record: Arc<Mutex<Vec<ProxyRequest>>>,
    refusal: Option<&str>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Only one byte is read at a time, so that no data of the forwarded connection is read.
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
        assert!(head.len() <= HEAD_BYTES_MAX, "the headers are too long");
    }
    let head = String::from_utf8(head).expect("the headers are text");
    let line = head.lines().next().unwrap_or_default().to_owned();
    let header = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    let authorization = header.unwrap_or_default();
    record.lock().unwrap().push(ProxyRequest { line: line.clone(), authorization });
    let target = line.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let server = match target {
        Some(target) if refusal.is_none() => TcpStream::connect(target).await.ok(),
        _ => None,
    };
    let Some(mut server) = server else {
        let status = refusal.unwrap_or("502 Bad Gateway");
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        client.write_all(answer.as_bytes()).await.ok();
        return;
    };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        copy_bidirectional(&mut client, &mut server).await.ok();
    }
}
