//! `--update`: writes the answers of examples to the catalogue files. The formatting of the rest of each file is
//! preserved.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Read as _;
use std::path::Path;

use serde_json::value::RawValue;

use super::result::{ExampleOutcome, ExampleResult};
use crate::catalogue::definition::json::RawMembers;
use crate::catalogue::load::FILE_BYTES_MAX;
use crate::catalogue::{Catalogue, EndpointDefaults, load};
use crate::new_file;

use answer::{ActualAnswer, actual_answer};
use edits::{Edit, SourceText, edits};

mod answer;
mod edits;

/// The byte order mark at the start of a file.
const BYTE_ORDER_MARK: &str = "\u{feff}";
/// The key of an example's answer.
const ANSWER: &str = "answer";

/// The result of an update.
#[derive(Debug, Default)]
pub(super) struct UpdateResult {
    /// The changed files.
    pub(super) files: Vec<String>,
    /// The updated examples.
    pub(super) examples: Vec<String>,
    /// The expectations that were removed because the answer does not meet them. Each is preceded by the name of its
    /// example.
    pub(super) removed: Vec<String>,
    /// The reasons why some examples or files were not updated.
    pub(super) errors: Vec<String>,
}

/// The contents of the catalogue files before the examples run.
#[derive(Debug)]
pub(super) struct CatalogueFiles {
    texts: BTreeMap<String, String>,
}

/// An example and its actual answer.
struct ExampleUpdate<'a> {
    result: &'a ExampleResult,
    answer: ActualAnswer,
}

/// The new text of a file.
struct UpdatedText<'a> {
    text: String,
    /// The updates that the text contains.
    updates: Vec<&'a ExampleUpdate<'a>>,
    /// The reasons why some answers are not in the text.
    errors: Vec<String>,
}

impl CatalogueFiles {
    /// Reads the catalogue files of the endpoints.
    ///
    /// # Errors
    /// Returns a message that names the file.
    pub(super) fn read(catalogue: &Catalogue) -> Result<Self, String> {
        let mut texts = BTreeMap::new();
        for endpoint in catalogue.endpoints() {
            let Some(file) = catalogue.file(&endpoint.id) else { continue };
            if endpoint.examples.is_empty() || texts.contains_key(file) {
                continue;
            }
            let mut text = String::new();
            let opened = File::open(file);
            // The catalogue was loaded from this file. If the file exceeds the limit now, it has changed since.
            let read = opened.and_then(|it| it.take(FILE_BYTES_MAX).read_to_string(&mut text));
            read.map_err(|error| format!("{file}: cannot be read: {error}"))?;
            texts.insert(file.to_owned(), text);
        }
        Ok(Self { texts })
    }

    /// Writes the actual answer of each failed example. An answer that would make the catalogue invalid is not written.
    pub(super) fn update(
        &self,
        catalogue: &Catalogue,
        defaults: &EndpointDefaults,
        results: &[ExampleResult],
    ) -> UpdateResult {
        let mut done = UpdateResult::default();
        let mut by_file: BTreeMap<&str, Vec<ExampleUpdate<'_>>> = BTreeMap::new();
        for result in results {
            let ExampleOutcome::Failed(evaluation) = &result.outcome else { continue };
            if evaluation.differences.is_empty() {
                // Only `returns` is contradicted, and an example cannot change that.
                continue;
            }
            let (Some(file), Some(example)) =
                (catalogue.file(&result.endpoint.id), result.example())
            else {
                continue;
            };
            let answer = match &result.received {
                Some(received) => actual_answer(&result.endpoint, example, received),
                None => Err("the answers of this run need too much memory: select fewer examples"
                    .to_owned()),
            };
            match answer {
                Ok(answer) => {
                    by_file.entry(file).or_default().push(ExampleUpdate { result, answer });
                }
                Err(reason) => done.errors.push(not_updated(result, &reason)),
            }
        }
        for (file, updates) in &by_file {
            if let Err(error) = self.update_file(file, defaults, updates, &mut done) {
                done.errors.push(format!("not updated: {file}: {error}"));
            }
        }
        done
    }

