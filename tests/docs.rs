//! Promise: every link in the documentation has a target, every page is in the index, and every module is in
//! ARCHITECTURE.md. The files of the tutorial pass `fjord check` with the output that the tutorial quotes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;

use super::support::certs::Certs;
use super::support::fjord_binary;

/// The maximum number of lines of ARCHITECTURE.md. The page is short so that a newcomer can read all of it.
const ARCHITECTURE_LINES_MAX: usize = 150;

static LINK: LazyLock<Regex> = LazyLock::new(|| pattern(r"\]\(([^)\s]+)\)"));
static HEADING: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^#+ +(.+)$"));
static BLOCK: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)\n```(\w+)\n(.*?\n)```"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// Returns the sorted names in a directory.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    entries
        .map(|entry| {
            entry.expect("the entry can be read").file_name().to_string_lossy().into_owned()
        })
        .collect()
}

/// Returns all documentation pages of the repository.
fn pages() -> Vec<PathBuf> {
    let in_directory = |directory: PathBuf| {
        let files = names(&directory).into_iter().map(|name| directory.join(name));
        files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect::<Vec<_>>()
    };
    let pages = [in_directory(root().to_owned()), in_directory(root().join("docs"))].concat();
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

/// Returns a page without its code blocks.
fn prose(page: &str) -> String {
    BLOCK.replace_all(page, "\n").into_owned()
}

/// Returns the anchors of a page's headings, as GitHub generates them.
fn anchors(page: &str) -> BTreeSet<String> {
    let text = prose(page);
    let headings = HEADING.captures_iter(&text).map(|heading| anchor(&heading[1]));
    headings.collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Returns the links of a page that have no target.
fn broken_links(page: &Path, text: &str) -> Vec<String> {
    let directory = page.parent().expect("a directory");
    let text = prose(text);
    let links = LINK.captures_iter(&text).map(|link| link[1].to_owned());
    let broken = links.filter(|link| {
        if link.contains("://") {
            return false;
        }
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { page.to_owned() } else { directory.join(file) };
        !target.exists() || !(anchor.is_empty() || anchors(&read(&target)).contains(anchor))
    });
    broken.collect()
}

#[test]
fn every_link_has_a_target() {
    for page in pages() {
        let broken = broken_links(&page, &read(&page));
        assert!(broken.is_empty(), "{}: {broken:?}", page.display());
    }
    let page = root().join("README.md");
    let broken =
        broken_links(&page, "[a](nowhere.md) [b](#nowhere) [c](https://example.com/) [d](LICENSE)");
    assert_eq!(broken, ["nowhere.md", "#nowhere"]);
}

#[test]
fn every_page_is_in_the_index() {
    let index = read(&root().join("docs/README.md"));
    for page in names(&root().join("docs")) {
        assert!(
            page == "README.md" || index.contains(&format!("({page}")),
            "{page} is not in the index"
        );
    }
}

/// Returns the modules of a directory that `text` does not mention as `name.rs`, `name` or `name/`.
fn unmentioned(directory: &str, text: &str) -> Vec<String> {
    let names = names(&root().join(directory)).into_iter();
    let modules: BTreeSet<String> =
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect();
    let is_missing = |module: &String| {
        let mention = pattern(&format!(r"[`/]{}(\.rs|/)?`", regex::escape(module)));
        !matches!(module.as_str(), "tests" | "lib" | "mod") && !mention.is_match(text)
    };
    modules.into_iter().filter(is_missing).collect()
}

#[test]
fn architecture_is_short_and_mentions_every_module() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let lines = text.lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines");
    let directories = [
        "src",
        "src/procedures/mssql",
        "src/procedures/mssql/call",
        "src/procedures/mssql/metadata",
        "src/procedures/mssql/pools",
        "src/procedures/mssql/tds",
        "src/procedures/mssql/types",
        "roles/gateway",
        "roles/gateway/admission",
        "roles/gateway/client",
        "roles/gateway/dispatch",
        "roles/gateway/edge",
        "roles/gateway/edge/connection",
        "roles/gateway/edge/connection/io",
        "roles/gateway/edge/connection/request",
        "roles/gateway/observation",
        "roles/worker",
        "roles/worker/execution",
        "roles/worker/intake",
        "roles/worker/observation",
    ];
    for directory in directories {
        let missing = unmentioned(directory, &text);
        assert!(missing.is_empty(), "ARCHITECTURE.md does not mention {missing:?} of {directory}");
    }
    assert!(unmentioned("src", "`main.rs`, `cli`").contains(&"config".to_owned()));
}

#[test]
fn architecture_mentions_no_file_that_does_not_exist() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut files = BTreeSet::new();
    for part in ["src", "roles", "tests"] {
        collect(&root().join(part), part, &mut files);
    }
    for mention in pattern(r"`([\w/]+\.rs)`").captures_iter(&text) {
        let end = format!("/{}", &mention[1]);
        let is_file = files.iter().any(|file| format!("/{file}").ends_with(&end));
        assert!(is_file, "ARCHITECTURE.md mentions {}", &mention[1]);
    }
}

