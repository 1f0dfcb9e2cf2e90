//! Promise: in a single run, `fjord check` reports exactly the errors that would prevent a start, each
//! with its key and its file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::support::certs::{Certs, Leaf};
use super::support::client::get_text;
use super::support::eventually::{SOON, eventually_some};
use super::support::{fjord_binary, ports};

/// A certificate with an RSA key of 1024 bits, which none of the libraries in use can generate.
const SHORT_CERTIFICATE: &str = include_str!("support/tls/short.pem");
const SHORT_KEY: &str = include_str!("support/tls/short.key");
/// A key that is encrypted with a passphrase.
const ENCRYPTED_KEY: &str = include_str!("support/tls/encrypted.key");

const ENDPOINTS: &str = r#"{ "a": { "route": "GET /v1/a", "handler": "echo", "auth": "public" } }"#;
const NATS: &str =
    "[messaging.nats]\nservers = ['nats://127.0.0.1:1']\ninsecure_plain_text = true\n";

/// A configuration directory with valid certificates.
struct TestDirectory {
    directory: TempDir,
    certs: Certs,
}

impl TestDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let certs = Certs::new(&directory.path().join("certs"));
        let setup = Self { directory, certs };
        fs::create_dir(setup.path("endpoints")).expect("the directory can be created");
        setup.write("endpoints/all.json", ENDPOINTS);
        setup.gateway("", "");
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).expect("the file can be written");
    }

    /// Writes `gateway.toml` with additional settings in `[gateway.tls]`, and additional sections.
    fn gateway(&self, tls_keys: &str, sections: &str) {
        let (certificate, key) = (&self.certs.server.certificate, &self.certs.server.key);
        let text = format!(
            "[gateway]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n{NATS}[gateway.tls]\n\
             certificate = '{}'\nkey = '{}'\n{tls_keys}\n{sections}",
            certificate.display(),
            key.display(),
        );
        self.write("gateway.toml", text);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(self.directory.path(), arguments)
    }

    /// Returns the errors of `fjord check`, after checking that starting the role reports the same errors.
    fn errors(&self, role: &str) -> Vec<String> {
        let checked = self.run(&["check", "--role", role]);
        let started = self.run(&["--role", role]);
        let found = errors(&checked);
        assert_eq!(found, errors(&started), "the errors of the check and of the start");
        assert_eq!(checked.status.code(), Some(2), "{found:#?}");
        assert_eq!(started.status.code(), Some(78), "{found:#?}");
        found
    }
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(fjord_binary());
    command.args(arguments).arg("--config").arg(directory);
    command.output().expect("fjord runs")
}

/// Returns the lines of stderr that are errors, sorted.
fn errors(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors = text.lines().filter_map(|line| Some(line.strip_prefix("error: ")?.to_owned()));
    let mut errors: Vec<String> = errors.collect();
    errors.sort();
    errors
}

/// Checks that there is one error for each element of `expected`, and that the error contains all words of
/// the element.
fn assert_errors(found: &[String], expected: &[&[&str]]) {
    assert_eq!(found.len(), expected.len(), "{expected:?}\n{found:#?}");
    for words in expected {
        let has_all = |line: &String| words.iter().all(|word| line.contains(word));
        assert!(found.iter().any(has_all), "{words:?}\n{found:#?}");
    }
}

#[test]
fn an_unusable_certificate_or_key_is_an_error_with_its_key_and_its_file() {
    let pem = |file: &Path| fs::read_to_string(file).expect("the file can be read");
    for (name, expected) in [
        ("expired", &["gateway.tls.certificate: ", "server.pem: the certificate expired on"][..]),
        (
            "foreign",
            &["gateway.tls.key: ", "server.key: the key does not belong to the certificate"],
        ),
        ("encrypted", &["gateway.tls.key: ", "server.key: the private key is encrypted"]),
        ("der", &["gateway.tls.certificate: ", "server.pem: is binary (DER or PKCS #12)"]),
        ("empty", &["gateway.tls.key: ", "server.key: is empty"]),
        ("utf-16", &["gateway.tls.certificate: ", "server.pem: is UTF-16"]),
        (
            "ca first",
            &["gateway.tls.certificate: ", "server.pem: the key belongs to certificate 2"],
        ),
        ("short", &["gateway.tls.key: ", "server.key: the RSA key is too short", "found 1024"]),
    ] {
        let setup = TestDirectory::new();
        let (certificate, key) = ("certs/server.pem", "certs/server.key");
        let leaf = pem(&setup.certs.server.certificate);
        match name {
            "expired" => drop(setup.certs.issue("server", Leaf::EXPIRED)),
            "foreign" => setup.write(key, pem(&setup.certs.client.key)),
            "encrypted" => setup.write(key, ENCRYPTED_KEY),
            "der" => setup.write(certificate, b"\x30\x82\x01\x0a"),
            "empty" => setup.write(key, ""),
            "utf-16" => setup.write(certificate, b"\xff\xfe-\0-\0"),
            "ca first" => setup.write(certificate, format!("{}{leaf}", pem(&setup.certs.ca))),
            _ => {
                setup.write(certificate, SHORT_CERTIFICATE);
                setup.write(key, SHORT_KEY);
            }
        }
        let found = setup.errors("gateway");
        assert_errors(&found, &[expected]);
        assert!(found[0].contains("gateway.toml: "), "{found:?}");
    }
}

