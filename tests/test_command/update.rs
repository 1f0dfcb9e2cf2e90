//! Promise: `--update` writes exactly the answers that differ, and never an invalid file.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;

use super::{GOOD, api, ends, has_status, prints, start, test};

const EXAMPLES: &str = r#"{
      "kept" : {   "parameters":{"language":"is"}, "answer": { "status": 200, "body": {"text":"Halló","language":"is"} } },
      "matched": {
        "parameters": { "language": "fr" },
        "answer": {
          "status": 200,
          "headers": { "X-Request-Id": { "$any": "string" } },
          "body": { "language": { "$any": "string", "example": "fr" }, "text": "Salut" }
        }
      },
      "became a problem": {
        "parameters": { "language": "xx" },
        "answer": { "status": 200, "body": { "language": "xx", "text": "?" } }
      },
      "new": { "parameters": { "language": "de" } }
    }"#;

#[tokio::test(flavor = "multi_thread")]
async fn differing_answers_are_recorded_and_the_rest_keeps_its_form() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), EXAMPLES);
    let file = api.join("endpoints/greetings.json");
    let before = format!("\u{feff}{}", fs::read_to_string(&file).unwrap());
    fs::write(&file, &before).unwrap();
    let text = has_status(&test(&api, &["--update"]), 0);
    assert!(
        text.contains("updated ") && text.contains("5 examples: 2 passed, 3 failed, 3 updated ("),
        "{text}"
    );
    let expected = before
        .replace("\"Salut\"", "\"Bonjour\"")
        .replace(
            r#"{ "status": 200, "body": { "language": "xx", "text": "?" } }"#,
            r#"{ "status": 404, "problem": "no-row" }"#,
        )
        .replace(
            r#""new": { "parameters": { "language": "de" } }"#,
            // This example is too long for one line.
            "\"new\": { \"parameters\": { \"language\": \"de\" }, \"answer\": {\n        \"status\": 200,\n        \
             \"body\": { \"language\": \"de\", \"text\": \"Hallo\" }\n      } }",
        );
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    let text = has_status(&test(&api, &["--update"]), 0);
    assert!(text.contains("5 examples: 5 passed (") && !text.contains("updated "), "{text}");
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    let names: Vec<_> = fs::read_dir(api.join("endpoints")).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_recorded_does_not_keep_the_others_from_it() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), EXAMPLES);
    let file = api.join("endpoints/greetings.json");
    let before = fs::read_to_string(&file).unwrap();
    // One answer contradicts `returns`, so it cannot be an example.
    let procedure = "SELECT language, CASE language WHEN 'de' THEN 7 ELSE text END AS text FROM greeting \
                     WHERE language = @language";
    fs::write(api.join("procedures/app.greeting_get.sql"), procedure).unwrap();
    let text = has_status(&test(&api, &["--update"]), 1);
    assert!(
        text.contains(
            "error: greeting-get/new: not updated: examples.new.answer.body: /text: `returns` says string, found a number\n"
        ),
        "{text}"
    );
    assert!(text.contains("5 examples: 2 passed, 3 failed, 2 updated ("), "{text}");
    let expected = before.replace("\"Salut\"", "\"Bonjour\"").replace(
        r#"{ "status": 200, "body": { "language": "xx", "text": "?" } }"#,
        r#"{ "status": 404, "problem": "no-row" }"#,
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_expectations_are_named_and_line_ends_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let examples = r#"{
      "one": {
        "parameters": { "language": "de" },
        "answer": { "status": 200, "headers": { "X-Gone": { "$any": "string" } }, "body": { "language": "de", "text": "?" } }
      }
    }"#;
    let api = api(home.path(), examples);
    let file = api.join("endpoints/greetings.json");
    let before = fs::read_to_string(&file).unwrap().replace('\n', "\r\n");
    fs::write(&file, &before).unwrap();
    // The other file has a name that would be easy to guess.
    let other = home.path().join("other");
    fs::write(&other, "other").unwrap();
    symlink(&other, api.join("endpoints/.greetings.json.new")).unwrap();
    let junit = home.path().join("results.xml");
    let text = has_status(&test(&api, &["--update", "--junit", junit.to_str().unwrap()]), 0);
    assert!(text.contains("removed: greeting-get/one: header X-Gone\n"), "{text}");
    let after = fs::read_to_string(&file).unwrap();
    assert!(after.contains("\"Hallo\"") && !after.contains("X-Gone"), "{after}");
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{after}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "other");
    let xml = fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("failures=\"0\"") && xml.contains("was updated"), "{xml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_during_the_run_is_not_written() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), EXAMPLES);
    let file = api.join("endpoints/greetings.json");
    let add = "SELECT sleep_ms(3000), length(@language || @text);\n";
    fs::write(api.join("procedures/app.greeting_add.sql"), add).unwrap();
    let mut process = start(&api, home.path(), &["--update"]);
    prints(&process, "greeting-get/new (").await;
    let changed = format!("{} ", fs::read_to_string(&file).unwrap());
    fs::write(&file, &changed).unwrap();
    let status = ends(&mut process).await;
    assert_eq!(status.code(), Some(1), "{}", process.log());
    let expected = "the file has changed in the meantime";
    assert!(process.log().contains(expected), "{}", process.log());
    assert_eq!(fs::read_to_string(&file).unwrap(), changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_answers_are_reported_and_not_recorded() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), GOOD);
    let file = api.join("endpoints/greetings.json");
    let before = fs::read_to_string(&file).unwrap();
    let login = answering("text/html; charset=utf-8", "<h1>Log in</h1>");
    let text = has_status(&test(&api, &["--url", &login, "--update", "greeting-get"]), 1);
    let difference = "content-type: expected application/json, got text/html";
    assert!(text.contains(&format!("          {difference}\n")), "{text}");
    assert!(text.contains(&format!("not updated: {difference}\n")), "{text}");

    let twice =
        answering("application/json", r#"{"language":"de","language":"de","text":"Hallo"}"#);
    let text = has_status(&test(&api, &["--url", &twice, "--update", "greeting-get"]), 1);
    assert!(
        text.contains("          body: expected JSON, got ") && text.contains("more than once"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    let hostile = r#"{"language":"de","text":"\u202e\u009b31m","a\u001b[2J\n":1}"#;
    let hostile = answering("application/json", hostile);
    let output = test(&api, &["--url", &hostile, "greeting-get"]);
    let text = has_status(&output, 1);
    assert!(text.contains("got \"\\u{202e}\\u{9b}31m\"\n"), "{text}");
    assert!(text.contains("          /a\\u{1b}[2J\\n: expected no such member, got 1\n"), "{text}");
    let output = test(&api, &["--url", &hostile, "greeting-get", "--format", "json"]);
    let is_raw = |character: char| "\u{1b}\u{9b}\u{202e}".contains(character);
    assert!(!has_status(&output, 1).contains(is_raw));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["examples"][0]["differences"][0]["actual"], "\"\u{202e}\u{9b}31m\"");
}

/// Starts a server that gives every request this answer. Returns its URL.
fn answering(content_type: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            // The requests have no body.
            while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    url
}
