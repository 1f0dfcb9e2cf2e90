//! Prints results as one line per example or as one JSON document.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::result::{ExampleOutcome, ExampleResult};
use super::update::UpdateResult;
use crate::commands::printable::{printable, printable_json};

/// Writes the line of an example, followed by lines that explain a failure.
pub(super) fn write_result(result: &ExampleResult, out: &mut impl Write) -> io::Result<()> {
    let word = match &result.outcome {
        outcome if outcome.is_failure() => outcome.as_str().to_uppercase(),
        outcome => outcome.as_str().to_owned(),
    };
    let took = millis(result.duration);
    writeln!(out, "{word:<8}{} ({took:.0} ms)", printable(&result.id()))?;
    for line in result.outcome.lines() {
        writeln!(out, "          {}", printable(&line))?;
    }
    for line in result.outcome.undeclared() {
        writeln!(out, "    note: {}", printable(line))?;
    }
    Ok(())
}

/// Writes the names of updated files and the number of examples with each outcome.
pub(super) fn write_summary(
    results: &[ExampleResult],
    updated: &UpdateResult,
    duration: Duration,
    out: &mut impl Write,
) -> io::Result<()> {
    for file in &updated.files {
        writeln!(out, "updated {}", printable(file))?;
    }
    for line in &updated.removed {
        writeln!(out, "removed: {}", printable(line))?;
    }
    let counts =
        counts(results).into_iter().filter(|(word, count)| *count > 0 || *word == "passed");
    let mut counts: Vec<String> = counts.map(|(word, count)| format!("{count} {word}")).collect();
    if !updated.examples.is_empty() {
        counts.push(format!("{} updated", updated.examples.len()));
    }
    let noun = if results.len() == 1 { "example" } else { "examples" };
    let (number, took) = (results.len(), millis(duration));
    writeln!(out, "{number} {noun}: {} ({took:.0} ms)", counts.join(", "))
}

/// Returns the number of examples with each outcome.
pub(super) fn counts(results: &[ExampleResult]) -> [(&'static str, usize); 4] {
    ["passed", "failed", "error", "skipped"]
        .map(|word| (word, results.iter().filter(|result| result.outcome.as_str() == word).count()))
}

/// Writes all results as one JSON document.
pub(super) fn write_json(
    results: &[ExampleResult],
    updated: &UpdateResult,
    errors: &[String],
    duration: Duration,
    out: &mut impl Write,
) -> io::Result<()> {
    let examples: Vec<Value> = results.iter().map(one).collect();
    let counts: serde_json::Map<String, Value> =
        counts(results).into_iter().map(|(word, count)| (word.to_owned(), json!(count))).collect();
    let document = json!({
        "examples": examples, "counts": counts, "errors": errors, "duration_ms": millis(duration),
        "updated": {
            "files": updated.files, "examples": updated.examples, "removed": updated.removed,
            "errors": updated.errors,
        },
    });
    writeln!(out, "{}", printable_json(&format!("{document:#}")))
}

fn one(result: &ExampleResult) -> Value {
    let mut document = json!({
        "endpoint": result.endpoint.id.as_str(), "example": result.name(),
        "outcome": result.outcome.as_str(), "duration_ms": millis(result.duration),
    });
    let Some(members) = document.as_object_mut() else { return document };
    if let Some(status) = result.status {
        members.insert("status".to_owned(), status.into());
    }
    match &result.outcome {
        ExampleOutcome::Passed(evaluation) | ExampleOutcome::Failed(evaluation) => {
            let differences = evaluation.differences.iter().map(
                |one| json!({ "place": one.place, "expected": one.expected, "actual": one.actual }),
            );
            members.insert("differences".to_owned(), differences.collect());
            let drift = json!({
                "contradictions": evaluation.contradictions, "undeclared": evaluation.undeclared });
            members.insert("returns".to_owned(), drift);
        }
        ExampleOutcome::Error(reason) | ExampleOutcome::Skipped(reason) => {
            members.insert("reason".to_owned(), reason.as_str().into());
        }
    }
    document
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
