//! What is held back of a response, and what is not.

use tokio::io::AsyncWriteExt;

use super::*;

const OURS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n";
/// A body that looks like an answer.
const BODY: &str = "HTTP/1.1 400 Bad Request\r\n\r\nxx";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HEAD: &str = "HTTP/1.1 304 Not Modified\r\n\r\n";
/// With a chunk that looks like the last one.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\n\r\n1E\r\nHTTP/1.1 400 Bad Request\r\n\r\nxx\r\n\
                       5\r\n0\r\n\r\n\r\n0\r\n\r\n";
const HYPERS: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";

fn held_back(due: Due) -> Held<Vec<u8>> {
    Held::new(Vec::new(), due, Arc::new(Activity::new()))
}

/// What reaches the wire, and what is held back, however the bytes are cut.
async fn check(due: &[Length], texts: &[&str], expected: &[&str], status: Option<u16>) {
    for cut in [1, 13, 16, usize::MAX] {
        let held = Due::default();
        for length in due {
            held.announce(*length);
        }
        let mut io = held_back(held);
        for text in texts {
            // hyper writes heads whole; a body may be cut anywhere.
            let cut = if [BODY, CHUNKED].contains(text) && cut >= 13 { cut } else { usize::MAX };
            for piece in text.as_bytes().chunks(cut.min(text.len())) {
                io.write_all(piece).await.unwrap();
            }
        }
        let (wire, left) = io.into_inner();
        assert_eq!(String::from_utf8(wire).unwrap(), expected.concat(), "{cut}");
        let status = status.map(|status| StatusCode::from_u16(status).unwrap());
        assert_eq!(left, status.map_or(Left::Between, Left::Refused));
    }
}

#[tokio::test]
async fn what_is_not_due_is_held_back_and_nothing_else() {
    check(&[Some(30)], &[OURS, BODY], &[OURS, BODY], None).await;
    check(&[Some(30)], &[CONTINUE, OURS, BODY], &[CONTINUE, OURS, BODY], None).await;
    check(&[Some(0), Some(30)], &[HEAD, OURS, BODY], &[HEAD, OURS, BODY], None).await;
    check(&[], &[HYPERS], &[], Some(431)).await;
    check(&[], &[CONTINUE, HYPERS], &[CONTINUE], Some(431)).await;
    check(&[Some(30)], &[OURS, BODY, HYPERS], &[OURS, BODY], Some(431)).await;
    check(&[None, Some(30)], &[CHUNKED, OURS, BODY, HYPERS], &[CHUNKED, OURS, BODY], Some(431))
        .await;
    let together = [OURS, BODY, HYPERS].concat();
    check(&[Some(30)], &[&together], &[OURS, BODY], Some(431)).await;
}

/// A head byte by byte.
fn go_through_bytes(last: &mut u32, bytes: &[u8]) -> usize {
    for (at, byte) in bytes.iter().enumerate() {
        *last = *last << 8 | u32::from(*byte);
        if *last == HEAD_END {
            return at + 1;
        }
    }
    bytes.len()
}

proptest::proptest! {
    #[test]
    fn a_head_ends_where_it_does_byte_by_byte(
        text in "[\r\n:x]{0,40}",
        before in "[\r\nx]{0,4}",
        cuts in proptest::collection::vec(1..9usize, 1..20),
    ) {
        let mut last = before.bytes().fold(0, |last, byte| last << 8 | u32::from(byte));
        let mut reference = last;
        proptest::prop_assume!(last != HEAD_END);
        let (mut rest, mut cuts) = (text.as_bytes(), cuts.into_iter().cycle());
        while !rest.is_empty() && reference != HEAD_END {
            let piece = &rest[..cuts.next().unwrap().min(rest.len())];
            let end = go_through_bytes(&mut reference, piece);
            let mut at = 0;
            while at < piece.len() && last != HEAD_END {
                at += go_through_line(&mut last, &piece[at..]);
            }
            proptest::prop_assert_eq!((at, last), (end, reference));
            rest = &rest[piece.len()..];
        }
    }
}

#[tokio::test]
async fn a_short_write_is_gone_on_with() {
    let (client, mut server) = tokio::io::duplex(7);
    let due = Due::default();
    due.announce(Some(30));
    let mut io = Held::new(client, due, Arc::new(Activity::new()));
    let reading = async {
        let mut read = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut server, &mut read).await.unwrap();
        read
    };
    let writing = async {
        io.write_all([CONTINUE, OURS, BODY, CONTINUE, HYPERS].concat().as_bytes()).await.unwrap();
        let (client, left) = io.into_inner();
        drop(client);
        left
    };
    let (read, left) = tokio::join!(reading, writing);
    assert_eq!(read, [CONTINUE, OURS, BODY, CONTINUE].concat());
    assert_eq!(left, Left::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_known() {
    let due = Due::default();
    due.announce(Some(30));
    let mut io = held_back(due.clone());
    io.write_all([OURS, "HTTP/1.1 4"].concat().as_bytes()).await.unwrap();
    assert_eq!(io.into_inner().1, Left::Within);
    due.announce(None);
    let mut io = held_back(due.clone());
    io.write_all(CHUNKED.strip_suffix("0\r\n\r\n").unwrap().as_bytes()).await.unwrap();
    assert_eq!(io.into_inner().1, Left::Within, "its last chunk is missing");
    due.announce(Some(0));
    assert_eq!(held_back(due).into_inner().1, Left::Within, "not begun");
}
