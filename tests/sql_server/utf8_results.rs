//! Promise: text in a UTF-8 collation is returned unchanged, or the answer is an error. SQL Server also sends the type
//! `json` in this way.

use fjord::procedures::{OwnedCell, SentErrorKind};

use super::{ProcedureCaller, sent_error};
use crate::support::mssql_server::fake_server;

fn cell(text: &str) -> OwnedCell {
    OwnedCell::Text(text.to_owned())
}

#[tokio::test]
async fn text_in_utf8_is_restored_in_its_own_result_set_and_column() {
    let server = fake_server().await;
    let answer = ProcedureCaller::new(&server).call("utf8", &[]).await.expect("an answer");
    let row = |id, utf8| vec![OwnedCell::Int(id), cell("Ã©"), utf8, cell("Ã")];
    let rows = vec![row(1, cell("é€日本😀")), row(2, OwnedCell::Null), row(3, cell("ascii"))];
    assert_eq!(answer.sets, [vec![vec![cell("Ã©")]], rows, vec![vec![cell("Ã©")]]]);
}

#[tokio::test]
async fn text_in_utf8_that_cannot_be_restored_is_an_error() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let error = sent_error(caller.call("utf8_japanese", &[]).await);
    let SentErrorKind::Undecodable(reason) = error else { panic!("{error:?}") };
    assert!(reason.contains("'v'") && reason.contains("UTF-8 collation"), "{reason}");
    caller.call("nothing", &[]).await.expect("the connection can be used again");
}
