//! Writes results in the `JUnit` XML format, which CI systems can display. Each endpoint is a test suite.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::result::{ExampleOutcome, ExampleResult};
use crate::commands::printable::printable;
use crate::new_file::PendingFile;

/// The names of the test suite and the test case that contain the errors of the whole run.
const RUN: (&str, &str) = ("fjord test", "run");

/// The maximum number of symbolic links to follow.
const LINKS_MAX: usize = 40;
/// The error that the file contains until the report is written.
const NOT_ENDED: &str = "the run has not ended";

/// The file of the report.
#[derive(Debug)]
pub(super) struct JunitFile {
    path: PathBuf,
    /// The open file if it is a pipe or a device. Such a file cannot be replaced.
    stream: Option<File>,
}

impl JunitFile {
    /// Replaces the report of an earlier run with one that says that this run has not ended. The new report remains if
    /// the process is killed. A pipe or a device is only opened.
    ///
    /// # Errors
    /// Returns a message that names the file.
    pub(super) fn start(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: cannot be created: {error}", path.display());
        // A symbolic link is kept. Only its target is replaced.
        let target = target(path);
        let stream = match fs::metadata(&target) {
            Err(_) => None,
            Ok(old) => {
                let opened = File::options().write(true).open(&target).map_err(failed)?;
                (!old.is_file()).then_some(opened)
            }
        };
        if stream.is_none() {
            let text = report(&[], &[], &[NOT_ENDED.to_owned()], Duration::ZERO).to_string();
            let written = text.map_err(io::Error::other).and_then(|text| replace(&target, &text));
            written.map_err(failed)?;
        }
        Ok(Self { path: target, stream })
    }

    /// Writes the report. `updated` lists the examples whose actual answers were written to the catalogue. `errors` are
    /// the errors of the whole run.
    ///
    /// # Errors
    /// Returns a message that names the file.
    pub(super) fn write(
        self,
        results: &[ExampleResult],
        updated: &[String],
        errors: &[String],
        took: Duration,
    ) -> Result<(), String> {
        let text = report(results, updated, errors, took).to_string();
        let written = text.map_err(io::Error::other).and_then(|text| match self.stream {
            Some(mut stream) => stream.write_all(text.as_bytes()),
            None => replace(&self.path, &text),
        });
        written.map_err(|error| format!("{}: cannot be written: {error}", self.path.display()))
    }
}

/// Follows symbolic links, including a link to a file that does not exist.
fn target(path: &Path) -> PathBuf {
    if let Ok(target) = fs::canonicalize(path) {
        return target;
    }
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        // For example, /dev/stdout exists if stdout is a pipe, but the link's target is not the name of a file.
        if fs::metadata(&target).is_ok() {
            break;
        }
        let Ok(next) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    target
}

/// Replaces a file atomically. If that is not possible, overwrites the file instead. A file that is mounted into a
/// container, for example, cannot be replaced.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    let replaced = PendingFile::create(path).and_then(|file| file.publish(text));
    let Err(error) = replaced else { return Ok(()) };
    let is_fixed = matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | ResourceBusy);
    if !is_fixed || !path.is_file() {
        return Err(error);
    }
    let mut file = File::options().write(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_to_a_file_that_does_not_exist_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, first) = (directory.path().join("results.xml"), directory.path().join("first"));
        let second = directory.path().join("second");
        symlink("results.xml", &first).unwrap();
        symlink(&first, &second).unwrap();
        let junit = JunitFile::start(&second).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains(NOT_ENDED));
        junit.write(&[], &[], &[], Duration::ZERO).unwrap();
        assert!(!fs::read_to_string(&file).unwrap().contains(NOT_ENDED));
        assert!(first.is_symlink() && second.is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}
