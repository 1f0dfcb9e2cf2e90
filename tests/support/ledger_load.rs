//! A steady load that writes to the ledger and records every response, and a check of these responses
//! against the ledger.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use fjord::lifecycle::Tasks;
use http::Method;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::task::JoinHandle;

use super::client::Client;
use super::random::SeededRandom;

/// The number of concurrent callers. Every second caller sends at-most-once requests.
pub(crate) const CALLERS: usize = 12;

/// A request and its response.
#[derive(Clone, Debug)]
pub(crate) struct LedgerAnswer {
    /// The request id. The ledger contains it if the request was executed.
    pub(crate) id: String,
    /// Whether the request is at-most-once.
    pub(crate) once: bool,
    /// The status, or 0 if there was no response.
    pub(crate) status: u16,
    /// The problem's slug, or `ok`.
    pub(crate) problem: String,
    /// The time from the request to the response.
    pub(crate) took: Duration,
    /// The time at which the response was received.
    pub(crate) at: SystemTime,
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct LedgerLoad {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<LedgerAnswer>>>,
    callers: Vec<JoinHandle<()>>,
}

/// Picks gateways in turn, like a load balancer.
#[derive(Clone, Debug)]
pub(crate) struct GatewayRotation(Arc<Mutex<Vec<Client>>>);

impl GatewayRotation {
    /// Creates a rotation of clients, one for each gateway.
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        Self(Arc::new(Mutex::new(clients)))
    }

    /// Replaces the clients.
    pub(crate) fn set(&self, clients: Vec<Client>) {
        *self.0.lock().unwrap() = clients;
    }

    fn pick(&self, number: usize) -> Client {
        let clients = self.0.lock().unwrap();
        clients[number % clients.len()].clone()
    }
}

impl LedgerLoad {
    /// Starts the callers. Each caller sends one request at a time. A request executes for 0 to 6 ms.
    pub(crate) fn start(rotation: &GatewayRotation, seed: &mut SeededRandom) -> Self {
        Self::start_callers(CALLERS, rotation, seed)
    }

    /// Starts a number of callers.
    pub(crate) fn start_callers(
        callers: usize,
        rotation: &GatewayRotation,
        seed: &mut SeededRandom,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let next = Arc::new(AtomicUsize::new(0));
        let caller = |number: usize| {
            let (stop, answers, next) =
                (Arc::clone(&stop), Arc::clone(&answers), Arc::clone(&next));
            let (rotation, mut random) = (rotation.clone(), seed.fork());
            Tasks::new().spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let count = next.fetch_add(1, Ordering::Relaxed);
                    let once = number.is_multiple_of(2);
                    let answer = send_request(&rotation.pick(count), once, &mut random).await;
                    answers.lock().unwrap().push(answer);
                }
            })
        };
        let callers = (0..callers).map(caller).collect();
        Self { stop, answers, callers }
    }

    /// Returns the number of responses so far.
    pub(crate) fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Returns the responses so far.
    pub(crate) fn answers(&self) -> Vec<LedgerAnswer> {
        self.answers.lock().unwrap().clone()
    }

    /// Waits for this number of further responses.
    pub(crate) async fn wait_for_more(&self, answers: usize) {
        let target = self.count() + answers;
        let limit = Duration::from_mins(1);
        super::eventually::eventually(limit, super::eventually::TICK, || self.count() >= target)
            .await;
    }

    /// Waits for all running requests and returns all responses.
    pub(crate) async fn stop(self) -> Vec<LedgerAnswer> {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("the caller does not panic");
        }
        let mut answers = self.answers.lock().unwrap();
        std::mem::take(&mut *answers)
    }
}

async fn send_request(client: &Client, once: bool, random: &mut StdRng) -> LedgerAnswer {
    let id = format!("{:032x}", random.random::<u128>());
    let (method, path) = if once { (Method::POST, "/v1/once") } else { (Method::PUT, "/v1/again") };
    let body = json!({ "ms": random.random_range(0..7) });
    let start = Instant::now();
    let answer = client.with_header("x-request-id", &id).try_send(method, path, Some(&body)).await;
    let took = start.elapsed();
    let (status, problem) = match answer {
        Ok(answer) => (answer.status.as_u16(), slug(&answer.body)),
        Err(error) => (0, format!("no answer: {error:?}")),
    };
    LedgerAnswer { id, once, status, problem, took, at: SystemTime::now() }
}

