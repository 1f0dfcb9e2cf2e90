//! A TCP proxy in front of a NATS server. Among the lines that clients send, it withholds the first one that
//! contains a given text.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjord::lifecycle::Tasks;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy};
use tokio::net::{TcpListener, TcpStream};

/// A running proxy. It stops with the runtime.
#[derive(Debug)]
pub(crate) struct LineFilterProxy {
    /// The address of the proxy's listener.
    pub(crate) address: SocketAddr,
    withheld: Arc<AtomicBool>,
}

impl LineFilterProxy {
    /// Starts a proxy in front of `target`, which need not listen yet.
    pub(crate) async fn start(target: SocketAddr, text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let withheld = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&withheld);
        let _detached = Tasks::new().spawn_background(async move {
            while let Ok((near, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let _detached = Tasks::new().spawn_background(connect(near, target, text, shared));
            }
        });
        Self { address, withheld }
    }

    /// Returns whether a line has been withheld.
    pub(crate) fn has_withheld(&self) -> bool {
        self.withheld.load(Ordering::Acquire)
    }
}

async fn connect(near: TcpStream, target: SocketAddr, text: &str, withheld: Arc<AtomicBool>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let ((near_read, mut near_write), (mut far_read, mut far_write)) =
        (near.into_split(), far.into_split());
    let to_server = async move {
        let mut lines = BufReader::new(near_read);
        let mut line = Vec::new();
        // After that line, messages may contain line breaks.
        while !withheld.load(Ordering::Acquire) {
            line.clear();
            if !matches!(lines.read_until(b'\n', &mut line).await, Ok(1..)) {
                return;
            }
            if String::from_utf8_lossy(&line).contains(text) {
                withheld.store(true, Ordering::Release);
            } else if far_write.write_all(&line).await.is_err() {
                return;
            }
        }
        drop(copy(&mut lines, &mut far_write).await);
        drop(far_write.shutdown().await);
    };
    tokio::join!(to_server, async move {
        drop(copy(&mut far_read, &mut near_write).await);
        drop(near_write.shutdown().await);
    });
}
