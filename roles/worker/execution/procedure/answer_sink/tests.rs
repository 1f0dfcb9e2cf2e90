//! Tests the conversion of rows to JSON: the shape of each kind of result, limits, and chunks.

use std::sync::Arc;

use super::*;
use crate::procedures::OwnedCell;

type ShapeCase<'a> = (ResultKind, &'a [&'a str], &'a [Set<'a>], Option<String>);
type Set<'a> = (&'a [&'a str], &'a [&'a [Cell<'a>]]);

fn feed(sink: &mut AnswerSink, sets: &[Set<'_>]) -> Result<(), SinkError> {
    for (columns, rows) in sets {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        sink.begin_set(&columns)?;
        for row in *rows {
            sink.row(row)?;
        }
    }
    Ok(())
}

fn outcome() -> ProcedureResult {
    ProcedureResult {
        outputs: vec![
            ("id".to_owned(), OwnedCell::Int(7)),
            ("a".to_owned(), OwnedCell::Number("1.50".to_owned())),
        ],
        return_status: 0,
    }
}

/// Returns the text of an answer with the given sets and outputs, or `None` if there is no row.
fn text(kind: ResultKind, outputs: &[String], sets: &[Set<'_>]) -> Option<String> {
    let mut sink = AnswerSink::new(kind, 10_000);
    feed(&mut sink, sets).unwrap();
    let text = sink.finish(outputs, &outcome()).unwrap();
    text.map(|text| String::from_utf8(text).unwrap())
}

const ONE: &[Cell<'_>] = &[Cell::Int(1), Cell::Text("x")];
const TWO: &[Cell<'_>] = &[Cell::Null, Cell::Bool(true)];
const NO_ROWS: Set<'_> = (&["a", "b"], &[]);
const ROWS: Set<'_> = (&["a", "b"], &[ONE, TWO]);
const OTHER: Set<'_> = (&["", "c", "c"], &[&[Cell::Float(0.5), Cell::Null, Cell::Binary(b"abc")]]);
const TEXT: Set<'_> = (&["j"], &[&[Cell::Text("[1,")], &[Cell::Null], &[Cell::Text("2]")]]);

#[test]
fn every_result_kind_has_its_shape() {
    use ResultKind as R;
    let object = r#"{"a":1,"b":"x"}"#;
    let both = r#"[{"a":1,"b":"x"},{"a":null,"b":true}]"#;
    let other = r#"[{"column_1":0.5,"c":null,"c_2":"YWJj"}]"#;
    let full = |sets: &str, outputs: &str| {
        Some(format!(r#"{{"sets":{sets},"outputs":{outputs},"return":0}}"#))
    };
    let ok = |text: &str| Some(text.to_owned());
    let cases: [ShapeCase<'_>; 26] = [
        (R::Rows, &[], &[], ok("[]")),
        (R::Rows, &[], &[NO_ROWS], ok("[]")),
        (R::Rows, &[], &[ROWS, OTHER], ok(both)),
        (R::Rows, &[], &[NO_ROWS, OTHER], ok("[]")),
        (R::Row, &[], &[], None),
        (R::Row, &[], &[NO_ROWS, OTHER], None),
        (R::Row, &["id"], &[NO_ROWS], None),
        (R::Row, &[], &[ROWS, OTHER], ok(object)),
        (R::Row, &["id", "a"], &[ROWS], ok(r#"{"a":1,"b":"x","id":7,"a_2":1.50}"#)),
        (R::Row, &["id", "gone"], &[], ok(r#"{"id":7,"gone":null}"#)),
        (R::Value, &[], &[ROWS], ok("1")),
        (R::Value, &[], &[(&["v"], &[&[Cell::Null]])], ok("null")),
        (R::Value, &[], &[NO_ROWS], None),
        (R::Value, &["id"], &[ROWS], ok(r#"{"value":1,"id":7}"#)),
        (R::Value, &["id"], &[], ok(r#"{"value":null,"id":7}"#)),
        (R::Sets, &[], &[], ok("[]")),
        (R::Sets, &[], &[NO_ROWS], ok("[[]]")),
        (R::Sets, &[], &[ROWS, NO_ROWS, OTHER], ok(&format!("[{both},[],{other}]"))),
        (R::Json, &[], &[], ok("null")),
        (R::Json, &[], &[TEXT, ROWS], ok("[1,2]")),
        (R::Json, &[], &[ROWS], ok("1")),
        (R::None, &[], &[ROWS], ok("")),
        (R::Full, &[], &[], full("[]", r#"{"id":7,"a":1.50}"#)),
        (R::Full, &["id"], &[ROWS, OTHER], full(&format!("[{both},{other}]"), r#"{"id":7}"#)),
        (R::Full, &["id"], &[NO_ROWS], full("[[]]", r#"{"id":7}"#)),
        (R::Full, &["ID"], &[NO_ROWS], full("[[]]", r#"{"ID":7}"#)),
    ];
    for (kind, outputs, sets, expected) in cases {
        let names: Vec<String> = outputs.iter().map(ToString::to_string).collect();
        assert_eq!(text(kind, &names, sets), expected, "{kind:?} {outputs:?} {sets:?}");
    }
}

#[test]
fn an_answer_larger_than_its_limit_is_rejected() {
    for kind in [ResultKind::Rows, ResultKind::Sets, ResultKind::Full, ResultKind::Json] {
        let mut sink = AnswerSink::new(kind, 40);
        let text = "x".repeat(20);
        let row: &[Cell<'_>] = &[Cell::Text(&text)];
        assert_eq!(feed(&mut sink, &[(&["t"], &[row])]), Ok(()), "{kind:?}");
        assert_eq!(sink.row(row).and_then(|()| sink.row(row)), Err(SinkError::TooLarge));
        assert!(sink.restart());
        assert_eq!(feed(&mut sink, &[(&["t"], &[row])]), Ok(()), "{kind:?}");
    }
    let mut sink = AnswerSink::new(ResultKind::None, 0);
    assert_eq!(feed(&mut sink, &[ROWS]), Ok(()));
}

#[test]
fn a_value_that_does_not_fit_the_kind_is_refused() {
    let mut sink = AnswerSink::new(ResultKind::Json, 100);
    assert_eq!(feed(&mut sink, &[(&["j"], &[&[Cell::Binary(b"x")]])]), Err(SinkError::Shape));
    let mut sink = AnswerSink::new(ResultKind::Rows, 100);
    assert_eq!(feed(&mut sink, &[(&["a"], &[ONE])]), Err(SinkError::Shape));
}

/// Returns the peak memory, in bytes, that is allocated to write an answer with `rows` rows.
fn memory(kind: ResultKind, rows: i64) -> u64 {
    let outcome = ProcedureResult::default();
    let counted = allocation_counter::measure(|| {
        let mut sink = AnswerSink::new(kind, usize::MAX);
        sink.begin_set(&["number".to_owned()]).unwrap();
        for number in 0..rows {
            sink.row(&[Cell::Int(number)]).unwrap();
        }
        assert!(sink.finish(&[], &outcome).unwrap().is_some());
    });
    counted.bytes_max
}

#[test]
fn no_result_kind_buffers_a_second_copy_of_the_result() {
    let rows = 100_000;
    let least = memory(ResultKind::Rows, rows);
    for kind in [ResultKind::Sets, ResultKind::Full] {
        let used = memory(kind, rows);
        assert!(used < least + least / 10, "{kind:?}: {used} bytes, rows take {least}");
    }
}

/// Returns the number of chunks sent before the answer was complete, and the whole text.
async fn in_chunks(kind: ResultKind, sets: &[Set<'_>]) -> (usize, String) {
    let progress = Arc::<JobProgress>::default();
    progress.chunks.enable(7);
    let mut sink = AnswerSink::new(kind, 1 << 20).with_chunks(&progress);
    let (mut chunks, mut text) = (0, Vec::new());
    for (columns, rows) in sets {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        sink.begin_set(&columns).unwrap();
        for row in *rows {
            sink.row(row).unwrap();
            while sink.is_full() {
                progress.chunks.demand();
                tokio::select! {
                    biased;
                    chunk = progress.chunks.receive() => {
                        assert_eq!(chunk.len(), 7);
                        chunks += 1;
                        text.extend_from_slice(&chunk);
                    }
                    drained = sink.drain() => drained.unwrap(),
                }
            }
        }
    }
    text.extend_from_slice(&progress.chunks.try_receive().unwrap_or_default());
    assert_eq!(sink.restart(), chunks == 0, "a chunk that was sent cannot be taken back");
    if chunks > 0 {
        text.extend(sink.finish(&[], &outcome()).unwrap().unwrap());
    }
    (chunks, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn an_answer_sent_in_chunks_equals_the_answer_sent_whole() {
    let long = [Cell::Int(1), Cell::Text("a longer text, for more than one chunk of it")];
    let sets: [Set<'_>; 3] = [
        (&["a", "b"], &[&long, &[Cell::Null, Cell::Text("")], &long]),
        (&["c"], &[]),
        (&["a", "b"], &[&long]),
    ];
    for kind in [ResultKind::Rows, ResultKind::Sets, ResultKind::Full] {
        let mut whole = AnswerSink::new(kind, 1 << 20);
        feed(&mut whole, &sets).unwrap();
        let whole = String::from_utf8(whole.finish(&[], &outcome()).unwrap().unwrap()).unwrap();
        let (chunks, text) = in_chunks(kind, &sets).await;
        assert!(chunks > 10, "{kind:?}");
        assert_eq!(text, whole, "{kind:?}");
    }
    let json: [Set<'_>; 1] = [(&["x"], &[&[Cell::Text("[1,2,3,4,5,6,7,")], &[Cell::Text("8,9]")]])];
    let text = "[1,2,3,4,5,6,7,8,9]".to_owned();
    let (chunks, found) = in_chunks(ResultKind::Json, &json).await;
    assert_eq!((chunks > 0, found), (true, text));
    assert_eq!(in_chunks(ResultKind::Rows, &[]).await, (0, String::new()));
}

#[tokio::test]
async fn an_answer_whose_channel_was_closed_is_never_completed() {
    let progress = Arc::<JobProgress>::default();
    progress.chunks.enable(7);
    let mut sink = AnswerSink::new(ResultKind::Rows, 1 << 20).with_chunks(&progress);
    feed(&mut sink, &[(&["a"], &[&[Cell::Text("longer than a chunk")]])]).unwrap();
    progress.chunks.close();
    assert_eq!(sink.drain().await, Err(SinkError::Closed));
    assert_eq!(sink.finish(&[], &outcome()), Err(SinkError::Closed));
}

#[test]
fn rows_and_values_can_be_written_in_other_representations() {
    let write = |kind, representation: Representation, sets: &[Set<'_>]| {
        let mut sink = AnswerSink::new(kind, 10_000).with_representation(&representation);
        feed(&mut sink, sets).unwrap();
        assert!(sink.restart(), "a retry keeps the representation");
        feed(&mut sink, sets).unwrap();
        let text = sink.finish(&[], &outcome()).unwrap();
        text.map(|text| String::from_utf8(text).unwrap())
    };
    let raw = || Representation::Raw("text/plain".into());
    let nested: Set<'_> = (&["j"], &[&[Cell::Json("{\n\"a\":\r1}")]]);
    let empty: Set<'_> = (&["v"], &[&[Cell::Binary(b"")]]);
    let null: Set<'_> = (&["v"], &[&[Cell::Null]]);
    for (kind, representation, sets, expected) in [
        (
            ResultKind::Rows,
            Representation::Csv,
            &[ROWS, OTHER][..],
            Some("a,b\r\n1,x\r\n,true\r\n"),
        ),
        (ResultKind::Rows, Representation::Csv, &[NO_ROWS], Some("a,b\r\n")),
        (ResultKind::Rows, Representation::Csv, &[], Some("")),
        (
            ResultKind::Rows,
            Representation::Ndjson,
            &[ROWS, OTHER],
            Some("{\"a\":1,\"b\":\"x\"}\n{\"a\":null,\"b\":true}\n"),
        ),
        (ResultKind::Rows, Representation::Ndjson, &[nested], Some("{\"j\":{ \"a\": 1}}\n")),
        (ResultKind::Rows, Representation::Ndjson, &[], Some("")),
        (ResultKind::Value, raw(), &[ROWS], Some("1")),
        (ResultKind::Value, raw(), &[TEXT], Some("[1,")),
        (ResultKind::Value, raw(), &[empty], Some("")),
        (ResultKind::Value, raw(), &[null], None),
        (ResultKind::Value, raw(), &[NO_ROWS], None),
        (ResultKind::Value, raw(), &[], None),
    ] {
        let written = write(kind, representation.clone(), sets);
        assert_eq!(written.as_deref(), expected, "{kind:?} {representation:?} {sets:?}");
    }
}
