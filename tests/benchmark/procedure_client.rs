//! Calls procedures over NATS, as a gateway does.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use clap::Args;
use fjord::envelope::headers;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::reference_servers;

/// The time limit for a reply. A lost reply counts as a failure.
const REPLY_LIMIT: Duration = Duration::from_secs(30);

/// The request that every caller sends.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProcedureRequest {
    /// The subject of the requests. Without one, requests are for the NATS reference server.
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// The endpoint that the requests name.
    #[arg(long, default_value = "")]
    pub(crate) endpoint: String,
    /// The payload of the requests.
    #[arg(long, default_value = "")]
    pub(crate) payload: String,
}

/// A caller, which sends one request at a time.
pub(crate) struct NatsCaller {
    client: Client,
    request: ProcedureRequest,
    subject: String,
    inbox: String,
    replies: Subscriber,
    /// The number of requests so far.
    sent: u64,
}

impl NatsCaller {
    /// Opens a connection and creates callers that share it.
    pub(crate) async fn new(
        url: &str,
        ca: PathBuf,
        request: &ProcedureRequest,
        number: usize,
    ) -> Vec<Self> {
        let client = reference_servers::connect(url, ca).await;
        let subject = request.subject.clone().expect("--subject");
        let mut callers = Vec::new();
        for _ in 0..number {
            let inbox = client.new_inbox();
            let replies = client.subscribe(inbox.clone()).await.expect("a subscription");
            let (client, request, subject) = (client.clone(), request.clone(), subject.clone());
            callers.push(Self { client, request, subject, inbox, replies, sent: 0 });
        }
        client.flush().await.expect("the connection is open");
        callers
    }

    /// Makes a call. Returns the answer, or `None` if the call failed.
    pub(crate) async fn answer(&mut self) -> Option<Bytes> {
        self.sent += 1;
        let mut map = HeaderMap::new();
        map.insert(headers::ENDPOINT, self.request.endpoint.as_str());
        // This id is as long as a gateway's request ids.
        map.insert(headers::REQUEST_ID, format!("{:036}", self.sent));
        let payload = Bytes::from(self.request.payload.clone());
        let (subject, inbox) = (self.subject.clone(), self.inbox.clone());
        self.client.publish_with_reply_and_headers(subject, inbox, map, payload).await.ok()?;
        loop {
            let reply = timeout(REPLY_LIMIT, self.replies.next()).await.ok()??;
            match kind(&reply) {
                // A worker of fjord reports the progress of a slow call.
                Some("progress") => {}
                Some("final") => return (status(&reply) == Some("200")).then_some(reply.payload),
                Some(_) => return None,
                None => {
                    let has_responder = reply.status != Some(StatusCode::NO_RESPONDERS);
                    return has_responder.then_some(reply.payload);
                }
            }
        }
    }
}

fn kind(reply: &Message) -> Option<&str> {
    Some(reply.headers.as_ref()?.get(headers::REPLY)?.as_str())
}

fn status(reply: &Message) -> Option<&str> {
    Some(reply.headers.as_ref()?.get(headers::STATUS)?.as_str())
}
