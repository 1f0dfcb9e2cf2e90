//! The result of `fjord check`, as text and as JSON. docs/CONFIGURATION.md describes the JSON document.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::findings::CheckResults;
use super::position;
use crate::catalogue::TextPosition;
use crate::cli::Role;
use crate::commands::{Output, print_lines};
use crate::start_check::StartError;

/// All errors and warnings.
#[derive(Debug)]
pub(super) struct CheckReport {
    directory: PathBuf,
    roles: Vec<Role>,
    findings: Vec<CheckFinding>,
    /// The successful checks.
    pub(super) passed: Vec<String>,
}

/// Whether a finding prevents the role from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Warning,
    Error,
}

/// An error or a warning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CheckFinding {
    severity: Severity,
    /// The line that the text format prints.
    text: String,
    /// The file, variable or flag that contains the error.
    source: Option<String>,
    endpoint: Option<String>,
    key: Option<String>,
    message: String,
    /// The position in the source. `None` if it must be determined from the key or is unknown.
    position: Option<TextPosition>,
    /// The roles to which the finding applies. Empty if the finding does not depend on the role.
    roles: Vec<&'static str>,
}

impl CheckReport {
    pub(super) fn new(directory: &Path, roles: &[Role]) -> Self {
        let (findings, passed) = (Vec::new(), Vec::new());
        Self { directory: directory.to_owned(), roles: roles.to_vec(), findings, passed }
    }

    /// Adds an error or a warning about the configuration or the catalogue. The roles share most layers, so many
    /// findings apply to both.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        role: impl Into<Option<Role>>,
        found: &StartError,
    ) {
        let text = found.to_string();
        let role = role.into().map(Role::as_str);
        if let Some(known) = self.findings.iter_mut().find(|known| known.text == text) {
            known.roles.extend(role);
            return;
        }
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let roles = role.into_iter().collect();
        self.findings.push(match found {
            StartError::Config(error) => CheckFinding {
                severity,
                text,
                source: some(&error.location),
                endpoint: None,
                key: some(&error.key),
                message: error.message.clone(),
                position: error.position,
                roles,
            },
            StartError::Catalogue(error) => CheckFinding {
                severity,
                text,
                source: some(&error.file),
                endpoint: error.endpoint.clone(),
                key: some(&error.key),
                message: error.expected.clone(),
                position: error.position,
                roles,
            },
        });
    }

    pub(super) fn add_warnings(&mut self, lines: impl IntoIterator<Item = String>) {
        lines.into_iter().for_each(|line| self.add_line(Severity::Warning, line));
    }

    /// Adds the results of `--online`.
    pub(super) fn add_online(&mut self, results: CheckResults) {
        results.errors.into_iter().for_each(|line| self.add_line(Severity::Error, line));
        self.add_warnings(results.warnings);
        self.passed.extend(results.passed);
    }

    fn add_line(&mut self, severity: Severity, text: String) {
        let finding = CheckFinding {
            severity,
            message: text.clone(),
            text,
            source: None,
            endpoint: None,
            key: None,
            position: None,
            roles: Vec::new(),
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub(super) fn sort(&mut self) {
        self.findings.sort();
    }

    pub(super) fn is_valid(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }

    fn role_names(&self) -> Vec<&'static str> {
        self.roles.iter().map(|role| role.as_str()).collect()
    }

    /// Writes errors and warnings to stderr, and the names of the checked roles to stdout.
    pub(super) fn write_text(&self, output: &mut Output<impl Write, impl Write>) -> io::Result<()> {
        for (severity, label) in [(Severity::Warning, "warning"), (Severity::Error, "error")] {
            let found = self.findings.iter().filter(|finding| finding.severity == severity);
            print_lines(&mut output.err, label, found.map(|finding| &finding.text))?;
        }
        for line in &self.passed {
            writeln!(output.out, "{line}")?;
        }
        let roles = match self.role_names().as_slice() {
            [] => "no role, because the directory configures none: only the shared sections and the catalogue \
                   were checked (see --role)"
                .to_owned(),
            names => names.join(" and "),
        };
        let directory = self.directory.display();
        let errors = self.findings.iter().filter(|one| one.severity == Severity::Error).count();
        match errors {
            0 => writeln!(output.out, "{directory}: valid for {roles}"),
            1 => writeln!(output.out, "{directory}: 1 error, checked for {roles}"),
            _ => writeln!(output.out, "{directory}: {errors} errors, checked for {roles}"),
        }
    }

    /// Returns the JSON document.
    pub(super) fn to_json(&self) -> Value {
        let findings: Vec<Value> = self.findings.iter().map(CheckFinding::to_json).collect();
        json!({
            "directory": self.directory.display().to_string(),
            "roles": self.role_names(),
            "valid": self.is_valid(),
            "findings": findings,
            "passed": self.passed,
        })
    }
}

impl CheckFinding {
    fn to_json(&self) -> Value {
        let mut members = Map::new();
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        members.insert("severity".to_owned(), severity.into());
        if !self.roles.is_empty() {
            members.insert("roles".to_owned(), json!(self.roles));
        }
        if let Some(source) = &self.source {
            let is_file = Path::new(source).is_file();
            members.insert(if is_file { "file" } else { "source" }.to_owned(), json!(source));
            let key = self.key.as_deref().unwrap_or_default();
            if is_file {
                let line = match self.position {
                    Some(position) => Some(position.line),
                    None => position::line(Path::new(source), self.endpoint.as_deref(), key),
                };
                let column = self.position.and_then(|position| position.column);
                for (name, number) in [("line", line), ("column", column)] {
                    members.extend(number.map(|number| (name.to_owned(), json!(number))));
                }
            }
        }
        for (name, value) in [("endpoint", &self.endpoint), ("key", &self.key)] {
            members.extend(value.iter().map(|value| (name.to_owned(), json!(value))));
        }
        members.insert("message".to_owned(), json!(self.message));
        Value::Object(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigError;

    #[test]
    fn a_line_is_that_of_the_key_or_of_the_syntax_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        std::fs::write(&file, "[auth]\n\n[auth.jwt.staff]\nkeys = 'jwks.json'\n").unwrap();
        let file = file.display().to_string();
        let finding = |error: ConfigError| {
            let mut report = CheckReport::new(directory.path(), &[Role::Gateway]);
            report.add(Severity::Error, Role::Gateway, &StartError::Config(error));
            let finding = report.to_json()["findings"][0].clone();
            (finding["line"].as_u64(), finding["column"].as_u64())
        };
        // The message contains a position in another file.
        let other = "jwks.json: not JSON: expected value at line 12 column 1";
        let error = ConfigError::at_key(&file, "auth.jwt.staff.keys", other);
        assert_eq!(finding(error), (Some(4), None));
        let position = Some(TextPosition { line: 7, column: Some(3) });
        let error = ConfigError { position, ..ConfigError::at_location(&file, "invalid TOML") };
        assert_eq!(finding(error), (Some(7), Some(3)));
        let error = ConfigError::at_location("FJORD_AUTH__JWT", "given more than once");
        assert_eq!(finding(ConfigError { position, ..error }), (None, None), "not a file");
    }
}