#[test]
fn swapped_files_and_all_other_errors_are_reported_at_once() {
    let setup = TestDirectory::new();
    setup.write("ca.pem", "");
    setup.write("jwks.json", "{}");
    setup.write("endpoints/more.json", r#"{ "b": { "route": "GET /v1/b", "auth": "public" } }"#);
    let (certificate, key) = (&setup.certs.server.certificate, &setup.certs.server.key);
    let text = format!(
        "[gateway]\nlisten = '127.0.0.1:0'\n[messaging.nats]\nservers = ['tls://127.0.0.1:1']\n\
         [messaging.nats.tls]\nca = '{key}'\n[gateway.tls]\ncertificate = '{key}'\nkey = '{certificate}'\n\
         client_certificates = 'required'\nclient_ca = 'ca.pem'\n\
         [auth.jwt.main]\nissuer = 'https://sso.example'\naudiences = ['a']\nkeys = 'jwks.json'\n",
        key = key.display(),
        certificate = certificate.display(),
    );
    setup.write("gateway.toml", text);
    // Two keys name the same file, so there is only one error for both.
    let expected: [&[&str]; 5] = [
        &[
            "messaging.nats.tls.ca, gateway.tls.certificate: ",
            "server.key: ",
            "found a private key: are the certificate and the key swapped?",
        ],
        &["gateway.tls.key: ", "server.pem: ", "are the certificate and the key swapped?"],
        &["gateway.tls.client_ca: ", "ca.pem: is empty"],
        &["auth.jwt.main.keys: ", "jwks.json: not a JWKS"],
        &["more.json: endpoint \"b\": procedure: missing"],
    ];
    assert_errors(&setup.errors("gateway"), &expected);
    // These errors are reported together with an error in the configuration file itself.
    let text = fs::read_to_string(setup.path("gateway.toml")).expect("a file");
    setup.write("gateway.toml", text.replace("listen = '127.0.0.1:0'", "listen = 'nowhere'"));
    let mut all = expected.to_vec();
    all.push(&["gateway.listen: expected an address"]);
    assert_errors(&setup.errors("gateway"), &all);
}

#[test]
fn a_byte_order_mark_is_ignored_in_every_file() {
    let setup = TestDirectory::new();
    for file in ["certs/server.pem", "certs/server.key", "gateway.toml", "endpoints/all.json"] {
        let text = fs::read_to_string(setup.path(file)).expect("the file can be read");
        setup.write(file, format!("\u{feff}{text}"));
    }
    fs::create_dir(setup.path("conf.d")).expect("the directory can be created");
    setup.write(
        "conf.d/log.json",
        "\u{feff}{ \"$schema\": \"x.json\", \"log\": { \"filter\": \"warn\" } }",
    );
    let output = setup.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stdout.ends_with(": valid for gateway\n"), "{stdout}");
}

