//! Finds the modules of `src` and `roles`, and the uses between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use super::SourceFile;
use super::code::{blank_literals, without_unit_tests};

/// The path of a module within the crate. For example, the path of `roles/gateway/session.rs` is
/// `["roles", "gateway", "session"]`.
type ModulePath = Vec<String>;

/// A use of one module's item by another module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ModuleUse {
    pub(super) by: ModulePath,
    /// The module in which the item is defined.
    pub(super) module: ModulePath,
    /// The path as it is written in the source.
    pub(super) written: String,
}

impl std::fmt::Display for ModuleUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} uses {}", self.by.join("::"), self.written)
    }
}

static USE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\buse\s+([^;]+);"));
static PATH: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b\w+(?:::\w+)+"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

/// The maximum number of aliases that are followed to resolve a path. It guards against circular aliases.
const ALIASES_MAX: usize = 8;

/// All modules, each with the names that its `use` declarations import.
struct Modules {
    paths: BTreeSet<ModulePath>,
    aliases: BTreeMap<(ModulePath, String), Vec<String>>,
}

/// Finds every use between two modules of `src` and `roles`, except in unit tests.
pub(super) fn uses(sources: &[SourceFile]) -> Vec<ModuleUse> {
    let files: Vec<(ModulePath, String)> = sources
        .iter()
        .filter_map(|source| Some((module_path(&source.path)?, &source.text)))
        .map(|(path, text)| (path, without_unit_tests(&blank_literals(text))))
        .collect();
    let mut modules = Modules { paths: BTreeSet::new(), aliases: BTreeMap::new() };
    for (path, code) in &files {
        modules.paths.extend((0..=path.len()).map(|depth| path[..depth].to_vec()));
        for (segments, alias) in declarations(code) {
            modules.aliases.insert((path.clone(), alias), segments);
        }
    }
    let mut uses = BTreeSet::new();
    for (path, code) in &files {
        let inline = USE.replace_all(code, "");
        let inline = PATH.find_iter(&inline).map(|found| segments(found.as_str()));
        for segments in declarations(code).into_iter().map(|(path, _)| path).chain(inline) {
            if let Some(module) = modules.resolve(path, &segments, ALIASES_MAX) {
                uses.insert(ModuleUse { by: path.clone(), module, written: segments.join("::") });
            }
        }
    }
    uses.into_iter().collect()
}

/// Returns the module that a file contains, or `None` for files that are not part of the library's code.
fn module_path(file: &str) -> Option<ModulePath> {
    let name = file.strip_suffix(".rs")?;
    let path = match name.strip_prefix("src/") {
        Some("main") => return None,
        Some("lib") => "",
        Some(path) => path,
        None if name == "roles/mod" => "roles",
        None if name.starts_with("roles/") => name,
        None => return None,
    };
    let path: ModulePath =
        path.split('/').filter(|part| !part.is_empty()).map(Into::into).collect();
    (!path.iter().any(|part| part == "tests")).then_some(path)
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|segment| segment.trim().to_owned()).collect()
}

/// Returns the paths of all `use` declarations, each with the name that it declares.
fn declarations(code: &str) -> Vec<(Vec<String>, String)> {
    let mut paths = Vec::new();
    for declaration in USE.captures_iter(code) {
        expand("", &declaration[1], &mut paths);
    }
    paths
}

/// Expands `a::{b, c::{d, e as f}}` into its paths.
fn expand(prefix: &str, tree: &str, into: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some((start, group)) = tree.split_once('{') {
        let group = group.strip_suffix('}').unwrap_or(group);
        for member in split_group(group) {
            expand(&format!("{prefix}{start}"), member, into);
        }
    } else if !tree.is_empty() {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = format!("{prefix}{path}");
        let path = path.strip_suffix("::self").unwrap_or(&path);
        let path = segments(path);
        let last = path.last().cloned().unwrap_or_default();
        into.push((path, if alias.is_empty() { last } else { alias.trim().to_owned() }));
    }
}

/// Splits a group at its own commas, but not at those of inner groups.
fn split_group(group: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let members = group.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    members.collect()
}

