//! Writes results in the XML format of `JUnit`, which CI systems show. Endpoints are test suites.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::result::{ExampleOutcome, ExampleResult};
use crate::commands::printable::printable;
use crate::new_file::PendingFile;

/// The name of the test suite, and of its only test case, with the errors of the whole run.
const RUN: (&str, &str) = ("fjord test", "run");

/// A file for the report.
#[derive(Debug)]
pub(super) struct JunitFile {
    path: PathBuf,
    /// The file, if it is a pipe or a device, which cannot be replaced.
    stream: Option<File>,
}

impl JunitFile {
    /// Checks that the file can be written, so that an unusable name is an error before any example
    /// runs.
    ///
    /// # Errors
    /// A message that names the file.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let failed =
            |error: std::io::Error| format!("{}: cannot be created: {error}", path.display());
        // A symbolic link remains a symbolic link.
        let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let old = std::fs::metadata(path).ok();
        let stream = match old {
            None => None,
            Some(old) => {
                let opened = File::options().write(true).open(path).map_err(failed)?;
                (!old.is_file()).then_some(opened)
            }
        };
        if stream.is_none() {
            drop(PendingFile::create(path).map_err(failed)?);
        }
        Ok(Self { path: path.clone(), stream })
    }

    /// Writes the report, completely or not at all. `updated` contains the examples whose actual
    /// answers were written into the catalogue, and `errors` the errors of the whole run.
    ///
    /// # Errors
    /// A message that names the file.
    pub(super) fn write(
        self,
        results: &[ExampleResult],
        updated: &[String],
        errors: &[String],
        took: Duration,
    ) -> Result<(), String> {
        let text = report(results, updated, errors, took).to_string();
        let written = text.map_err(std::io::Error::other).and_then(|text| match self.stream {
            Some(mut stream) => stream.write_all(text.as_bytes()),
            None => PendingFile::create(&self.path)?.publish(&text),
        });
        written.map_err(|error| format!("{}: cannot be written: {error}", self.path.display()))
    }
}

fn report(
    results: &[ExampleResult],
    updated: &[String],
    errors: &[String],
    took: Duration,
) -> Report {
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
    let lines: Vec<_> = errors.iter().map(|error| printable(error)).collect();
    if let Some(first) = lines.first() {
        let (suite_name, case_name) = RUN;
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(&**first).set_description(lines.join("\n"));
        let mut case = TestCase::new(case_name, status);
        case.set_classname(suite_name);
        let mut suite = TestSuite::new(suite_name);
        suite.add_test_case(case);
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
