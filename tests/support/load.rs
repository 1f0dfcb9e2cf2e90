//! Steady load that writes into the ledger and keeps every answer; afterwards both are held against each other.

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
use super::seed::Seed;

/// Callers at once, half of each kind.
pub(crate) const CALLERS: usize = 12;

/// One request and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Its id: also in the ledger when it was executed.
    pub(crate) id: String,
    /// Whether it may be executed only once.
    pub(crate) once: bool,
    /// The status; 0 when no answer came at all.
    pub(crate) status: u16,
    /// The problem's slug, or `ok`.
    pub(crate) word: String,
    /// How long the answer took.
    pub(crate) took: Duration,
    /// When it was there.
    pub(crate) at: SystemTime,
}

/// Load that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Told>>>,
    callers: Vec<JoinHandle<()>>,
}

/// The gateways that take part, as a balancer sees them.
#[derive(Clone, Debug)]
pub(crate) struct Rotation(Arc<Mutex<Vec<Client>>>);

impl Rotation {
    /// These clients, each of one gateway.
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        Self(Arc::new(Mutex::new(clients)))
    }

    /// Takes other gateways from here on.
    pub(crate) fn set(&self, clients: Vec<Client>) {
        *self.0.lock().unwrap() = clients;
    }

    fn pick(&self, number: usize) -> Client {
        let clients = self.0.lock().unwrap();
        clients[number % clients.len()].clone()
    }
}

impl Load {
    /// Starts callers that send one request after the other, each a few milliseconds of work.
    pub(crate) fn start(rotation: &Rotation, seed: &mut Seed) -> Self {
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
                    let told = ask(&rotation.pick(count), once, &mut random).await;
                    answers.lock().unwrap().push(told);
                }
            })
        };
        let callers = (0..CALLERS).map(caller).collect();
        Self { stop, answers, callers }
    }

    /// How many answers there are.
    pub(crate) fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// The answers so far.
    pub(crate) fn answers(&self) -> Vec<Told> {
        self.answers.lock().unwrap().clone()
    }

    /// Waits until so many more answers have come.
    pub(crate) async fn more(&self, answers: usize) {
        let target = self.count() + answers;
        let limit = Duration::from_mins(1);
        super::eventually::eventually(limit, super::eventually::TICK, || self.count() >= target)
            .await;
    }

    /// Lets every request end and returns all answers.
    pub(crate) async fn stop(self) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("a caller does not panic");
        }
        let mut answers = self.answers.lock().unwrap();
        std::mem::take(&mut *answers)
    }
}

async fn ask(client: &Client, once: bool, random: &mut StdRng) -> Told {
    let id = format!("{:032x}", random.random::<u128>());
    let (method, path) = if once { (Method::POST, "/v1/once") } else { (Method::PUT, "/v1/again") };
    let body = json!({ "ms": random.random_range(0..7) });
    let start = Instant::now();
    let answer = client.with_header("x-request-id", &id).try_send(method, path, Some(&body)).await;
    let took = start.elapsed();
    let (status, word) = match answer {
        Ok(answer) => (answer.status.as_u16(), slug(&answer.body)),
        Err(error) => (0, format!("no answer: {error:?}")),
    };
    Told { id, once, status, word, took, at: SystemTime::now() }
}

fn slug(body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let slug = document["type"].as_str().and_then(|uri| uri.rsplit(':').next());
    slug.unwrap_or("ok").to_owned()
}

/// What came of a load: a line of the table of faults.
#[derive(Debug, Default)]
pub(crate) struct Reckoning {
    /// The fault.
    pub(crate) fault: String,
    /// Requests sent.
    pub(crate) requests: usize,
    /// Answers by status and kind.
    pub(crate) answers: BTreeMap<String, usize>,
    /// Requests without an answer.
    pub(crate) lost: usize,
    /// At-most-once requests that were executed twice.
    pub(crate) twice: usize,
    /// The longest that an answer took.
    pub(crate) longest: Duration,
}

impl fmt::Display for Reckoning {
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

/// Holds answers against the ledger: every 200 has its execution, what was "not executed" has none, no
/// at-most-once request has two, and every request has its one answer.
pub(crate) fn reckon(fault: &str, answers: &[Told], ledger: Vec<String>) -> Reckoning {
    let mut executed: HashMap<String, usize> = HashMap::new();
    for id in ledger {
        *executed.entry(id).or_default() += 1;
    }
    let mut reckoning = Reckoning { fault: fault.to_owned(), ..Reckoning::default() };
    let mut wrong = Vec::new();
    for told in answers {
        let times = executed.get(&told.id).copied().unwrap_or_default();
        reckoning.requests += 1;
        reckoning.longest = reckoning.longest.max(told.took);
        let kind = match told.status {
            0 => "none".to_owned(),
            200 => "200".to_owned(),
            status => format!("{status} {}", told.word),
        };
        *reckoning.answers.entry(kind).or_default() += 1;
        if told.status == 0 {
            reckoning.lost += 1;
        }
        if told.once && times > 1 {
            reckoning.twice += 1;
        }
        let is_untrue = (told.status == 200 && times == 0)
            || (told.status == 503 && times > 0)
            || (told.once && times > 1);
        if is_untrue {
            wrong.push(format!("{told:?} was executed {times} times"));
        }
    }
    println!("{reckoning}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    reckoning
}

impl Reckoning {
    /// Every request was answered.
    pub(crate) fn nothing_lost(&self) -> &Self {
        assert_eq!(self.lost, 0, "{self}");
        self
    }

    /// Every answer is a 200.
    pub(crate) fn all_well(&self) -> &Self {
        assert_eq!(self.answers.get("200"), Some(&self.requests), "{self}");
        self
    }

    /// At least one answer is of this kind: the fault was met.
    pub(crate) fn some(&self, kind: &str) -> &Self {
        assert!(self.answers.contains_key(kind), "{self}");
        self
    }

    /// No answer is of this kind.
    pub(crate) fn none(&self, kind: &str) -> &Self {
        assert!(!self.answers.contains_key(kind), "{self}");
        self
    }

    /// Answers that are not 200 are at most so many.
    pub(crate) fn others_at_most(&self, number: usize) -> &Self {
        let good = self.answers.get("200").copied().unwrap_or_default();
        assert!(self.requests - good <= number, "{self}");
        self
    }
}
