//! `fjord init`: creates a configuration directory with an endpoint. Existing files are not modified.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead as _, Read as _, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;

use super::import;
use super::private_directory::PrivateDirectory;
use super::process_guard::ProcessGuard;
use super::shell::quoted_path;
use super::{EXIT_FAILED, EXIT_USAGE, Output, print_lines};
use crate::cli::{AuthChoice, ImportArguments, InitArguments, Role};
use crate::config::Sources;
use crate::new_file;

use connection_string::ConnectionString;

mod connection_string;

/// The file that contains the SQL Server password.
const PASSWORD_FILE: &str = "secrets/mssql-password";
/// The file that contains the imported endpoints.
const IMPORTED_FILE: &str = "endpoints/imported.json";
/// The maximum length of a connection string in bytes.
const CONNECTION_STRING_BYTES_MAX: u64 = 64 * 1024;

/// A file to create.
#[derive(Clone, Debug)]
struct NewFile {
    /// The path relative to the directory.
    name: &'static str,
    text: String,
    /// Whether only the owner may read the file.
    is_secret: bool,
}

impl NewFile {
    fn new(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, text: text.into(), is_secret: false }
    }
}

/// Creates all files or none.
pub(super) fn run(
    arguments: &InitArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let directory = &arguments.directory;
    let connection = match &arguments.mssql {
        None => None,
        Some(text) => match read_connection_string(text) {
            Ok(connection) => Some(connection),
            Err(errors) => {
                print_lines(&mut output.err, "error: --mssql", errors)?;
                return Ok(ExitCode::from(EXIT_USAGE));
            }
        },
    };
    let mut files = vec![
        NewFile::new(".gitignore", include_str!("init/template/gitignore")),
        NewFile::new("fjord.toml", include_str!("init/template/fjord.toml")),
    ];
    match &connection {
        None => files.extend(sqlite_files()),
        Some(connection) => {
            print_lines(&mut output.err, "note", connection.notes())?;
            files.extend(mssql_files(connection));
        }
    }
    let mut names: Vec<&str> = files.iter().map(|file| file.name).collect();
    names.extend(connection.is_some().then_some(IMPORTED_FILE));
    if let Some(error) = conflict(directory, &names) {
        print_lines(&mut output.err, "error", [error])?;
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    if let Some(connection) = &connection {
        let auth = arguments.auth.unwrap_or(AuthChoice::Jwt);
        if let Some(text) = imported(&files, auth, sources, output)? {
            files.push(NewFile::new(IMPORTED_FILE, text));
        } else {
            let text = format!("nothing was created in {}", directory.display());
            print_lines(&mut output.err, "error", [text])?;
            print_lines(&mut output.err, "note", connection.advice())?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    }
    if let Err(error) = create(directory, &files) {
        print_lines(&mut output.err, "error", [error])?;
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    for file in &files {
        writeln!(output.out, "created {}", directory.join(file.name).display())?;
    }
    let shown = quoted_path(directory);
    writeln!(output.out, "\nNext:\n\n  fjord check --config {shown}\n  fjord dev {shown}")?;
    if connection.is_none() {
        // The imported endpoints have no examples.
        writeln!(output.out, "  fjord test --config {shown}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_connection_string(text: &str) -> Result<ConnectionString, Vec<String>> {
    if text != "-" {
        return ConnectionString::parse(text);
    }
    let mut read = String::new();
    let result = io::stdin().lock().take(CONNECTION_STRING_BYTES_MAX).read_line(&mut read);
    result.map_err(|error| vec![format!("stdin cannot be read: {error}")])?;
    ConnectionString::parse(read.trim())
}

fn sqlite_files() -> Vec<NewFile> {
    vec![
        NewFile::new("worker.toml", include_str!("init/template/worker-sqlite.toml")),
        NewFile::new("schema.sql", include_str!("init/template/schema.sql")),
        NewFile::new("endpoints/greetings.json", include_str!("init/template/greetings.json")),
        NewFile::new(
            "procedures/app.greeting_get.sql",
            include_str!("init/template/app.greeting_get.sql"),
        ),
    ]
}

fn mssql_files(connection: &ConnectionString) -> Vec<NewFile> {
    let queues = include_str!("init/template/worker-mssql.toml");
    let password = format!("{}\n", connection.password().expose());
    vec![
        NewFile::new("worker.toml", format!("{queues}{}", connection.to_toml(PASSWORD_FILE))),
        NewFile { is_secret: true, ..NewFile::new(PASSWORD_FILE, password) },
    ]
}

/// Returns an error if the directory is a file, or if it already contains one of the files.
fn conflict(directory: &Path, names: &[&str]) -> Option<String> {
    let shown = directory.display();
    if directory.exists() && !directory.is_dir() {
        return Some(format!("{shown}: expected a directory"));
    }
    // A broken symbolic link also counts as a file.
    let exists = |name: &&&str| fs::symlink_metadata(directory.join(name)).is_ok();
    let existing: Vec<&str> = names.iter().filter(exists).copied().collect();
    (!existing.is_empty()).then(|| {
        let existing = existing.join(", ");
        format!("{shown} already has {existing}; nothing was created: expected a directory without these files")
    })
}

/// Imports the procedures from the database in the new configuration. Returns the endpoints, or reports why there are
/// none and returns `None`.
fn imported(
    files: &[NewFile],
    auth: AuthChoice,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<Option<String>> {
    let staging = PrivateDirectory::temporary("fjord-init").map_err(io::Error::other)?;
    // The directory contains the password. Without the guard, a signal would kill this process before it can remove the
    // directory.
    let _guard = ProcessGuard::start(Some(staging.path()))?;
    create(staging.path(), files).map_err(io::Error::other)?;
    let path = staging.path().join(IMPORTED_FILE);
    let arguments = ImportArguments {
        pattern: "*".to_owned(),
        database: None,
        auth: Some(auth),
        prefix: "/v1".to_owned(),
        output: Some(path.clone()),
        sample: false,
    };
    let sources = Sources {
        directory: Some(staging.path().to_owned()),
        role: Some(Role::Worker),
        ..sources.clone()
    };
    let _status = import::run(&arguments, &sources, output)?;
    Ok(fs::read_to_string(path).ok())
}

/// Creates all files and their directories. If a file cannot be created, removes the ones already created.
fn create(directory: &Path, files: &[NewFile]) -> Result<(), String> {
    let mut created = Vec::new();
    for file in files {
        let path = directory.join(file.name);
        let missing: Vec<_> = path.ancestors().skip(1).take_while(|it| !it.exists()).collect();
        created.extend(missing.iter().rev().map(|parent| parent.to_path_buf()));
        if let Err(error) = write_new(&path, file) {
            // An error here is ignored in favour of the error that caused the removal.
            created.iter().rev().for_each(|path| {
                fs::remove_file(path).or_else(|_| fs::remove_dir(path)).ok();
            });
            return Err(format!("{}: cannot be created: {error}", path.display()));
        }
        created.push(path);
    }
    Ok(())
}

fn write_new(path: &Path, file: &NewFile) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        let mode = if file.is_secret { 0o700 } else { 0o777 };
        DirBuilder::new().recursive(true).mode(mode).create(parent)?;
    }
    let mode = if file.is_secret { new_file::PRIVATE } else { 0o666 };
    new_file::create(path, &file.text, mode)
}
