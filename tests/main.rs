//! The promises of fjord, a file for each, on real servers and real processes.

#[cfg(test)]
mod simulates_sessions;
//! tests

#[cfg(test)]
mod lets_nobody_in_without_proof;
#[cfg(test)]
mod support;
