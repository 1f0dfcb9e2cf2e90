//! Checks that there are no cycles between modules.

use std::collections::{BTreeMap, BTreeSet};

use super::SourceFile;
use super::modules::{Edges, edges, fixture, uses};

/// Describes every cycle between sibling modules. Each edge has one example.
fn cycles(sources: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for (parent, edges) in edges(&uses(sources)) {
        for group in cyclic_groups(&edges) {
            let parent = if parent.is_empty() { "crate".to_owned() } else { parent.join("::") };
            let names = group.iter().copied().collect::<Vec<_>>().join(", ");
            let is_inside = |(from, to): &&(String, String)| {
                group.contains(from.as_str()) && group.contains(to.as_str())
            };
            let edges = edges.iter().filter(|(edge, _)| is_inside(edge));
            let edges =
                edges.map(|((from, to), example)| format!("\n    {from} → {to}: {example}"));
            found.push(format!("{parent}: {names} use each other{}", edges.collect::<String>()));
        }
    }
    found
}

/// Returns the groups of nodes that can reach each other.
fn cyclic_groups(edges: &Edges) -> BTreeSet<BTreeSet<&str>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in edges.keys() {
        next.entry(from).or_default().push(to);
    }
    let reachable = |start: &str| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = next.get(start).cloned().unwrap_or_default();
        while let Some(node) = open.pop() {
            if reached.insert(node) {
                open.extend(next.get(node).into_iter().flatten());
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        next.keys().map(|node| (*node, reachable(node))).collect();
    let reach_each_other = |a: &str, b: &str| {
        reached.get(b).is_some_and(|from_b| from_b.contains(a)) && reached[a].contains(b)
    };
    let cyclic = next.keys().filter(|node| reached[**node].contains(**node));
    cyclic
        .map(|node| next.keys().copied().filter(|other| reach_each_other(node, other)).collect())
        .collect()
}

#[test]
fn cycles_are_found_at_every_level() {
    let found = |files: &[(&str, &str)]| {
        let cycles = cycles(&fixture(files));
        cycles.iter().map(|text| text.lines().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        found(&[("src/a.rs", "use crate::b::X;"), ("src/b.rs", "fn f() { crate::a::g() }")]),
        ["crate: a, b use each other"]
    );
    assert_eq!(
        found(&[
            ("src/a.rs", "use crate::b::X;"),
            ("src/b.rs", "use crate::c::Y;"),
            ("src/c/d.rs", "use crate::a::Z;"),
        ]),
        ["crate: a, b, c use each other"]
    );
    assert_eq!(
        found(&[
            ("roles/gateway.rs", "mod a; mod b; pub use a::A;"),
            ("roles/gateway/a.rs", "use super::b::B; pub struct A;"),
            ("roles/gateway/b.rs", "use super::A; pub struct B;"),
        ]),
        ["roles::gateway: a, b use each other"],
        "through a re-export"
    );
}

#[test]
fn modules_that_do_not_use_each_other_are_no_cycle() {
    let sources = fixture(&[
        ("src/a.rs", "mod b; use crate::c::C; use b::B;"),
        ("src/a/b.rs", "use super::A;"),
        ("src/c.rs", "#[cfg(test)]\nmod tests { use crate::a::A; }"),
        ("src/c/tests.rs", "use crate::a::A;"),
    ]);
    assert_eq!(cycles(&sources), [""; 0]);
}
#[test]
fn modules_have_no_cycles() {
    let cycles = cycles(&super::sources());
    assert!(
        cycles.is_empty(),
        "modules that use each other can be understood, tested and changed only together:\n{}",
        cycles.join("\n")
    );
}
