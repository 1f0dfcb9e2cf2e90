//! A TCP proxy that delays every byte in both directions by a fixed time.

use std::net::SocketAddr;
use std::time::Duration;

use fjord::lifecycle::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

const BUFFER_BYTES: usize = 64 << 10;
/// The maximum number of chunks in flight. No test sends as many in a second.
const CHUNKS_MAX: usize = 100_000;

/// A running proxy. It stops with the runtime.
#[derive(Debug)]
pub(crate) struct LatencyProxy {
    /// The address of the proxy's listener.
    pub(crate) address: SocketAddr,
}

impl LatencyProxy {
    /// Starts a proxy in front of `target`.
    pub(crate) async fn start(target: SocketAddr, one_way: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let _detached = Tasks::new().spawn_background(async move {
            while let Ok((near, _)) = listener.accept().await {
                let _detached = Tasks::new().spawn_background(connect(near, target, one_way));
            }
        });
        Self { address }
    }
}

async fn connect(near: TcpStream, target: SocketAddr, one_way: Duration) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("the socket option can be set");
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(forward(near_read, far_write, one_way), forward(far_read, near_write, one_way));
}

/// Forwards bytes until one side closes. Bytes already in flight are still delivered.
async fn forward<R, W>(mut from: R, mut to: W, one_way: Duration)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let chunk = (Instant::now() + one_way, buffer[..count].to_vec());
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    };
    tokio::join!(read, write);
}
