//! `--update`: writes the answers of examples into the catalogue files. The rest of a file keeps its form.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::value::RawValue;

use super::result::{ExampleOutcome, ExampleResult};
use crate::catalogue::definition::json::RawMembers;
use crate::catalogue::{Catalogue, EndpointDefaults, ExactJson, load};

use answer::actual_answer;
use edits::{Edit, apply, edits};

mod answer;
mod edits;

/// The byte order mark at the start of a file.
const BYTE_ORDER_MARK: &str = "\u{feff}";
/// The key of an example's answer.
const ANSWER: &str = "answer";

/// What was written.
#[derive(Debug, Default)]
pub(super) struct UpdateResult {
    /// The changed files.
    pub(super) files: Vec<String>,
    /// The updated examples.
    pub(super) examples: Vec<String>,
    /// Why examples or files were not updated.
    pub(super) errors: Vec<String>,
}

/// An example with its actual answer.
struct ExampleUpdate<'a> {
    result: &'a ExampleResult,
    answer: ExactJson,
}

/// Writes the actual answer of each example that failed. A file whose new content would be invalid is not written.
pub(super) fn update(
    catalogue: &Catalogue,
    defaults: &EndpointDefaults,
    results: &[ExampleResult],
) -> UpdateResult {
    let mut done = UpdateResult::default();
    let mut by_file: BTreeMap<&str, Vec<ExampleUpdate<'_>>> = BTreeMap::new();
    for result in results {
        let ExampleOutcome::Failed(evaluation) = &result.outcome else { continue };
        if evaluation.differences.is_empty() {
            // Only `returns` differs, which an example cannot change.
            continue;
        }
        let (Some(file), Some(example), Some(received)) =
            (catalogue.file(&result.endpoint.id), result.example(), &result.received)
        else {
            continue;
        };
        match actual_answer(&result.endpoint, example, received) {
            Ok(answer) => by_file.entry(file).or_default().push(ExampleUpdate { result, answer }),
            Err(reason) => done.errors.push(format!("{}: not updated: {reason}", result.id())),
        }
    }
    for (file, updates) in by_file {
        match update_file(file, defaults, &updates) {
            Ok(()) => {
                done.files.push(file.to_owned());
                let resolved = updates.iter().filter(|update| has_no_other_error(update.result));
                done.examples.extend(resolved.map(|update| update.result.id()));
            }
            Err(errors) => {
                done.errors.extend(errors.into_iter().map(|it| format!("not updated: {it}")));
            }
        }
    }
    done
}

fn has_no_other_error(result: &ExampleResult) -> bool {
    matches!(&result.outcome, ExampleOutcome::Failed(it) if it.contradictions.is_empty())
}

fn update_file(
    file: &str,
    defaults: &EndpointDefaults,
    updates: &[ExampleUpdate<'_>],
) -> Result<(), Vec<String>> {
    let one = |error: String| vec![format!("{file}: {error}")];
    let path = fs::canonicalize(file).map_err(|it| one(format!("cannot be read: {it}")))?;
    let text = fs::read_to_string(&path).map_err(|it| one(format!("cannot be read: {it}")))?;
    let (mark, text) = match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(text) => (BYTE_ORDER_MARK, text),
        None => ("", &*text),
    };
    let new = updated_text(text, updates).map_err(one)?;
    load::parse(&[(file, &new)], defaults).map_err(|errors| {
        errors
            .iter()
            .map(|error| format!("the new content would be invalid: {error}"))
            .collect::<Vec<_>>()
    })?;
    let written = write(&path, &format!("{mark}{new}"));
    written.map_err(|error| one(format!("cannot be written: {error}")))
}

fn updated_text(text: &str, updates: &[ExampleUpdate<'_>]) -> Result<String, String> {
    let changed = || "the file has changed meanwhile".to_owned();
    let document: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut all: Vec<Edit> = Vec::new();
    for ExampleUpdate { result, answer } in updates {
        let endpoint = member(document, result.endpoint.id.as_str()).ok_or_else(changed)?;
        let examples = member(endpoint, "examples").ok_or_else(changed)?;
        let example = member(examples, result.name()).ok_or_else(changed)?;
        match member(example, ANSWER) {
            Some(old) => edits(text, old, answer, &mut all)?,
            None => all.push(Edit::add_member(text, example, ANSWER, answer)),
        }
    }
    Ok(apply(text, all))
}

fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let RawMembers(members) = serde_json::from_str(object.get()).ok()?;
    members.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// Replaces a file in one step, so that a reader sees either version. Keeps its permissions.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The catalogue ignores hidden files.
    let temporary = path.with_file_name(format!(".{name}.new"));
    let written = || {
        let mut file = fs::File::create(&temporary)?;
        file.set_permissions(fs::metadata(path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().inspect_err(|_| {
        // The error of the write is reported.
        fs::remove_file(&temporary).ok();
    })
}
