//! Queries the database for procedure signatures and the kind of server.

mod describe;
mod object_kind;
mod result_query;
mod server;
mod signature;
mod signature_query;
mod signatures;
mod table_query;

pub(super) use describe::describe;
pub(super) use result_query::describe_result;
pub(super) use server::{
    ServerCapabilities, ServerDetector, SessionContextKind, VarcharEncoding,
    unsupported_session_context,
};
pub(super) use signature::{Signature, SqlParameter, SqlParameterType, unsupported_table_type};
pub(super) use signature_query::PROCEDURES_PER_QUERY;
pub(super) use signatures::{SignatureCache, SignatureLookup};
pub(super) use table_query::{TableColumn, TableQuery};
