//! Promise: `--update` writes exactly the answers that differ, and never an invalid file.

use std::fs;

use super::{api, has_status, test};

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
            // Too long for one line.
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
async fn a_file_that_would_become_invalid_is_not_written() {
    let home = tempfile::tempdir().unwrap();
    let api = api(home.path(), EXAMPLES);
    let file = api.join("endpoints/greetings.json");
    let before = fs::read_to_string(&file).unwrap();
    // The procedure contradicts `returns`, so the answer cannot be an example.
    let procedure = "SELECT language, 7 AS text FROM greeting WHERE language = @language";
    fs::write(api.join("procedures/app.greeting_get.sql"), procedure).unwrap();
    let text = has_status(&test(&api, &["--update"]), 1);
    assert!(text.contains("not updated: the new content would be invalid: "), "{text}");
    assert!(
        text.contains("examples.new.answer.body: /text: `returns` says string, found a number"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}
