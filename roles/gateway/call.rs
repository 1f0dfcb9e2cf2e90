//! One call without a client: what `fjord call` does with a gateway's own session, claims, offers and deadlines.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint_call::{EndpointCall, EndpointCallResult};
use crate::future::BoxFuture;
use crate::lifecycle::Tasks;
use crate::messaging::TransportError;
use crate::problem::{Problem, ProblemKind};

use crate::roles::gateway::client::byte_budget::ByteBudget;
use crate::roles::gateway::client::network::ClientNetwork;
use crate::roles::gateway::dispatch::place::Answered;
use crate::roles::gateway::dispatch::place::Wanted;
use crate::roles::gateway::dispatch::session::Ending;
use crate::roles::gateway::observation::phases::Phase;
use crate::roles::gateway::observation::phases::Phases;
use crate::roles::gateway::run::placer;

/// How long a call that was given up may take to cancel itself at its worker.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(2);

/// Dispatches one call and waits for its answer. An interrupt cancels it, as a client's disconnect would.
///
/// # Errors
/// `TransportError` when the gateway cannot subscribe to replies.
pub fn execute(
    call: EndpointCall,
) -> BoxFuture<'static, Result<EndpointCallResult, TransportError>> {
    Box::pin(async move {
        let EndpointCall { endpoint, request, config, transport } = call;
        let tasks = Tasks::new();
        let queues = std::slice::from_ref(&endpoint.queue);
        let placer = placer(&config, queues, transport, &tasks).await?;
        let began = Instant::now();
        let client = ClientNetwork::new(Ipv4Addr::LOCALHOST.into(), 0);
        let room = ByteBudget::unbounded().nothing(client);
        let wanted = Wanted::new(true, room);
        let ended = tokio::select! {
            ended = placer.place(&endpoint, request, wanted) => Some(ended),
            _ = tokio::signal::ctrl_c() => None,
        };
        // A call asks for no window, so that no answer begins before its end is known.
        let Some(Answered::Whole(ended)) = ended else {
            let _whole = tasks.wait(GIVE_UP_LIMIT).await;
            let answer = Err(Problem::new(ProblemKind::Cancelled));
            let (attempts, phases) = (0, Vec::new());
            return Ok(EndpointCallResult { answer, attempts, duration: began.elapsed(), phases });
        };
        let mut phases = Phases::default();
        phases.set(Phase::QueueWait, ended.waited);
        let answer = match ended.ending {
            Ending::Final(answer) => {
                phases.split(ended.answered, answer.phases);
                Ok(answer)
            }
            Ending::Problem(kind) => {
                Err(Problem { retry_after: ended.retry_after, ..Problem::new(kind) })
            }
            Ending::Cut(_) => Err(Problem::new(ProblemKind::BadAnswer)),
            Ending::ClientGone => Err(Problem::new(ProblemKind::Cancelled)),
        };
        Ok(EndpointCallResult {
            answer,
            attempts: ended.attempts,
            duration: began.elapsed(),
            phases: phases.passed().collect(),
        })
    })
}
