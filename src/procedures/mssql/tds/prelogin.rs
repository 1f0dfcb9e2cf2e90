//! The PRELOGIN exchange, which negotiates encryption (MS-TDS 2.2.6.5).

use std::io;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::socket::{END_OF_MESSAGE, HEADER_BYTES, PRELOGIN};

/// The maximum length of an answer. A typical answer has a few dozen bytes.
const ANSWER_BYTES_MAX: usize = 4096;
const ENCRYPTION: u8 = 0x01;
/// The option that announces an access token (FEDAUTHREQUIRED).
const FEDERATED: u8 = 0x06;
const TERMINATOR: u8 = 0xff;
const ENCRYPT_ON: u8 = 0x01;
const ENCRYPT_NOT_SUPPORTED: u8 = 0x02;
const ENCRYPT_REQUIRED: u8 = 0x03;
/// The length of an option header: the token, and the offset and length of the option's data.
const OPTION_BYTES: usize = 5;

/// The reason why the PRELOGIN exchange failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreloginError {
    /// The connection broke.
    #[error("the server did not answer the PRELOGIN packet")]
    Io(#[from] io::Error),
    /// The answer is not TDS.
    #[error("the peer is not a TDS server")]
    NotTds,
    /// The server does not support TLS.
    #[error("the server refuses to encrypt the connection")]
    NotEncrypted,
}

/// The conditions of a PRELOGIN exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PreloginOptions {
    /// Whether the stream is already encrypted.
    pub(super) is_encrypted: bool,
    /// Whether the login has an access token instead of a password.
    pub(super) has_token: bool,
}

/// Exchanges PRELOGIN packets. Requests encryption, which the server must confirm unless the stream
/// is already encrypted. Changes the server's answer so that the driver does not start TLS itself.
pub(super) async fn negotiate<S>(
    stream: &mut S,
    conditions: PreloginOptions,
) -> Result<BytesMut, PreloginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&request(conditions.has_token)).await?;
    stream.flush().await?;
    let mut answer = BytesMut::zeroed(HEADER_BYTES);
    stream.read_exact(&mut answer).await?;
    let length = match answer.as_ref() {
        [_, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if !(HEADER_BYTES..=ANSWER_BYTES_MAX).contains(&length) {
        return Err(PreloginError::NotTds);
    }
    answer.resize(length, 0);
    let payload = answer.get_mut(HEADER_BYTES..).ok_or(PreloginError::NotTds)?;
    stream.read_exact(payload).await?;
    let encryption = encryption_of(payload).ok_or(PreloginError::NotTds)?;
    match *encryption {
        ENCRYPT_ON | ENCRYPT_REQUIRED => *encryption = ENCRYPT_NOT_SUPPORTED,
        // TLS came first (TDS 8), so the server's setting has no effect.
        _ if conditions.is_encrypted => *encryption = ENCRYPT_NOT_SUPPORTED,
        _ => return Err(PreloginError::NotEncrypted),
    }
    Ok(answer)
}

/// Builds the PRELOGIN packet: encryption, no instance name, no MARS and, if needed, an access
/// token.
fn request(has_token: bool) -> BytesMut {
    // The token and the data of each option.
    let options: [(u8, &[u8]); 6] = [
        (0x00, &[0, 0, 0, 0, 0, 0]),
        (ENCRYPTION, &[ENCRYPT_ON]),
        (0x02, &[0]),
        (0x03, &[0, 0, 0, 0]),
        (0x04, &[0]),
        (FEDERATED, &[1]),
    ];
    let options = options.into_iter().filter(|(token, _)| has_token || *token != FEDERATED);
    let options: Vec<_> = options.collect();
    let mut offset = options.len() * OPTION_BYTES + 1;
    let mut index = BytesMut::new();
    let mut data = BytesMut::new();
    for (token, bytes) in options {
        index.put_u8(token);
        index.put_u16(u16::try_from(offset).unwrap_or_default());
        index.put_u16(u16::try_from(bytes.len()).unwrap_or_default());
        data.put_slice(bytes);
        offset += bytes.len();
    }
    index.put_u8(TERMINATOR);
    let mut packet = BytesMut::new();
    packet.put_slice(&[PRELOGIN, END_OF_MESSAGE]);
    packet.put_u16(u16::try_from(offset + HEADER_BYTES).unwrap_or_default());
    packet.put_slice(&[0; 4]);
    packet.put_slice(&index);
    packet.put_slice(&data);
    packet
}

/// Finds the byte that holds the server's encryption setting.
fn encryption_of(payload: &mut [u8]) -> Option<&mut u8> {
    let mut offset = None;
    for option in payload.chunks(OPTION_BYTES) {
        match option {
            [TERMINATOR, ..] => break,
            [ENCRYPTION, high, low, ..] => {
                offset = Some(usize::from(u16::from_be_bytes([*high, *low])));
            }
            _ => {}
        }
    }
    payload.get_mut(offset?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_asks_for_encryption() {
        let mut packet = request(false);
        let length = packet.len();
        assert_eq!(packet.get(2..4), Some(u16::try_from(length).unwrap().to_be_bytes().as_slice()));
        let payload = packet.get_mut(HEADER_BYTES..).unwrap();
        assert_eq!(encryption_of(payload), Some(&mut ENCRYPT_ON.clone()));
    }

    #[test]
    fn an_answer_without_the_encryption_option_is_not_accepted() {
        assert_eq!(encryption_of(&mut [TERMINATOR]), None);
        assert_eq!(encryption_of(&mut [ENCRYPTION, 0, 200, 0, 1, TERMINATOR]), None);
        assert_eq!(encryption_of(&mut []), None);
    }
}