#[test]
fn settings_that_cannot_work_are_errors() {
    let setup = TestDirectory::new();
    let port = ports::pick();
    let check = |text: &str, expected: &[&[&str]]| {
        let base = format!("[gateway]\ninsecure_plain_text = true\n{NATS}");
        let sections = text.replace("[gateway]\n", "");
        let (own, sections) = sections.split_once("\n[").unwrap_or((&sections, ""));
        let sections = if sections.is_empty() { String::new() } else { format!("[{sections}") };
        let base = base.replace("[gateway]\n", &format!("[gateway]\n{own}\n"));
        setup.write("gateway.toml", format!("{base}{sections}"));
        assert_errors(&setup.errors("gateway"), expected);
    };
    for (public, admin) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("[::]", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
    ] {
        check(
            &format!("listen = '{public}:{port}'\n[admin]\nlisten = '{admin}:{port}'\n"),
            &[&["admin.listen: expected another port than that of gateway.listen"]],
        );
    }
    check(
        "listen = '127.0.0.1:0'\nhosts = ['https://api.example', '*.example', 'api.example:8443', 'api.example.']\n\
         [admin]\nlisten = '127.0.0.1:0'\nhosts = ['http://a']\n[catalogue.cors_default]\norigins = ['*.example', 'https://a.example/']\n",
        &[
            &["gateway.hosts: \"https://api.example\": expected a host name without a scheme"],
            &["gateway.hosts: \"*.example\": ", "wildcards"],
            &["gateway.hosts: \"api.example:8443\": ", "port"],
            &["admin.hosts: \"http://a\": ", "scheme"],
            &["catalogue.cors_default.origins: \"*.example\": "],
            &["catalogue.cors_default.origins: \"https://a.example/\": "],
        ],
    );
    check(
        "listen = '127.0.0.1:0'\nhealth_path = '/v1/a'\n[admin]\nlisten = '127.0.0.1:0'\n",
        &[&["gateway.toml: gateway.health_path: /v1/a is the path of endpoint a"]],
    );
    setup.write(
        "endpoints/all.json",
        r#"{ "a": { "route": "GET /v1/a", "handler": "echo", "auth": { "issuers": ["staff"], "methods": ["jwt"] } } }"#,
    );
    check(
        "listen = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n",
        &[&["all.json: endpoint \"a\": auth.issuers: ", "no [auth.jwt.staff]"]],
    );
}

#[test]
fn a_worker_that_cannot_start_fails_the_check() {
    let setup = TestDirectory::new();
    fs::remove_file(setup.path("gateway.toml")).expect("the file can be removed");
    let worker = |text: &str| setup.write("worker.toml", format!("{NATS}{text}"));
    worker("[worker.queues.other]\nconcurrency = 1\n");
    assert_errors(
        &setup.errors("worker"),
        &[&["worker.queues: expected at least one queue from the catalogue"]],
    );
    setup.write("endpoints/all.json", ENDPOINTS.replace("echo", "ecko"));
    worker("[worker.queues.a]\nconcurrency = 1\n");
    assert_errors(
        &setup.errors("worker"),
        &[&["all.json: endpoint \"a\": handler: there is no handler 'ecko'"]],
    );
    setup.write(
        "endpoints/all.json",
        ENDPOINTS.replace("\"handler\": \"echo\"", "\"procedure\": \"s.a\""),
    );
    assert_errors(&setup.errors("worker"), &[&["endpoint \"a\": procedure: ", "needs a database"]]);
    let database = "[worker.queues.a]\nconcurrency = 1\n[procedures.databases.default]\nbackend = 'sqlite'\n\
                    [procedures.databases.default.sqlite]\nfile = 'x.db'\nprocedures = 'nowhere'\n";
    worker(database);
    assert_errors(
        &setup.errors("worker"),
        &[&["procedures.databases.default.sqlite.procedures: ", "nowhere: no such directory"]],
    );
    setup.write("ca.pem", "garbage");
    worker(
        "[worker.queues.a]\nconcurrency = 1\n[procedures.databases.default]\nbackend = 'mssql'\n\
         [procedures.databases.default.mssql]\nhost = 'h'\ndatabase = 'd'\nuser = 'u'\npassword = 'p'\n\
         [procedures.databases.default.mssql.tls]\nca = 'ca.pem'\n",
    );
    assert_errors(
        &setup.errors("worker"),
        &[&[
            "worker.toml: procedures.databases.default.mssql.tls.ca: ",
            "ca.pem: expected PEM certificates",
        ]],
    );
}

#[test]
fn a_duplicate_key_in_json_is_an_error() {
    let setup = TestDirectory::new();
    fs::create_dir(setup.path("conf.d")).expect("the directory can be created");
    setup.write("conf.d/log.json", "{ \"log\": { \"filter\": \"warn\",\n \"filter\": \"info\" } }");
    assert_errors(
        &setup.errors("gateway"),
        &[&["log.json: log.filter: given more than once, again at line 2"]],
    );
}

