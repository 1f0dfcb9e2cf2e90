//! Writes results in the XML format of `JUnit`, which CI systems show. Endpoints are test suites.

use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::result::{ExampleOutcome, ExampleResult};

/// Writes the report.
///
/// # Errors
/// A message that names the file.
pub(super) fn write(file: &Path, results: &[ExampleResult], took: Duration) -> Result<(), String> {
    let failed = |error: String| format!("{}: cannot be written: {error}", file.display());
    let text = report(results, took).to_string().map_err(|error| failed(error.to_string()))?;
    std::fs::write(file, text).map_err(|error| failed(error.to_string()))
}

fn report(results: &[ExampleResult], took: Duration) -> Report {
    let mut report = Report::new("fjord test");
    report.set_time(took);
    for group in results.chunk_by(|one, other| one.endpoint.id == other.endpoint.id) {
        let Some(first) = group.first() else { continue };
        let mut suite = TestSuite::new(first.endpoint.id.as_str());
        suite.set_time(group.iter().map(|result| result.duration).sum());
        suite.add_test_cases(group.iter().map(case));
        report.add_test_suite(suite);
    }
    report
}

fn case(result: &ExampleResult) -> TestCase {
    let lines = result.outcome.lines();
    let mut status = match &result.outcome {
        ExampleOutcome::Passed(_) => TestCaseStatus::success(),
        ExampleOutcome::Failed(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        ExampleOutcome::Error(_) => TestCaseStatus::non_success(NonSuccessKind::Error),
        ExampleOutcome::Skipped(_) => TestCaseStatus::skipped(),
    };
    if let Some(first) = lines.first() {
        status.set_message(first.as_str());
        status.set_description(lines.join("\n"));
    }
    let mut case = TestCase::new(result.name(), status);
    case.set_classname(result.endpoint.id.as_str()).set_time(result.duration);
    let undeclared = result.outcome.undeclared();
    if !undeclared.is_empty() {
        case.set_system_out(undeclared.join("\n"));
    }
    case
}
