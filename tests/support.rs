//! Real servers, real processes and throw-away certificates for tests and benchmarks.

pub(crate) mod aws;
pub(crate) mod browser;
pub(crate) mod caller_pool;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod connect_proxy;
pub(crate) mod eventually;
pub(crate) mod external_tools;
pub(crate) mod fjord_process;
pub(crate) mod fleet;
pub(crate) mod hex;
pub(crate) mod http2;
pub(crate) mod latency_proxy;
pub(crate) mod ledger_gate;
pub(crate) mod ledger_load;
pub(crate) mod line_filter_proxy;
pub(crate) mod mssql_server;
pub(crate) mod nats;
pub(crate) mod ports;
pub(crate) mod prefix_proxy;
pub(crate) mod process;
pub(crate) mod process_guard;
pub(crate) mod prometheus;
pub(crate) mod pseudo_terminal;
pub(crate) mod random;
pub(crate) mod raw_client;
pub(crate) mod raw_nats;
pub(crate) mod reload;
pub(crate) mod resetting_connection;
pub(crate) mod sigv4;
pub(crate) mod simulated_fleet;
pub(crate) mod stalling_proxy;
pub(crate) mod tds;
pub(crate) mod tokens;
pub(crate) mod trace_collector;

use std::path::PathBuf;

/// Returns the `target` directory of this build.
pub(crate) fn target_directory() -> PathBuf {
    // target/debug/deps/fjord-… and target/release/examples/speed are at the same depth.
    let executable = std::env::current_exe().expect("this executable has a path");
    executable.ancestors().nth(3).expect("cargo built the executable").to_owned()
}

/// Returns the path of the fjord executable. It is the one that `FJORD_TEST_EXECUTABLE` names, or the one of this
/// build.
pub(crate) fn fjord_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FJORD_TEST_EXECUTABLE") {
        return path.into();
    }
    if let Some(path) = option_env!("CARGO_BIN_EXE_fjord") {
        return path.into();
    }
    // Cargo does not set the variable for examples, which are in target/debug/examples.
    let executable = std::env::current_exe().expect("this executable has a path");
    executable.ancestors().nth(2).expect("cargo built the executable").join("fjord")
}
