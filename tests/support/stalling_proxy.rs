//! A TCP proxy that can stop reading from its clients while it still forwards data to them.

use std::net::SocketAddr;

use fjord::lifecycle::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// The size of the receive buffer. It is small, so that clients notice a stall quickly.
const RECEIVE_BYTES: u32 = 16 << 10;
const CONNECTIONS_MAX: u32 = 64;

/// A running proxy. It stops with the runtime.
#[derive(Debug)]
pub(crate) struct StallingProxy {
    /// The address of the proxy's listener.
    pub(crate) address: SocketAddr,
    stalled: watch::Sender<bool>,
}

impl StallingProxy {
    /// Starts a proxy in front of `target`, which need not listen yet.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(RECEIVE_BYTES).expect("the socket option can be set");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let listener = socket.listen(CONNECTIONS_MAX).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (stalled, watched) = watch::channel(false);
        let _detached = Tasks::new().spawn_background(async move {
            while let Ok((near, _)) = listener.accept().await {
                let _detached =
                    Tasks::new().spawn_background(connect(near, target, watched.clone()));
            }
        });
        Self { address, stalled }
    }

    /// Stops reading from clients.
    pub(crate) fn pause(&self) {
        self.stalled.send_replace(true);
    }

    /// Resumes reading from clients.
    pub(crate) fn resume(&self) {
        self.stalled.send_replace(false);
    }
}

async fn connect(near: TcpStream, target: SocketAddr, stalled: watch::Receiver<bool>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let ((near_read, mut near_write), (mut far_read, far_write)) =
        (near.into_split(), far.into_split());
    tokio::join!(forward(near_read, far_write, stalled), async move {
        drop(copy(&mut far_read, &mut near_write).await);
        drop(near_write.shutdown().await);
    });
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut stalled: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while stalled.wait_for(|stalled| !stalled).await.is_ok() {
        tokio::select! {
            _ = stalled.changed() => {}
            read = from.read(&mut buffer) => {
                let Ok(count @ 1..) = read else { break };
                if to.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        }
    }
    drop(to.shutdown().await);
}
