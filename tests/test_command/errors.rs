//! Promise: an incomplete run reports the reason, on one line and in the `JUnit` file, and never
//! waits forever.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use super::{GOOD, api, ends, has_status, start, test};
use crate::dev_command::fixture::fjord;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::{fjord_binary, ports};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_answer_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let url = format!("http://127.0.0.1:{}", ports::pick());
    let text = has_status(&test(&api, &["--url", &url]), 1);
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("refused")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(errors[0].starts_with(&format!("error: {url}: ")), "{text}");
    assert!(errors[0].ends_with("; examples without a result: 2"), "{text}");
    assert!(!text.contains("greeting-get"), "{text}");

    // The kernel accepts the connection, but nothing reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let text = has_status(&test(&api, &["--url", &url, "greeting-get"]), 1);
    assert!(text.contains("          no answer within 12s"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_closed_without_an_answer_fails_the_example() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), r#"{ "a": {}, "b": {}, "c": {}, "d": {} }"#);
    // A proxy that cannot reach the gateway behaves like this.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = stream.read(&mut [0; 4096]);
            assert!(request.is_ok(), "{request:?}");
        }
    });
    let junit = home.path().join("results.xml");
    let text = has_status(&test(&api, &["--url", &url, "--junit", junit.to_str().unwrap()]), 1);
    assert_eq!(text.matches("ERROR   greeting-get/").count(), 3, "{text}");
    assert_eq!(text.matches(&format!("          no answer: {url}: ")).count(), 3, "{text}");
    let end = "error: 3 requests in a row had no answer; examples without a result: 2\n";
    assert!(text.contains(end), "{text}");
    let xml = fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("errors=\"4\""), "{xml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_results_is_an_error_in_the_complete_junit_file() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let worker = api.join("worker.toml");
    let settings = fs::read_to_string(&worker).unwrap();
    fs::write(&worker, settings.replace("schema = ", "#schema = ")).unwrap();
    let (junit, link) = (home.path().join("results.xml"), home.path().join("link.xml"));
    fs::write(&junit, "the results of an earlier run").unwrap();
    std::os::unix::fs::symlink(&junit, &link).unwrap();
    let text = has_status(&test(&api, &["--junit", link.to_str().unwrap()]), 1);
    assert!(text.contains("/app.db does not exist\n"), "{text}");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let xml = fs::read_to_string(&junit).unwrap();
    let report = roxmltree::Document::parse(&xml).expect("XML");
    assert_eq!(report.root_element().attribute("errors"), Some("1"), "{xml}");
    let error = report.descendants().find(|node| node.tag_name().name() == "error").unwrap();
    assert!(error.attribute("message").unwrap().ends_with("/app.db does not exist"), "{xml}");
    let names = fs::read_dir(home.path()).unwrap().count();
    assert_eq!(names, 3, "the API, the results and the link");
    // A pipe receives the same text.
    let output = test(&api, &["--junit", "/dev/stdout"]);
    let text = has_status(&output, 1);
    assert!(String::from_utf8_lossy(&output.stdout).contains("errors=\"1\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stdout_fails_the_run_and_is_an_error_in_the_junit_file() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let junit = home.path().join("results.xml");
    for (format, has_error) in [("text", true), ("json", false)] {
        fs::write(&junit, "the results of an earlier run").unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(fjord_binary());
        command.arg("test").arg("--config").arg(&api).args(["--format", format, "--junit"]);
        let output = command.arg(&junit).stdout(writer).output().unwrap();
        let text = has_status(&output, 1);
        assert_eq!(text.matches("cannot write the output: Broken pipe").count(), 1, "{text}");
        let xml = fs::read_to_string(&junit).unwrap();
        assert_eq!(xml.contains("cannot write the output: Broken pipe"), has_error, "{xml}");
        assert!(xml.contains("greeting-get") && !xml.contains("has not ended"), "{xml}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_results_of_an_earlier_run_never_remain() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let junit = home.path().join("results.xml");
    fs::write(&junit, "the results of an earlier run").unwrap();
    // The kernel accepts the connection, but nothing reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let arguments = ["--url", &url, "--junit", junit.to_str().unwrap()];
    let mut process = start(&api, home.path(), &arguments);
    eventually_some("the file is replaced", SOON, async || {
        fs::read_to_string(&junit).ok().filter(|xml| xml.contains("the run has not ended"))
    })
    .await;
    process.signal(Signal::KILL);
    ends(&mut process).await;
    let xml = fs::read_to_string(&junit).unwrap();
    let report = roxmltree::Document::parse(&xml).expect("XML");
    assert_eq!(report.root_element().attribute("errors"), Some("1"), "{xml}");

    has_status(&test(&api, &["--junit", junit.to_str().unwrap(), "missing"]), 2);
    let xml = fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("&quot;missing&quot; selects no example"), "{xml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_run_whose_output_nobody_reads() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    fs::create_dir(home.path().join("tmp")).unwrap();
    for (format, place) in [("text", "during the run"), ("json", "in the report")] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // The pipe is full.
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while writer.write(&[b' '; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        let junit = home.path().join(format);
        let mut command = Command::new(fjord_binary());
        command.arg("test").arg("--config").arg(&api).args(["--format", format, "--junit"]);
        command.arg(&junit).env("TMPDIR", home.path().join("tmp"));
        let mut child = command.stdout(writer).spawn().unwrap();
        let (pid, mut sleeping) = (Pid::from_child(&child), 0);
        eventually_some("fjord test waits for the reader", SOON, async || {
            let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).ok()?;
            let sleeps = |task: fs::DirEntry| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.contains(" (test) S ")
            };
            // An example takes a few milliseconds.
            sleeping = if tasks.flatten().any(sleeps) { sleeping + 1 } else { 0 };
            (sleeping > 30).then_some(())
        })
        .await;
        kill_process(pid, Signal::INT).unwrap();
        let status = eventually_some(place, SOON, async || child.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(1), "{place}");
        assert_eq!(fs::read_dir(home.path().join("tmp")).unwrap().count(), 0, "{place}");
        let is_open = fs::read_to_string(&junit).unwrap().contains("the run has not ended");
        assert_eq!(is_open, format == "text");
        drop(reader);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_writes_to_blocks_neither_the_run_nor_ctrl_c() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let pipe = home.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let pipe = pipe.to_str().unwrap();
    let arguments = ["--url", "https://localhost:1", "--token-file", pipe];
    let mut process = start(&api, home.path(), &arguments);
    // Ctrl-C must arrive while the file is being read.
    eventually_some("a thread reads the file", SOON, async || {
        let threads = fs::read_dir(format!("/proc/{}/task", process.pid())).ok()?;
        let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
        threads.flatten().any(|thread| name(thread).is_ok_and(|it| it == "files\n")).then_some(())
    })
    .await;
    process.signal(Signal::INT);
    let status = ends(&mut process).await;
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{}", process.log());

    // All files together have a single time limit.
    for options in [&["--token-file"][..], &["--api-key-file", "--ca"]] {
        let mut arguments = vec!["--url", "https://localhost:1"];
        arguments.extend(options.iter().flat_map(|option| [*option, pipe]));
        let started = Instant::now();
        let text = has_status(&test(&api, &arguments), 2);
        let line = format!("error: {pipe}: cannot be read within 10s\n");
        assert_eq!(text, line.repeat(options.len()));
        assert!(started.elapsed() < Duration::from_secs(18), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_arguments_and_catalogues_have_status_2() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let missing = home.path().join("missing");
    let missing = missing.to_str().unwrap();
    let two_lines = home.path().join("two");
    fs::write(&two_lines, "a\nb\n").unwrap();
    for (arguments, part) in [
        (vec!["greeting-gte"], "\"greeting-gte\" selects no example"),
        (vec!["--url", "localhost:1"], "--url localhost:1: "),
        (vec!["--url", "http://api.example"], "expected https://"),
        (vec!["--url", "https://localhost:1", "--ca", missing], missing),
        (vec!["--url", "https://localhost:1", "--token-file", missing], "cannot be read"),
        (
            vec!["--url", "https://localhost:1", "--token-file", two_lines.to_str().unwrap()],
            "expected a token or an API key",
        ),
        (vec!["--token-file", missing], "--url"),
        (vec!["--url", "https://localhost:1", "--in-place"], "--in-place"),
        (vec!["--url", "https://localhost:1", "--certificate", missing], "--key"),
        (vec!["--url", "https://user:hunter2@localhost:1"], "--url: expected the URL"),
    ] {
        let text = has_status(&test(&api, &arguments), 2);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    // The command first checks that the file for the results can be created.
    let results = home.path().join("missing/results.xml");
    let text = has_status(&test(&api, &["--junit", results.to_str().unwrap()]), 1);
    assert!(text.contains("results.xml: cannot be created: "), "{text}");
    assert!(!text.contains("passed"), "{text}");
    let catalogue = api.join("endpoints/greetings.json");
    let text = fs::read_to_string(&catalogue).unwrap();
    fs::write(&catalogue, text.replace("\"de\" }, \"answer\"", "\"deutschland\" }, \"answer\""))
        .unwrap();
    let text = has_status(&test(&api, &[]), 2);
    let expected = "endpoint \"greeting-get\": examples.in German.parameters.language: expected at most 10 characters; expected";
    assert!(text.contains(expected), "{text}");
    let checked = fjord(&["check", "--config", api.to_str().unwrap()]);
    assert!(has_status(&checked, 2).contains(expected));
}
