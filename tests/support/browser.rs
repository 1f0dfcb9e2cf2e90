//! A headless Chromium, driven through `WebDriver` (W3C).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::install_provider;
use super::eventually::eventually_some;
use super::process::Process;
use super::{external_tools, process_guard};

/// The time limit for a command or a condition, with a margin for a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
/// The size of the window in pixels.
const WINDOW: &str = "--window-size=1400,1000";

/// A browser with one window. It is closed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Browser {
    http: reqwest::Client,
    /// The URL of the `WebDriver` session.
    session: String,
    /// The process id of Chromium, which continues to run if its driver is killed.
    chromium: i32,
    _driver: Process,
    _home: TempDir,
}

impl Browser {
    /// Starts Chromium. If it is not installed, prints that `what` is skipped.
    pub(crate) async fn start(what: &str) -> Option<Self> {
        let hint = "on Debian, apt-get install chromium chromium-driver";
        let driver = external_tools::find("chromedriver", "chromium", what, hint)?;
        let chromium = external_tools::find("chromium", "chromium", what, hint)?;
        install_provider();
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(driver);
        command.arg("--port=0");
        let driver = Process::start("chromedriver", command, &home.path().join("log"));
        let port = eventually_some("chromedriver listens", LIMIT, async || {
            let log = driver.log();
            let (_, rest) = log.split_once("started successfully on port ")?;
            rest.split_once('.')?.0.parse::<u16>().ok()
        })
        .await;
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build();
        let http = client.expect("a client");
        let profile = home.path().join("profile");
        let arguments = [
            "--headless=new",
            // Chromium does not run its sandbox as root, and containers have a small /dev/shm.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            WINDOW,
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": chromium, "args": arguments } } } });
        let mut browser = Self {
            http,
            session: format!("http://127.0.0.1:{port}/session"),
            chromium: 0,
            _driver: driver,
            _home: home,
        };
        let session = browser.post("", &wanted).await;
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        let process = session["capabilities"]["goog:processID"].as_i64().unwrap_or_default();
        browser.chromium = i32::try_from(process).expect("a process id");
        if let Ok(id @ 1..) = u32::try_from(process) {
            process_guard::watch(id);
        }
        Some(browser)
    }

    /// Opens a URL.
    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// Runs the body of a JavaScript function, and returns its result.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Runs the body of a JavaScript function until it returns something other than null and false.
    #[track_caller]
    pub(crate) fn until(&self, script: &str) -> impl Future<Output = Value> {
        eventually_some(script.to_owned(), LIMIT, async || {
            let value = self.run(script).await;
            (!value.is_null() && value != false).then_some(value)
        })
    }

    /// Returns the console's errors since the last call, except those about the status of an answer. They include
    /// violations of the content security policy.
    pub(crate) async fn errors(&self) -> Vec<String> {
        let lines = self.post("/se/log", &json!({ "type": "browser" })).await;
        let lines = lines.as_array().cloned().unwrap_or_default();
        let errors = lines.iter().filter(|line| line["level"] == "SEVERE");
        let texts = errors.filter_map(|line| line["message"].as_str().map(ToOwned::to_owned));
        texts.filter(|text| !text.contains("the server responded with a status of")).collect()
    }

    /// Saves a screenshot of the window as a PNG file.
    pub(crate) async fn screenshot(&self, file: &Path) {
        let answer = self.http.get(format!("{}/screenshot", self.session)).send().await;
        let answer: Value =
            answer.expect("an answer").json().await.expect("the driver answers with JSON");
        let png = STANDARD.decode(answer["value"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, png).expect("the file can be written");
    }

    /// Saves a screenshot of the whole page, including the part below the window, as a PNG file.
    pub(crate) async fn screenshot_of_page(&self, file: &Path) {
        let options = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.devtools("Page.captureScreenshot", &options).await;
        let png = STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, png).expect("the file can be written");
    }

    /// Sets the color scheme that the user prefers: `light` or `dark`.
    pub(crate) async fn prefer_color_scheme(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": [feature] })).await;
    }

    /// Sends a command of the Chrome `DevTools` protocol.
    async fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await
    }

    async fn post(&self, command: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{command}", self.session)).json(body);
        let answer = request.send().await.expect("the driver answers");
        let answer: Value = answer.json().await.expect("the driver answers with JSON");
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{command}: {value}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.chromium) {
            // The process may have exited already.
            let _ended = kill_process(pid, Signal::KILL);
            process_guard::forget(self.chromium.unsigned_abs());
        }
    }
}
