//! Tests messages with several calls.

use super::*;

const RESET: u8 = 0x08;
/// `ALL_HEADERS` with the transaction of the request.
const HEADERS: [u8; 22] = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

fn value(key: &str, value: &str) -> SessionValue<'static> {
    SessionValue { key: key.into(), value: Some(Cow::Owned(value.to_owned())) }
}

/// Returns the status bytes of a message's packets and the payload.
fn read(mut message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut statuses, mut payload) = (Vec::new(), Vec::new());
    while !message.is_empty() {
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        let is_full = length == PACKET_BYTES_MAX;
        assert!(message[0] == RPC && (is_full || length == message.len()), "a short packet");
        assert_eq!(usize::from(message[6]), (statuses.len() + 1) % 256);
        statuses.push(message[1]);
        payload.extend_from_slice(&message[HEADER_BYTES..length]);
        message = &message[length..];
    }
    (statuses, payload)
}

#[test]
fn calls_are_added_after_the_headers_of_the_message() {
    let PrecedingCalls { bytes: preceding, count } =
        set_session_values(&[value("a", "ä")], true).unwrap();
    assert_eq!(count, 1);
    for call_bytes in [1, 100, 4000, 4088, 8176, 50_000] {
        for step in [1, 7, 4088] {
            let call: Vec<u8> = (0..call_bytes).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let message = [&HEADERS[..], &call].concat();
            let mut joined = JoinedCalls::new(preceding.clone(), RESET);
            let mut out = BytesMut::new();
            message.chunks(step).for_each(|part| joined.push(part, &mut out));
            joined.end(&mut out);
            let (statuses, payload) = read(&out);
            assert_eq!(payload, [&HEADERS[..], &preceding, &call].concat());
            let (last, before) = statuses.split_last().unwrap();
            assert_eq!(last & END_OF_MESSAGE, END_OF_MESSAGE);
            assert!(before.iter().all(|status| status & END_OF_MESSAGE == 0));
            assert_eq!(statuses[0] & RESET, RESET);
            assert!(statuses[1..].iter().all(|status| status & RESET == 0));
        }
    }
}

#[test]
fn a_value_of_at_most_8000_bytes_is_encoded() {
    assert!(set_session_values(&[value("a", &"ä".repeat(4000))], true).is_ok());
    assert!(set_session_values(&[value("a", &"𝄞".repeat(2000))], true).is_ok());
    for too_long in ["ä".repeat(4001), "𝄞".repeat(2001), "a".repeat(1 << 17)] {
        let values = [value("first", "x"), value("second", &too_long)];
        assert_eq!(set_session_values(&values, true).unwrap_err(), "second".into());
    }
}
