//! Calls a procedure in one or more attempts (`retry`), each on one connection (`attempt`).
//!
//! An attempt binds the arguments (`bind`), sends them as a remote procedure call, or as a
//! statement if an RPC is not possible (`statement`), and reads the answer (`execute`). If the
//! endpoint requires a transaction, the call runs in one (`transaction`). `session_context` tells
//! the procedure who is calling. After a failure, `failed_attempt` decides whether to keep the
//! connection and which error (`failure`) to return. `unsent` handles failures before the call is
//! sent.

mod attempt;
mod bind;
mod execute;
mod failed_attempt;
mod failure;
mod retry;
mod session_context;
mod statement;
mod transaction;
mod unsent;

pub(super) use session_context::SessionContextPermission;
