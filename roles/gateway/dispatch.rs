//! Sends a request to the workers of its queue and collects their replies.

pub mod budget;
pub(in crate::roles::gateway) mod distance;
pub mod hold;
pub mod mail;
pub mod members;
pub mod place;
pub mod queues;
pub mod rejections;
pub(in crate::roles::gateway) mod repeat;
pub mod replies;
pub mod session;
pub mod timing;
pub(in crate::roles::gateway) mod traced;
