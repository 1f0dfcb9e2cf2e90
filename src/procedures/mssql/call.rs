//! Calls a procedure: a call is one or more attempts (`retry`), each on one connection (`attempt`).
//!
//! An attempt binds the arguments (`bind`), sends them as a remote procedure call or, where that is not possible, as a
//! statement (`statement`), and reads the answer (`execute`), in a transaction if the endpoint wants one (`transaction`).
//! `failed_attempt` decides what a failure means for the connection and for the call (`failure`).

mod attempt;
mod bind;
mod execute;
mod failed_attempt;
mod failure;
mod retry;
mod statement;
mod transaction;
