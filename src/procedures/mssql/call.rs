//! Calls a procedure, in one or more attempts (`retry`), each on one connection (`attempt`).
//!
//! An attempt binds the arguments (`bind`), sends them as a remote procedure call or, if an RPC is not possible, as a statement
//! (`statement`), and reads the answer (`execute`), in a transaction if the endpoint requires one (`transaction`). After a
//! failure, `failed_attempt` decides whether the connection is kept and which error (`failure`) the call returns.

mod attempt;
mod bind;
mod execute;
mod failed_attempt;
mod failure;
mod retry;
mod statement;
mod transaction;
