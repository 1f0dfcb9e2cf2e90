//! Detects changes to the files of a configuration by polling their modification times.
//!
//! Kernel notifications would be faster, but they are unavailable on network file systems and in many directories
//! shared with a container or a virtual machine. An editor writes a file in several steps. A change is therefore
//! reported only after the files have remained the same for one interval.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::plan::DevPlan;
use crate::catalogue::load::is_catalogue_file;
use crate::config::Sources;
use crate::config::procedures::DatabaseConfig;

/// The interval between two polls of the files.
const INTERVAL: Duration = Duration::from_millis(150);
/// The maximum number of files that are watched in a directory.
const FILES_MAX: usize = 10_000;

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchedKind {
    /// A layer of the configuration.
    Configuration,
    /// A file of the catalogue.
    Catalogue,
    /// The SQL file of a procedure for the embedded backend.
    Procedure,
    /// The SQL file that is executed when the embedded backend creates a database.
    Schema,
}

type Version = (WatchedKind, SystemTime, u64, u64);
type Versions = BTreeMap<PathBuf, Version>;

/// The files that have changed, grouped by kind.
pub(super) type Changes = BTreeMap<WatchedKind, BTreeSet<PathBuf>>;

/// The files of a configuration and their last known versions.
#[derive(Debug)]
pub(super) struct Watcher {
    layers: Vec<Sources>,
    catalogue: PathBuf,
    procedures: Vec<PathBuf>,
    schemas: Vec<PathBuf>,
    /// The versions up to which changes have been reported.
    reported: Versions,
    /// The versions found by the last poll.
    latest: Versions,
    ticks: Interval,
}

impl Watcher {
    /// Starts watching the files of a configuration.
    pub(super) fn new(plan: &DevPlan) -> Self {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watcher = Self {
            layers: Vec::new(),
            catalogue: PathBuf::new(),
            procedures: Vec::new(),
            schemas: Vec::new(),
            reported: Versions::new(),
            latest: Versions::new(),
            ticks,
        };
        watcher.watch(plan);
        watcher.reported = watcher.versions();
        watcher.latest.clone_from(&watcher.reported);
        watcher
    }

    /// Watches the files of a changed configuration. Changes that occurred since the last report will still be
    /// reported.
    pub(super) fn watch(&mut self, plan: &DevPlan) {
        self.layers = vec![plan.gateway.clone(), plan.worker.clone()];
        self.catalogue.clone_from(&plan.worker_config.catalogue.directory);
        let (mut procedures, mut schemas) = (Vec::new(), Vec::new());
        for database in plan.worker_config.procedures.databases.values() {
            if let DatabaseConfig::Sqlite(sqlite) = database {
                procedures.push(sqlite.procedures.clone());
                schemas.extend(sqlite.schema.clone());
            }
        }
        (self.procedures, self.schemas) = (procedures, schemas);
    }

    /// Waits until files have changed and have then remained the same for one interval. Cancel safe.
    pub(super) async fn changed(&mut self) -> Changes {
        loop {
            self.ticks.tick().await;
            let versions = self.versions();
            let is_quiet = versions == self.latest;
            self.latest = versions;
            if is_quiet && self.latest != self.reported {
                let changes = differences(&self.reported, &self.latest);
                self.reported.clone_from(&self.latest);
                return changes;
            }
        }
    }

    fn versions(&self) -> Versions {
        let mut versions = Versions::new();
        let mut add = |kind, path: PathBuf| {
            if let Ok(metadata) = fs::metadata(&path)
                && let Ok(modified) = metadata.modified()
            {
                versions.insert(path, (kind, modified, metadata.ino(), metadata.len()));
            }
        };
        for path in self.layers.iter().flat_map(Sources::layer_files) {
            add(WatchedKind::Configuration, path);
        }
        for path in entries(&self.catalogue).filter(|path| is_catalogue_file(path)) {
            add(WatchedKind::Catalogue, path);
        }
        for path in self.procedures.iter().flat_map(|directory| entries(directory)) {
            if path.extension().is_some_and(|extension| extension == "sql") {
                add(WatchedKind::Procedure, path);
            }
        }
        for path in &self.schemas {
            add(WatchedKind::Schema, path.clone());
        }
        versions
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).take(FILES_MAX)
}

/// Returns the files that were added, modified or removed.
fn differences(old: &Versions, new: &Versions) -> Changes {
    let mut changes = Changes::new();
    for (path, version) in old.iter().chain(new) {
        if old.get(path) != new.get(path) {
            changes.entry(version.0).or_default().insert(path.clone());
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_changed_and_removed_files_differ() {
        let version = |length| (WatchedKind::Catalogue, SystemTime::UNIX_EPOCH, 1, length);
        let versions = |files: &[(&str, u64)]| -> Versions {
            files.iter().map(|(name, length)| (PathBuf::from(name), version(*length))).collect()
        };
        let old = versions(&[("same", 1), ("changed", 1), ("removed", 1)]);
        let new = versions(&[("same", 1), ("changed", 2), ("added", 1)]);
        let changes = differences(&old, &new);
        let expected = ["added", "changed", "removed"].map(PathBuf::from);
        assert_eq!(changes, Changes::from([(WatchedKind::Catalogue, expected.into())]));
    }
}