    fn update_file(
        &self,
        file: &str,
        defaults: &EndpointDefaults,
        updates: &[ExampleUpdate<'_>],
        done: &mut UpdateResult,
    ) -> Result<(), String> {
        let before = self.texts.get(file).ok_or_else(changed)?;
        let (mark, text) = match before.strip_prefix(BYTE_ORDER_MARK) {
            Some(text) => (BYTE_ORDER_MARK, text),
            None => ("", &**before),
        };
        let new = updated_text((file, text), defaults, updates)?;
        done.errors.extend(new.errors);
        if new.updates.is_empty() {
            return Ok(());
        }
        load::parse(&[(file, &new.text)], defaults).map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            format!("the new content would be invalid: {first}")
        })?;
        replace(Path::new(file), before, &format!("{mark}{}", new.text))?;
        done.files.push(file.to_owned());
        for ExampleUpdate { result, answer } in new.updates {
            if has_no_other_error(result) {
                done.examples.push(result.id());
            }
            let removed = answer.removed.iter().map(|one| format!("{}: {one}", result.id()));
            done.removed.extend(removed);
        }
        Ok(())
    }
}

fn changed() -> String {
    "the file has changed in the meantime: run the examples again".to_owned()
}

fn not_updated(result: &ExampleResult, reason: &str) -> String {
    format!("{}: not updated: {reason}", result.id())
}

fn has_no_other_error(result: &ExampleResult) -> bool {
    matches!(&result.outcome, ExampleOutcome::Failed(it) if it.contradictions.is_empty())
}

/// Writes the answers into the text of a file. An answer that would make its endpoint invalid is left out.
fn updated_text<'a>(
    (file, text): (&str, &str),
    defaults: &EndpointDefaults,
    updates: &'a [ExampleUpdate<'a>],
) -> Result<UpdatedText<'a>, String> {
    let source = SourceText::new(text);
    let document: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let RawMembers(endpoints) =
        serde_json::from_str(document.get()).map_err(|error| error.to_string())?;
    let mut all: Vec<Edit> = Vec::new();
    let (mut written, mut errors) = (Vec::new(), Vec::new());
    for group in updates.chunk_by(|one, other| one.result.endpoint.id == other.result.endpoint.id) {
        let Some(first) = group.first() else { continue };
        let id = first.result.endpoint.id.as_str();
        let endpoint = endpoints.iter().find(|(known, _)| known == id);
        let (_, endpoint) = endpoint.ok_or_else(changed)?;
        let examples = member(endpoint, "examples").ok_or_else(changed)?;
        let start = all.len();
        for update in group {
            let example = member(examples, update.result.name()).ok_or_else(changed)?;
            let before = all.len();
            match member(example, ANSWER) {
                Some(old) => edits(source, old, &update.answer.json, &mut all)?,
                None => all.push(Edit::add_member(source, example, ANSWER, &update.answer.json)),
            }
            let own = all.get(start..).unwrap_or_default();
            let own = source.edited(source.range_of(endpoint), own);
            let alone = format!("{{{}:{own}}}", serde_json::Value::from(id));
            match load::parse(&[(file, &alone)], defaults) {
                Ok(_) => written.push(update),
                Err(found) => {
                    all.truncate(before);
                    let reason = found.first().map(|it| format!("{}: {}", it.key, it.expected));
                    errors.push(not_updated(update.result, &reason.unwrap_or_default()));
                }
            }
        }
    }
    Ok(UpdatedText { text: source.edited(0..text.len(), &all), updates: written, errors })
}

fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let RawMembers(members) = serde_json::from_str(object.get()).ok()?;
    members.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// Replaces a file if its text is still `before`. If two processes do this at the same time, one of them fails.
fn replace(file: &Path, before: &str, new: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot be written: {error}");
    let path = fs::canonicalize(file).map_err(failed)?;
    // The file is opened for writing for two reasons: a read-only file must not be replaced, and NFS requires a
    // writable descriptor for an exclusive lock.
    let lock = File::options().read(true).write(true).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err("another process is writing it".to_owned()),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // The file is read again by name, because another process may have replaced it before it was locked.
    let mut now = Vec::new();
    let limit = before.len() as u64 + 1;
    File::open(&path).and_then(|it| it.take(limit).read_to_end(&mut now)).map_err(failed)?;
    if now != before.as_bytes() {
        return Err(changed());
    }
    new_file::replace(&path, new).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_changed_or_is_locked_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.json");
        fs::write(&file, "{} ").unwrap();
        for before in ["{}", "{}\n", "{}  "] {
            assert_eq!(replace(&file, before, "new").unwrap_err(), changed());
        }
        let lock = File::open(&file).unwrap();
        lock.lock().unwrap();
        assert_eq!(replace(&file, "{} ", "new").unwrap_err(), "another process is writing it");
        assert_eq!(fs::read_to_string(&file).unwrap(), "{} ");
        drop(lock);
        // A symbolic link must remain a symbolic link.
        let link = directory.path().join("b.json");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "{} ", "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
