//! Promise: text and binary data are passed and returned up to the declared length, also at the largest
//! lengths that can be declared. One more byte, or pair of bytes, is refused.

use super::super::ProcedureCaller;
use super::type_limits::{TypeLimits, bytes, limits, same, same_bytes, words};
use super::walk;
use crate::support::mssql_server::servers;

fn longest() -> Vec<TypeLimits> {
    vec![
        limits(
            "echo_varchar_8000",
            vec![same(&"a".repeat(8000)), same(&"é".repeat(8000))],
            vec![
                (words(&"a".repeat(8001)), "longer than varchar(8000)"),
                (
                    words(&"é".repeat(8001)),
                    "longer than varchar(8000): 8001 bytes in code page 1252",
                ),
            ],
        ),
        limits(
            "echo_nvarchar_4000",
            vec![same(&"a".repeat(4000)), same(&"日".repeat(4000)), same(&"𝄞".repeat(2000))],
            vec![
                (words(&"a".repeat(4001)), "longer than nvarchar(4000)"),
                (words(&"日".repeat(4001)), "longer than nvarchar(4000)"),
                (words(&format!("{}a", "𝄞".repeat(2000))), "longer than nvarchar(4000)"),
            ],
        ),
        limits(
            "echo_varbinary_8000",
            vec![same_bytes(7999), same_bytes(8000)],
            vec![(bytes(8001), "longer than varbinary(8000): 8001 bytes")],
        ),
    ]
}

/// The driver passes more than 4,000 bytes of UTF-8, or 8,000 bytes of binary data, as `(max)`. Fails if
/// such a value is cut, or if a value that the server would cut is sent.
#[tokio::test]
async fn the_longest_values_are_passed_and_longer_ones_refused() {
    for server in servers().await {
        walk(&ProcedureCaller::new(&server), server.name, longest()).await;
    }
}
