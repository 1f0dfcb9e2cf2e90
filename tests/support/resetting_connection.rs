//! The driver's client on a stream that resets the connection with each request, as fjord does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fjord::tls::{ClientStream, Connector};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

/// The length of a packet's header: the type, the status, the length, and four more bytes (MS-TDS
/// 2.2.3.1).
const HEADER_BYTES: usize = 8;
/// The packet types of requests: SQL batch and RPC.
const REQUESTS: [u8; 2] = [0x01, 0x03];
const PRELOGIN: u8 = 0x12;
const END_OF_MESSAGE: u8 = 0x01;
const RESET_CONNECTION: u8 = 0x08;
const ENCRYPTION: u8 = 0x01;
const ENCRYPT_ON: u8 = 0x01;
/// A PRELOGIN packet: the header, the places of a version and of the encryption, and their values.
const PRELOGIN_REQUEST: [&[u8]; 4] = [
    &[PRELOGIN, END_OF_MESSAGE, 0, 26, 0, 0, 0, 0],
    &[0, 0, 11, 0, 6, ENCRYPTION, 0, 17, 0, 1, 0xff],
    &[0, 0, 0, 0, 0, 0],
    &[ENCRYPT_ON],
];
const ENCRYPT_NOT_SUPPORTED: u8 = 0x02;
/// The first bytes of TLS records.
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x17;

/// The driver's client, whose requests reset the connection.
pub(crate) type ResettingClient = tiberius::Client<Compat<ResettingStream>>;

/// Logs in over a TLS session that trusts any certificate. `driver` is the configuration of the login.
pub(crate) async fn connect(mut driver: tiberius::Config, mut tcp: TcpStream) -> ResettingClient {
    tcp.write_all(&PRELOGIN_REQUEST.concat()).await.expect("the server reads PRELOGIN");
    let mut answer = vec![0; HEADER_BYTES];
    tcp.read_exact(&mut answer).await.expect("the server answers PRELOGIN");
    answer.resize(usize::from(u16::from_be_bytes([answer[2], answer[3]])), 0);
    tcp.read_exact(&mut answer[HEADER_BYTES..]).await.expect("the answer is complete");
    // The driver must not start TLS itself.
    let options = answer[HEADER_BYTES..].chunks(5);
    let encryption = options.take_while(|option| option[0] != 0xff).find(|o| o[0] == ENCRYPTION);
    let at = encryption.map(|o| usize::from(u16::from_be_bytes([o[1], o[2]]))).expect("an option");
    answer[HEADER_BYTES + at] = ENCRYPT_NOT_SUPPORTED;

    let connector = Connector::trusting_any().expect("a TLS configuration");
    let socket = HandshakeSocket { tcp, is_open: false, written: Vec::new(), read: Vec::new() };
    let mut tls = connector.connect("localhost", socket).await.expect("the handshake succeeds");
    tls.get_mut().0.is_open = true;
    let (packets, whole, is_start) = (Vec::new(), 0, true);
    let stream = ResettingStream { tls, prelogin: answer, packets, whole, is_start };
    driver.encryption(tiberius::EncryptionLevel::NotSupported);
    let client = Box::pin(tiberius::Client::connect(driver, stream.compat_write())).await;
    client.expect("the login succeeds")
}

/// A socket that wraps the TLS handshake in PRELOGIN packets (MS-TDS 2.2.6.5).
#[derive(Debug)]
struct HandshakeSocket {
    tcp: TcpStream,
    /// Whether the handshake is over. Later records have no packets.
    is_open: bool,
    written: Vec<u8>,
    /// Bytes that were read in packets during the handshake.
    read: Vec<u8>,
}

impl AsyncRead for HandshakeSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.is_open || !this.read.is_empty() {
            let bare = this.read.first().is_some_and(|byte| TLS_RECORDS.contains(byte));
            let packet = match this.read[..] {
                [_, _, high, low, ..] => usize::from(u16::from_be_bytes([high, low])),
                _ => HEADER_BYTES,
            };
            if bare || (this.read.len() > HEADER_BYTES && this.read.len() >= packet) {
                let skipped = if bare { 0 } else { HEADER_BYTES };
                let end = if bare { this.read.len() } else { packet };
                buffer.put_slice(&this.read[skipped..end]);
                this.read.drain(..end);
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; 1024];
            let mut part = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.read.extend_from_slice(part.filled());
        }
        Pin::new(&mut this.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for HandshakeSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_open {
            return Pin::new(&mut self.tcp).poll_write(cx, from);
        }
        if self.written.is_empty() {
            self.written.extend_from_slice(&[PRELOGIN, END_OF_MESSAGE, 0, 0, 0, 0, 0, 0]);
        }
        self.written.extend_from_slice(from);
        let length = u16::try_from(self.written.len()).expect("a flight is short");
        self.written[2..4].copy_from_slice(&length.to_be_bytes());
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.written.is_empty() {
            let count = ready!(Pin::new(&mut this.tcp).poll_write(cx, &this.written))?;
            this.written.drain(..count);
        }
        Pin::new(&mut this.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A stream that buffers written bytes and sends only complete packets when it is flushed.
#[derive(Debug)]
pub(crate) struct ResettingStream {
    tls: ClientStream<HandshakeSocket>,
    /// The server's answer to PRELOGIN. The driver gets it instead of an answer to its own PRELOGIN, which is dropped.
    prelogin: Vec<u8>,
    /// The buffered packets. The first `whole` bytes are complete packets.
    packets: Vec<u8>,
    whole: usize,
    is_start: bool,
}

impl ResettingStream {
    fn mark(&mut self) {
        while let Some([kind, status, high, low, ..]) = self.packets.get_mut(self.whole..) {
            let (kind, length) = (*kind, usize::from(u16::from_be_bytes([*high, *low])));
            if self.is_start && REQUESTS.contains(&kind) {
                *status |= RESET_CONNECTION;
            }
            let is_end = *status & END_OF_MESSAGE != 0;
            if self.packets.len() < self.whole + length.max(HEADER_BYTES) {
                return;
            }
            if kind == PRELOGIN {
                self.packets.drain(self.whole..self.whole + length);
                continue;
            }
            self.is_start = is_end;
            self.whole += length;
        }
    }
}

impl AsyncRead for ResettingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prelogin.is_empty() {
            return Pin::new(&mut self.tls).poll_read(cx, buffer);
        }
        let count = self.prelogin.len().min(buffer.remaining());
        buffer.put_slice(&self.prelogin[..count]);
        self.prelogin.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ResettingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.packets.extend_from_slice(from);
        self.mark();
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.whole > 0 {
            let this = &mut *self;
            let packets = this.packets.get(..this.whole).unwrap_or_default();
            let count = ready!(Pin::new(&mut this.tls).poll_write(cx, packets))?;
            this.packets.drain(..count);
            this.whole -= count;
        }
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
