//! A real Prometheus from Debian's package (`make prometheus`). Without it, tests are skipped.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use super::client::get_json;
use super::eventually::eventually_some;
use super::ports;
use super::process::Process;

/// The time limit for Prometheus to start and to scrape every target once.
const STARTED_LIMIT: Duration = Duration::from_secs(30);
/// The window of the shipped rules' rates after the replacements in `PACES`. It covers ten scrapes.
pub(crate) const PACE: Duration = Duration::from_secs(10);
/// The windows in the shipped rules, and their replacements.
const PACES: [(&str, &str); 3] = [("[2m]", "[10s]"), ("[5m]", "[10s]"), ("[1h]", "[20s]")];
/// The directory below `target` into which `make prometheus` unpacks the package.
const UNPACKED: &str = "prometheus/usr/bin";

/// Finds `promtool`. If it is missing, prints that `what` is skipped.
pub(crate) fn promtool(what: &str) -> Option<PathBuf> {
    find("promtool", what)
}

/// Finds `prometheus`. If it is missing, prints that `what` is skipped.
pub(crate) fn server(what: &str) -> Option<PathBuf> {
    find("prometheus", what)
}

fn find(name: &str, what: &str) -> Option<PathBuf> {
    let own = super::target_directory().join(UNPACKED).join(name);
    let on_path = PathBuf::from(name);
    let found = [own, on_path].into_iter().find(|path| {
        let version = Command::new(path).arg("--version").output();
        version.is_ok_and(|answer| answer.status.success())
    });
    if found.is_none() {
        println!("SKIPPED: {what}: no {name}; `make prometheus` installs it");
    }
    found
}

/// Runs a tool with this input. Returns its output, as `Err` if the tool failed.
pub(crate) fn run(tool: &PathBuf, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool can be run");
    let written = child.stdin.take().expect("the output is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the process ends");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() && written.is_ok() { Ok(text) } else { Err(text) }
}

/// A Prometheus that scrapes its targets every second. It is stopped when this value is dropped.
#[derive(Debug)]
pub(crate) struct Prometheus {
    process: Process,
    port: u16,
    _home: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with the shipped rules and returns once every target has been scraped.
    pub(crate) async fn start(executable: PathBuf, targets: &[SocketAddr]) -> Self {
        Self::start_with(executable, targets, &[]).await
    }

    /// Starts Prometheus with the shipped rules, their windows shortened according to `PACES`.
    pub(crate) async fn start_at_pace(executable: PathBuf, targets: &[SocketAddr]) -> Self {
        Self::start_with(executable, targets, &PACES).await
    }

    async fn start_with(
        executable: PathBuf,
        targets: &[SocketAddr],
        paces: &[(&str, &str)],
    ) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/alerts");
        for name in ["capacity.yml", "alerts.yml"] {
            let text =
                fs::read_to_string(shipped.join(name)).expect("the shipped file can be read");
            let text = paces.iter().fold(text, |text, (minutes, pace)| text.replace(minutes, pace));
            fs::write(home.path().join(name), text).expect("the file can be written");
        }
        let list: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let file = home.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [capacity.yml, alerts.yml]\nscrape_configs:\n\
             - job_name: fjord\n  static_configs: [{{ targets: [{}] }}]\n",
            list.join(", "),
        );
        fs::write(&file, text).expect("the file can be written");
        let port = ports::pick();
        let mut command = Command::new(executable);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start("prometheus", command, &home.path().join("log"));
        let prometheus = Self { process, port, _home: home };
        let count = targets.len();
        eventually_some("every target is scraped", STARTED_LIMIT, async || {
            let up = prometheus.value("sum(up)", None).await?;
            (up > f64::from(u32::try_from(count).ok()?) - 0.5).then_some(())
        })
        .await;
        prometheus
    }

    /// Returns the single value of an expression, at `at` or now. Returns `None` if the expression
    /// has no value.
    pub(crate) async fn value(&self, expression: &str, at: Option<SystemTime>) -> Option<f64> {
        let mut url = reqwest::Url::parse(&self.api("query")).expect("the URL is valid");
        url.query_pairs_mut().append_pair("query", expression);
        if let Some(since) = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
            url.query_pairs_mut().append_pair("time", &format!("{:.3}", since.as_secs_f64()));
        }
        let answer = get_json(url.as_str()).await?;
        let result = answer["data"]["result"].as_array()?;
        assert!(result.len() <= 1, "{expression} has many values: {answer}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Returns the number of series of an expression, or `None` if Prometheus rejects the query.
    pub(crate) async fn series(&self, expression: &str) -> Option<usize> {
        let mut url = reqwest::Url::parse(&self.api("query")).expect("the URL is valid");
        url.query_pairs_mut().append_pair("query", expression);
        Some(get_json(url.as_str()).await?["data"]["result"].as_array()?.len())
    }

    /// Returns the rules that could not be evaluated, and the number of rules that could.
    pub(crate) async fn rules(&self) -> Option<(Vec<String>, usize)> {
        let answer = get_json(&self.api("rules")).await?;
        let groups = answer["data"]["groups"].as_array()?.iter();
        let rules: Vec<&Value> = groups.filter_map(|g| g["rules"].as_array()).flatten().collect();
        let bad = rules.iter().filter(|rule| rule["health"] == "err").map(ToString::to_string);
        let good = rules.iter().filter(|rule| rule["health"] == "ok").count();
        Some((bad.collect(), good))
    }

    fn api(&self, what: &str) -> String {
        format!("http://127.0.0.1:{}/api/v1/{what}", self.port)
    }
}
