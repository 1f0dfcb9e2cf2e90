//! `[procedures.databases.<name>.mssql.entra]`: logins with access tokens from Microsoft Entra ID.

use std::path::PathBuf;

use crate::config::settings::SettingsTable;

/// The service on an Azure host that issues tokens for the host's managed identities.
const METADATA_URL: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// The source of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// A file that another program updates.
    File(PathBuf),
    /// The Azure instance metadata service.
    ManagedIdentity {
        /// The URL of the service.
        url: String,
        /// The client id of a user-assigned identity. It may be omitted if the host has only one
        /// identity.
        client_id: Option<String>,
    },
    /// A program and its arguments. The program prints a token.
    Command(Vec<String>),
}

#[derive(Clone, Copy)]
enum SourceKind {
    File,
    ManagedIdentity,
    Command,
}

impl TokenSource {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Option<Self> {
        table.require("source", "file, managed-identity or command");
        let choices = [
            ("file", SourceKind::File),
            ("managed-identity", SourceKind::ManagedIdentity),
            ("command", SourceKind::Command),
        ];
        let kind = table.get_choice("source", &choices, "managed-identity")?;
        let file = table.get_secret_file("file");
        let client_id = table.get::<String>("client_id");
        let url: String = table.get_or("metadata_url", METADATA_URL.to_owned());
        let command: Vec<String> = table.get_or("command", Vec::new());
        match kind {
            SourceKind::File => {
                table.require("file", "the file with the token");
                file.map(Self::File)
            }
            SourceKind::Command => {
                let is_absolute = command.first().is_some_and(|program| program.starts_with('/'));
                if !is_absolute {
                    let expected = "expected the absolute path of a program and its arguments";
                    table.error("command", expected.to_owned());
                }
                Some(Self::Command(command))
            }
            SourceKind::ManagedIdentity => {
                // The service does not use TLS. It can be reached only from the host itself.
                if !url.starts_with("http://") || url.contains(['?', '#', ' ']) {
                    let expected = "expected an http:// URL without a query";
                    table.error("metadata_url", expected.to_owned());
                }
                Some(Self::ManagedIdentity { url, client_id })
            }
        }
    }
}
