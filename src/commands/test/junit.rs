//! Writes results in the XML format of `JUnit`, which CI systems show. Endpoints are test suites.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::result::{ExampleOutcome, ExampleResult};
use crate::commands::printable::printable;

/// A file for the report.
#[derive(Debug)]
pub(super) struct JunitFile {
    path: PathBuf,
    file: File,
}

impl JunitFile {
    /// Creates the file, so that a name that cannot be used is an error before any example runs.
    ///
    /// # Errors
    /// A message that names the file.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path)
            .map_err(|error| format!("{}: cannot be created: {error}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes the report. `updated` are the examples whose actual answers were written into the catalogue.
    ///
    /// # Errors
    /// A message that names the file.
    pub(super) fn write(
        mut self,
        results: &[ExampleResult],
        updated: &[String],
        took: Duration,
    ) -> Result<(), String> {
        let text = report(results, updated, took).to_string().map_err(|error| error.to_string());
        let written = text.and_then(|text| {
            self.file.write_all(text.as_bytes()).map_err(|error| error.to_string())
        });
        written.map_err(|error| format!("{}: cannot be written: {error}", self.path.display()))
    }
}

fn report(results: &[ExampleResult], updated: &[String], took: Duration) -> Report {
    let mut report = Report::new("fjord test");
    report.set_time(took);
    for group in results.chunk_by(|one, other| one.endpoint.id == other.endpoint.id) {
        let Some(first) = group.first() else { continue };
        let mut suite = TestSuite::new(first.endpoint.id.as_str());
        suite.set_time(group.iter().map(|result| result.duration).sum());
        suite.add_test_cases(
            group.iter().map(|result| case(result, updated.contains(&result.id()))),
        );
        report.add_test_suite(suite);
    }
    report
}

fn case(result: &ExampleResult, is_updated: bool) -> TestCase {
    let lines = result.outcome.lines();
    let mut lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
    let mut status = match &result.outcome {
        ExampleOutcome::Failed(_) if !is_updated => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        ExampleOutcome::Error(_) => TestCaseStatus::non_success(NonSuccessKind::Error),
        ExampleOutcome::Skipped(_) => TestCaseStatus::skipped(),
        ExampleOutcome::Passed(_) | ExampleOutcome::Failed(_) => TestCaseStatus::success(),
    };
    let mut notes = Vec::new();
    if is_updated {
        notes.push("the answer in the catalogue was updated".into());
        notes.append(&mut lines);
    } else if let Some(first) = lines.first() {
        status.set_message(&**first);
        status.set_description(lines.join("\n"));
    }
    let mut case = TestCase::new(&*printable(result.name()), status);
    case.set_classname(result.endpoint.id.as_str()).set_time(result.duration);
    notes.extend(result.outcome.undeclared().iter().map(|line| printable(line)));
    if !notes.is_empty() {
        case.set_system_out(notes.join("\n"));
    }
    case
}