fn slug(body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let slug = document["type"].as_str().and_then(|uri| uri.rsplit(':').next());
    slug.unwrap_or("ok").to_owned()
}

/// The result of checking responses against the ledger: one row in the table of faults.
#[derive(Debug, Default)]
pub(crate) struct Reconciliation {
    /// The name of the fault.
    pub(crate) fault: String,
    /// The number of requests sent.
    pub(crate) requests: usize,
    /// The number of responses by status and problem.
    pub(crate) answers: BTreeMap<String, usize>,
    /// The number of requests without a response.
    pub(crate) lost: usize,
    /// The number of at-most-once requests that were executed twice.
    pub(crate) twice: usize,
    /// The longest response time.
    pub(crate) longest: Duration,
}

impl fmt::Display for Reconciliation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers: Vec<_> = self.answers.iter().map(|(kind, n)| format!("{kind}: {n}")).collect();
        write!(
            f,
            "FAULT {} | sent {} | {} | lost {} | executed twice {} | longest {:.1} s",
            self.fault,
            self.requests,
            answers.join(", "),
            self.lost,
            self.twice,
            self.longest.as_secs_f64()
        )
    }
}

/// Compares responses with the ledger. Asserts that every request answered with 200 was executed, that no
/// request answered with 503 was executed, and that no at-most-once request was executed twice.
pub(crate) fn reconcile(
    fault: &str,
    answers: &[LedgerAnswer],
    ledger: Vec<String>,
) -> Reconciliation {
    let mut executed: HashMap<String, usize> = HashMap::new();
    for id in ledger {
        *executed.entry(id).or_default() += 1;
    }
    let mut reconciliation =
        Reconciliation { fault: fault.to_owned(), ..Reconciliation::default() };
    let mut wrong = Vec::new();
    for answer in answers {
        let times = executed.get(&answer.id).copied().unwrap_or_default();
        reconciliation.requests += 1;
        reconciliation.longest = reconciliation.longest.max(answer.took);
        let kind = match answer.status {
            0 => "none".to_owned(),
            200 => "200".to_owned(),
            status => format!("{status} {}", answer.problem),
        };
        *reconciliation.answers.entry(kind).or_default() += 1;
        if answer.status == 0 {
            reconciliation.lost += 1;
        }
        if answer.once && times > 1 {
            reconciliation.twice += 1;
        }
        let is_wrong = (answer.status == 200 && times == 0)
            || (answer.status == 503 && times > 0)
            || (answer.once && times > 1);
        if is_wrong {
            wrong.push(format!("{answer:?} was executed {times} times"));
        }
    }
    println!("{reconciliation}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    reconciliation
}

impl Reconciliation {
    /// Asserts that every request got a response.
    pub(crate) fn no_request_lost(&self) -> &Self {
        assert_eq!(self.lost, 0, "{self}");
        self
    }

    /// Asserts that every response is a 200.
    pub(crate) fn all_ok(&self) -> &Self {
        assert_eq!(self.answers.get("200"), Some(&self.requests), "{self}");
        self
    }

    /// Asserts that at least one response is of the given kind, which shows that the fault had an effect.
    pub(crate) fn includes(&self, kind: &str) -> &Self {
        assert!(self.answers.contains_key(kind), "{self}");
        self
    }

    /// Asserts that no response is of the given kind.
    pub(crate) fn excludes(&self, kind: &str) -> &Self {
        assert!(!self.answers.contains_key(kind), "{self}");
        self
    }

    /// Asserts that at most `number` responses are not 200.
    pub(crate) fn failures_at_most(&self, number: usize) -> &Self {
        let good = self.answers.get("200").copied().unwrap_or_default();
        assert!(self.requests - good <= number, "{self}");
        self
    }
}
