//! Encodes and counts HTTP/2 frames (RFC 9113 §4.1).

/// Encodes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Counts the frames of one type.
pub(crate) fn count(mut bytes: &[u8], kind: u8) -> usize {
    let mut frames = 0;
    while let [a, b, c, frame_kind, ..] = *bytes {
        frames += usize::from(frame_kind == kind);
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    frames
}
