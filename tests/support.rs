//! What the tests and the demo stand on: real servers, real processes, throw-away certificates.

pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod delay;
pub(crate) mod eventually;
pub(crate) mod fjord;
pub(crate) mod guard;
pub(crate) mod http2;
pub(crate) mod load;
pub(crate) mod mssql_server;
pub(crate) mod nats;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod raw;
pub(crate) mod raw_nats;
pub(crate) mod resetting;
pub(crate) mod seed;
pub(crate) mod stall;
pub(crate) mod tds;
pub(crate) mod terminal;
pub(crate) mod tokens;
pub(crate) mod tools;

use std::path::PathBuf;

/// The `target` directory that this executable was built in.
pub(crate) fn target_directory() -> PathBuf {
    // target/debug/deps/fjord-… and target/debug/examples/demo are equally deep.
    let executable = std::env::current_exe().expect("this executable has a path");
    executable.ancestors().nth(3).expect("built by cargo").to_owned()
}

/// The executable that is tried: built beside this one.
pub(crate) fn fjord_binary() -> PathBuf {
    if let Some(path) = option_env!("CARGO_BIN_EXE_fjord") {
        return path.into();
    }
    // An example is not told: target/debug/examples/demo, target/debug/fjord.
    let executable = std::env::current_exe().expect("this executable has a path");
    executable.ancestors().nth(2).expect("built by cargo").join("fjord")
}
