//! Promise: the port of a named instance comes from SQL Server Browser. A server that does not
//! answer, or sends an invalid answer, cannot delay a login beyond its time limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fjord::config::procedures::MssqlInstance;
use fjord::lifecycle::Tasks;
use fjord::procedures::BackendErrorKind;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::{ProcedureCaller, unsent_error};
use crate::support::mssql_server::{SqlServer, fake_server};

/// A stub of SQL Server Browser. It stops when it is dropped.
struct FakeBrowser {
    port: u16,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FakeBrowser {
    /// Starts a stub that ignores the first requests, and sends these answers to each later
    /// request.
    async fn start(ignored: usize, answers: Vec<Vec<u8>>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let task = Tasks::new().spawn(async move {
            let mut request = [0; 64];
            loop {
                let (length, from) = socket.recv_from(&mut request).await.expect("a request");
                assert_eq!(&request[..length], b"\x04REPORTS\0");
                if count.fetch_add(1, Ordering::AcqRel) >= ignored {
                    for answer in &answers {
                        socket.send_to(answer, from).await.expect("an answer");
                    }
                }
            }
        });
        Self { port, requests, task }
    }
}

impl Drop for FakeBrowser {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(instance: &str, port: u16) -> Vec<u8> {
    let text = format!("ServerName;HERE;InstanceName;{instance};tcp;{port};;");
    let length = u16::try_from(text.len()).expect("a short text").to_le_bytes();
    [&[5, length[0], length[1]][..], text.as_bytes()].concat()
}

/// Makes the server a named instance whose port only the stub knows.
fn named(server: &SqlServer, browser: &FakeBrowser) -> SqlServer {
    let instance = MssqlInstance { name: "REPORTS".to_owned(), browser_port: browser.port };
    let mut config = server.config.clone();
    (config.instance, config.port) = (Some(instance), 1);
    SqlServer { config, name: server.name, is_babelfish: false, fake: None }
}

#[tokio::test]
async fn an_instance_is_found_after_lost_and_wrong_answers() {
    let server = fake_server().await;
    let port = server.config.port;
    let answers = vec![b"nonsense".to_vec(), answer("OTHER", 1), answer("reports", port)];
    let browser = FakeBrowser::start(1, answers).await;
    let caller = ProcedureCaller::new(&named(&server, &browser));
    caller.call("nothing", &[]).await.expect("an answer");
    assert_eq!(browser.requests.load(Ordering::Acquire), 2);
}

#[tokio::test]
async fn an_instance_that_is_not_found_makes_the_database_unavailable_in_time() {
    let server = fake_server().await;
    for answers in [vec![], vec![answer("OTHER", server.config.port)]] {
        let browser = FakeBrowser::start(0, answers).await;
        let caller = ProcedureCaller::new(&named(&server, &browser));
        let started = Instant::now();
        let error = unsent_error(caller.call("nothing", &[]).await);
        assert_eq!(error, BackendErrorKind::Unavailable);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(browser.requests.load(Ordering::Acquire), 3);
    }
    let state = &server.fake.as_ref().expect("the fake server").state;
    assert_eq!(state.connects.load(Ordering::Acquire), 0);
}
