//! Reads and writes packets, and performs the TLS handshake inside them.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use fjord::lifecycle::Tasks;
use tds_protocol::packet::{PACKET_HEADER_SIZE, PacketHeader, PacketStatus, PacketType};
use tds_protocol::prelogin::{EncryptionLevel, PreLogin};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const PACKET_BYTES: usize = 4096;
/// The application protocol of strict encryption.
pub(super) const TDS_8: &[u8] = b"tds/8.0";
const PIPE_BYTES: usize = 1 << 16;

/// A message, assembled from the packets of a request.
#[derive(Debug)]
pub(crate) struct TdsMessage {
    pub(crate) kind: PacketType,
    /// Whether the connection is reset before the request.
    pub(crate) resets: bool,
    pub(crate) payload: Bytes,
}

/// Reads a complete message.
pub(crate) async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<TdsMessage> {
    let mut payload = BytesMut::new();
    let mut resets = false;
    loop {
        let mut header = [0; PACKET_HEADER_SIZE];
        stream.read_exact(&mut header).await?;
        let header = PacketHeader::decode(&mut header.as_slice()).map_err(io::Error::other)?;
        let start = payload.len();
        payload.resize(start + header.payload_length(), 0);
        stream.read_exact(&mut payload[start..]).await?;
        resets |= header.status.contains(PacketStatus::RESET_CONNECTION);
        if header.is_end_of_message() {
            return Ok(TdsMessage { kind: header.packet_type, resets, payload: payload.freeze() });
        }
    }
}

/// Writes the packets of a message. Without `is_end`, the last packet does not end the message.
pub(crate) async fn write_message<S: AsyncWrite + Unpin>(
    stream: &mut S,
    kind: PacketType,
    mut payload: Bytes,
    is_end: bool,
) -> io::Result<()> {
    let mut packets = BytesMut::new();
    let mut id = 1_u8;
    loop {
        let part = payload.split_to(payload.len().min(PACKET_BYTES - PACKET_HEADER_SIZE));
        let is_last = payload.is_empty();
        let status =
            if is_last && is_end { PacketStatus::END_OF_MESSAGE } else { PacketStatus::NORMAL };
        let length = u16::try_from(part.len() + PACKET_HEADER_SIZE)
            .expect("the length of a packet fits u16");
        PacketHeader::new(kind, status, length).with_packet_id(id).encode(&mut packets);
        id = id.wrapping_add(1);
        packets.extend_from_slice(&part);
        if is_last {
            break;
        }
    }
    stream.write_all(&packets).await?;
    stream.flush().await
}

/// Writes small messages in one write, so that they arrive together.
pub(crate) async fn write_messages<S: AsyncWrite + Unpin>(
    stream: &mut S,
    messages: &[Bytes],
) -> io::Result<()> {
    let mut all = Vec::new();
    for message in messages {
        write_message(&mut all, PacketType::TabularResult, message.clone(), true).await?;
    }
    stream.write_all(&all).await?;
    stream.flush().await
}

/// Answers PRELOGIN with an encryption level, and performs the TLS handshake if the level requires it.
pub(crate) async fn accept(
    mut tcp: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    level: EncryptionLevel,
) -> io::Result<TlsStream<DuplexStream>> {
    let hello = read_message(&mut tcp).await?;
    let answer = prelogin_answer(hello.payload, level)?;
    write_message(&mut tcp, PacketType::TabularResult, answer, true).await?;
    let (ours, mut theirs) = tokio::io::duplex(PIPE_BYTES);
    let accepting = TlsAcceptor::from(tls).accept(ours);
    tokio::pin!(accepting);
    let mut records = [0; PACKET_BYTES - PACKET_HEADER_SIZE];
    let mut incoming = BytesMut::new();
    let stream = loop {
        // Received bytes are buffered outside `select!`, so that a cancelled branch loses none.
        while let Some(length) = packet_length(&incoming).filter(|length| incoming.len() >= *length)
        {
            let mut packet = incoming.split_to(length);
            packet.advance(PACKET_HEADER_SIZE);
            theirs.write_all(&packet).await?;
        }
        tokio::select! {
            biased;
            count = theirs.read(&mut records) => {
                let part = Bytes::copy_from_slice(&records[..count?]);
                write_message(&mut tcp, PacketType::PreLogin, part, true).await?;
            }
            stream = &mut accepting => break stream?,
            count = tcp.read_buf(&mut incoming) => {
                if count? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    };
    let _pump = Tasks::new().spawn(async move {
        // The last flight of the handshake is still wrapped in a packet. Later data is bare TLS.
        let mut last = BytesMut::zeroed(PIPE_BYTES);
        let flight = tokio::time::timeout(std::time::Duration::ZERO, theirs.read(&mut last)).await;
        if let Ok(Ok(count)) = flight {
            let part = last.freeze().slice(..count);
            write_message(&mut tcp, PacketType::PreLogin, part, true).await?;
        }
        if !incoming.is_empty() {
            theirs.write_all(&incoming).await?;
        }
        tokio::io::copy_bidirectional(&mut tcp, &mut theirs).await
    });
    Ok(stream)
}

/// Returns the answer to PRELOGIN. It confirms an access token if one was announced.
fn prelogin_answer(request: Bytes, level: EncryptionLevel) -> io::Result<Bytes> {
    let request = PreLogin::decode(request).map_err(io::Error::other)?;
    let mut answer = PreLogin::new().with_encryption(level);
    if request.fed_auth_required {
        answer = answer.with_fed_auth_required(true);
    }
    Ok(answer.encode())
}

/// Performs the TLS handshake first, and answers PRELOGIN inside it (TDS 8).
pub(crate) async fn accept_strict(
    mut tcp: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    level: EncryptionLevel,
) -> io::Result<TlsStream<DuplexStream>> {
    let (ours, mut theirs) = tokio::io::duplex(PIPE_BYTES);
    let _pump = Tasks::new()
        .spawn(async move { tokio::io::copy_bidirectional(&mut tcp, &mut theirs).await });
    let mut stream = TlsAcceptor::from(tls).accept(ours).await?;
    if stream.get_ref().1.alpn_protocol() != Some(TDS_8) {
        return Err(io::Error::other("the client does not offer tds/8.0"));
    }
    let hello = read_message(&mut stream).await?;
    let answer = prelogin_answer(hello.payload, level)?;
    write_message(&mut stream, PacketType::TabularResult, answer, true).await?;
    Ok(stream)
}

fn packet_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        // Only PRELOGIN packets have a TDS header. A bare TLS record follows the last of these
        // packets.
        [0x12, _, high, low, ..] => Some(usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}