impl Modules {
    /// Returns the module in which the item of a path is defined, after following aliases and re-exports. Returns
    /// `None` for items of other crates and for local names.
    fn resolve(&self, by: &ModulePath, path: &[String], aliases_left: usize) -> Option<ModulePath> {
        let (first, mut rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => by.clone(),
            "super" => by[..by.len().checked_sub(1)?].to_vec(),
            name => {
                rest = path;
                let is_local = self.child(by, name).is_some() || self.alias(by, name).is_some();
                is_local.then(|| by.clone())?
            }
        };
        while let Some((name, after)) = rest.split_first() {
            if name == "super" {
                module.pop();
            } else if let Some(child) = self.child(&module, name) {
                module = child;
            } else if let Some(target) = self.alias(&module, name).filter(|_| aliases_left > 0) {
                let target: Vec<String> = target.iter().chain(after).cloned().collect();
                let resolved = self.resolve(&module, &target, aliases_left - 1);
                // The alias may name an item of another crate that the module re-exports.
                let is_own = resolved.is_some() || &module != by;
                return is_own.then(|| resolved.unwrap_or(module));
            } else {
                break;
            }
            rest = after;
        }
        Some(module)
    }

    fn child(&self, module: &ModulePath, name: &str) -> Option<ModulePath> {
        let child: ModulePath = module.iter().cloned().chain([name.to_owned()]).collect();
        self.paths.contains(&child).then_some(child)
    }

    fn alias(&self, module: &ModulePath, name: &str) -> Option<&Vec<String>> {
        self.aliases.get(&(module.clone(), name.to_owned()))
    }
}

/// The uses between the children of one module, by the names of the using and the used module. Each has one example.
pub(super) type Edges = BTreeMap<(String, String), ModuleUse>;

/// Groups uses by the innermost module that contains both modules.
pub(super) fn edges(uses: &[ModuleUse]) -> BTreeMap<ModulePath, Edges> {
    let mut levels: BTreeMap<ModulePath, Edges> = BTreeMap::new();
    for found in uses {
        let same = found.by.iter().zip(&found.module).take_while(|(a, b)| a == b).count();
        // A module may use its parents and children, because other modules see them as one unit.
        if let (Some(from), Some(to)) = (found.by.get(same), found.module.get(same)) {
            let level = levels.entry(found.by[..same].to_vec()).or_default();
            level.entry((from.clone(), to.clone())).or_insert_with(|| found.clone());
        }
    }
    levels
}

#[cfg(test)]
pub(super) fn fixture(files: &[(&str, &str)]) -> Vec<SourceFile> {
    let source = |(path, text): &(&str, &str)| SourceFile {
        path: (*path).to_owned(),
        text: (*text).to_owned(),
    };
    files.iter().map(source).collect()
}

#[test]
fn a_use_is_found_in_every_form() {
    let used_module = |text: &str| {
        let sources = fixture(&[
            ("src/lib.rs", "pub mod a; pub mod b;"),
            ("src/a.rs", "mod deep;"),
            ("src/a/deep.rs", text),
            ("src/b.rs", "pub mod c; pub use c::Item; pub use bytes::Bytes; pub fn f() {}"),
            ("src/b/c.rs", "pub struct Item;"),
        ]);
        let uses = uses(&sources).into_iter().filter(|found| found.by == ["a", "deep"]);
        uses.map(|found| found.module.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(used_module("use crate::b::c::Item;"), ["b::c"]);
    assert_eq!(used_module("use crate::b::Item;"), ["b::c"], "re-exported");
    assert_eq!(used_module("use crate::b::Bytes;"), ["b"], "re-exported from another crate");
    assert_eq!(used_module("use crate::{b::{c::{Item as Other}}};"), ["b::c"]);
    assert_eq!(used_module("use super::super::b;\nfn x() { b::f() }"), ["b", "b"]);
    assert_eq!(used_module("use crate::b::{self, Item};"), ["b", "b::c"]);
    assert_eq!(used_module("fn x(y: crate::b::c::Item) {}"), ["b::c"]);
    assert_eq!(used_module("use std::fmt; fn x() -> fmt::Result { String::new() }"), [""; 0]);
    assert_eq!(used_module("// crate::b::f\nfn x() { \"crate::b::f\" }"), [""; 0]);
    assert_eq!(used_module("#[cfg(test)]\nmod tests { use crate::b::Item; }"), [""; 0]);
}