#[test]
fn the_roles_that_a_directory_configures_are_checked_and_named() {
    let setup = TestDirectory::new();
    let gateway = fs::read_to_string(setup.path("gateway.toml")).expect("a file");
    fs::remove_file(setup.path("gateway.toml")).expect("the file can be removed");
    let valid = |name: &str, arguments: &[&str], expected: &str| {
        let output = setup.run(arguments);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(stdout.contains(expected), "{name}: {stdout}{:?}", errors(&output));
        assert_eq!(output.status.code(), Some(0), "{name}");
    };
    setup.write("fjord.toml", "");
    valid("neither", &["check"], "valid for no role, because the directory configures none");
    setup.write("fjord.toml", &gateway);
    valid("a section", &["check"], "valid for gateway\n");
    setup.write("fjord.toml", format!("{gateway}[worker.queues.'*']\nconcurrency = 1\n"));
    valid("both sections", &["check"], "valid for gateway and worker\n");
    valid("the selected role", &["check", "--role", "worker"], "valid for worker\n");
    // A key that only the environment sets is merged with the keys of the same section in the role's file.
    setup.write("fjord.toml", "");
    setup.write("gateway.toml", gateway.replace("key = ", "# key = "));
    let mut command = Command::new(fjord_binary());
    command.arg("check").arg("--config").arg(setup.directory.path());
    let output = command.env("FJORD_GATEWAY__TLS__KEY", &setup.certs.server.key).output();
    let output = output.expect("fjord runs");
    assert_eq!(output.status.code(), Some(0), "{:?}", errors(&output));
    let output = setup.run(&["check"]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stdout.contains(": 1 error, checked for gateway"), "{stdout}");
}

#[test]
fn the_result_is_available_as_json_with_lines() {
    let setup = TestDirectory::new();
    setup.write("certs/server.key", "");
    setup.write(
        "endpoints/all.json",
        "{ \"a\": {\n \"route\": \"GET /v1/a\",\n \"timout\": \"1s\",\n \"handler\": \"echo\", \"auth\": \"public\" } }",
    );
    let output = setup.run(&["check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "all findings are in the document");
    let document: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert_eq!(document["valid"], false);
    assert_eq!(document["roles"], serde_json::json!(["gateway"]));
    let findings = document["findings"].as_array().expect("a list");
    let of_key = |key: &str| findings.iter().find(|one| one["key"] == key).expect("a finding");
    let key = of_key("gateway.tls.key");
    let line = fs::read_to_string(setup.path("gateway.toml")).expect("a file");
    let line = line.lines().position(|line| line.starts_with("key = ")).expect("the key") + 1;
    assert_eq!(
        (key["severity"].as_str(), key["line"].as_u64()),
        (Some("error"), Some(line as u64))
    );
    assert_eq!(key["file"], setup.path("gateway.toml").display().to_string());
    let typo = of_key("timout");
    assert_eq!((typo["endpoint"].as_str(), typo["line"].as_u64()), (Some("a"), Some(3)));
    assert_eq!(typo["message"], "is not a key: did you mean timeout?");
    let warning = findings.iter().find(|one| one["severity"] == "warning").expect("a warning");
    assert_eq!(warning["key"], "messaging.nats.insecure_plain_text");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_that_a_full_disk_loses_are_counted() {
    let setup = TestDirectory::new();
    let port = ports::pick();
    let text = fs::read_to_string(setup.path("gateway.toml")).expect("a file");
    let admin = format!("[admin]\nlisten = '127.0.0.1:{port}'");
    setup.write("gateway.toml", text.replace("[admin]\nlisten = '127.0.0.1:0'", &admin));
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has /dev/full");
    let mut command = Command::new(fjord_binary());
    command.args(["--role", "gateway", "--config"]).arg(setup.directory.path());
    let mut child = command.stdout(full).stderr(Stdio::null()).spawn().expect("fjord starts");
    let lost = eventually_some("lost lines are counted", SOON, async || {
        let text = get_text(&format!("http://127.0.0.1:{port}/metrics")).await?;
        let line = text.lines().find(|line| line.starts_with("fjord_log_lines_dropped_total "))?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok().filter(|lost| *lost > 0.5)
    })
    .await;
    child.kill().expect("the process can be killed");
    child.wait().expect("the process ends");
    assert!(lost >= 1.0);
}