fn collect(directory: &Path, name: &str, into: &mut BTreeSet<String>) {
    for entry in names(directory) {
        let path = directory.join(&entry);
        let name = format!("{name}/{entry}");
        if path.is_dir() { collect(&path, &name, into) } else { assert!(into.insert(name)) }
    }
}

/// Returns the code blocks of a page in one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let of_language = BLOCK.captures_iter(page).filter(|block| &block[1] == language);
    of_language.filter_map(|block| block.get(2)).map(|text| text.as_str()).collect()
}

/// Runs a command in a directory and returns its stdout and stderr.
fn output(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(fjord_binary());
    let output = command.args(arguments).args(["--config", "."]).current_dir(directory).output();
    let output = output.expect("fjord runs");
    // The commands print errors and warnings first.
    let printed = [output.stderr, output.stdout].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{arguments:?}: {printed}");
    printed
}

/// Creates the directory of the tutorial, with all files except the catalogue.
fn tutorial_directory(tutorial: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    for name in ["endpoints", "secrets", "tls"] {
        fs::create_dir(at(name)).expect("the directory can be created");
    }
    let certs = Certs::new(directory.path());
    for (from, to) in [
        (&certs.ca, "tls/ca.pem"),
        (&certs.ca, "tls/mssql-ca.pem"),
        (&certs.server.certificate, "tls/server.pem"),
        (&certs.server.key, "tls/server.key"),
    ] {
        fs::copy(from, at(to)).expect("the file can be copied");
    }
    let password = at("secrets/mssql-password");
    fs::write(&password, "Tutorial-1234\n").expect("the file can be written");
    let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(password, only_ours).expect("the permissions can be changed");
    let configuration = blocks(tutorial, "toml");
    let files = ["fjord.toml", "gateway.toml", "worker.toml"];
    assert_eq!(configuration.len(), files.len(), "a block for each of {files:?}");
    for (file, text) in files.into_iter().zip(configuration) {
        fs::write(at(file), text).expect("the file can be written");
    }
    directory
}

#[test]
fn the_files_of_the_tutorial_are_valid_and_its_output_is_current() {
    let tutorial = read(&root().join("docs/TUTORIAL.md"));
    let directory = tutorial_directory(&tutorial);
    let [endpoints] = blocks(&tutorial, "json")[..] else { panic!("one file of the catalogue") };
    fs::write(directory.path().join("endpoints/imported.json"), endpoints)
        .expect("the file can be written");
    let printed = output(directory.path(), &["check"]);
    assert!(tutorial.contains(&format!("$ fjord check --config .\n{printed}```")), "{printed}");
    let printed = output(directory.path(), &["routes"]);
    assert!(tutorial.contains(&format!("$ fjord routes --config shop\n{printed}```")), "{printed}");
}

#[test]
fn the_endpoint_of_the_readme_is_valid() {
    let directory = tutorial_directory(&read(&root().join("docs/TUTORIAL.md")));
    let readme = read(&root().join("README.md"));
    let endpoint = blocks(&readme, "json").into_iter().next().expect("an endpoint");
    fs::write(directory.path().join("endpoints/horses.json"), endpoint)
        .expect("the file can be written");
    assert!(output(directory.path(), &["check"]).contains("valid for gateway and worker"));
}
