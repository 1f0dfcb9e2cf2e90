//! The promises of fjord, a file for each, on real servers and real processes.

#[cfg(test)]
mod simulates_sessions;
