//! The text that `fjord dev` prints when everything is ready. It contains the addresses and
//! commands to try.

use std::path::{Path, PathBuf};

use crate::config::gateway::DocumentationAccess;

use super::plan::{DevPlan, RunFiles, TokenFiles};
use super::samples::{CurlOptions, curl_commands};
use crate::commands::shell::{quoted, quoted_path};

/// The file that sets the environment variables for other commands.
const ENVIRONMENT: &str = "env";

/// Returns the text.
pub(super) fn text(plan: &DevPlan, files: &RunFiles<'_>, environment: &Path) -> String {
    let ports = &plan.ports;
    let url = format!("https://localhost:{}", ports.https.port);
    let certificates = files.certificates;
    let client = &certificates.client;
    let curl = CurlOptions {
        url: &url,
        ca: &certificates.ca,
        token: plan.tokens.first().map(|token| (token.issuer.as_str(), token.header.as_path())),
        client: plan
            .asks_for_certificates
            .then_some((client.certificate.as_path(), client.key.as_path())),
    };
    let admin = "/ /metrics /healthz /readyz /status";
    let mut lines = vec![
        "For development only: everything listens on 127.0.0.1, with certificates and keys of this run.".to_owned(),
        String::new(),
        format!("  API        {url}{}", documentation(plan, &url)),
        format!("  gateway    http://127.0.0.1:{}    {admin}", ports.gateway_admin.port),
        format!("  worker     http://127.0.0.1:{}    {admin}", ports.worker_admin.port),
        format!("  authority  {}    (removed at the end)", certificates.ca.display()),
    ];
    for TokenFiles { issuer, token, .. } in &plan.tokens {
        let file = token.display();
        lines.push(format!(
            "  token      {file}    of auth.jwt.{issuer}, with every scope of the catalogue"
        ));
    }
    for issuer in &plan.fetching_issuers {
        lines.push(format!(
            "  token      of auth.jwt.{issuer}: from the issuer, because its keys are fetched"
        ));
    }
    let mut commands = curl_commands(&plan.catalogue, &curl);
    if plan.catalogue.endpoints().iter().any(|endpoint| !endpoint.examples.is_empty()) {
        commands.push(test_command(plan, &curl));
    }
    if !commands.is_empty() {
        lines.extend(["", "Try:", ""].map(str::to_owned));
        lines.extend(commands.iter().map(|command| format!("  {command}")));
    }
    let environment = quoted_path(environment);
    lines.push(String::new());
    lines.push(format!("In another terminal, run \". {environment}\" once, then fjord status, fjord call and the other commands."));
    lines.push(String::new());
    lines.join("\n")
}

/// Returns the line about the documentation, with its URL and the endpoints that it covers.
fn documentation(plan: &DevPlan, url: &str) -> String {
    match plan.documentation {
        DocumentationAccess::Off => String::new(),
        DocumentationAccess::Public => format!("    documentation: {url}/docs"),
        DocumentationAccess::Authenticated => {
            format!("    documentation: {url}/docs, for the endpoints that a caller may call")
        }
    }
}

/// Returns the command that runs the examples in the catalogue against the gateway.
fn test_command(plan: &DevPlan, options: &CurlOptions<'_>) -> String {
    let (directory, ca) = (quoted_path(plan.worker.directory()), quoted_path(options.ca));
    let token = plan.tokens.first().map(|one| format!(" --token-file {}", quoted_path(&one.token)));
    let client = options.client.map(|(certificate, key)| {
        format!(" --certificate {} --key {}", quoted_path(certificate), quoted_path(key))
    });
    let (token, client) = (token.unwrap_or_default(), client.unwrap_or_default());
    format!("fjord test --config {directory} --url {} --ca {ca}{token}{client}", options.url)
}

/// Writes a shell script that sets the environment variables that other commands need to connect to
/// the processes of this run. Returns the path of the script.
///
/// # Errors
/// Returns the operating system's error.
pub(super) fn write_environment(plan: &DevPlan, files: &RunFiles<'_>) -> std::io::Result<PathBuf> {
    let certificates = files.certificates;
    let directory = std::path::absolute(plan.worker.directory())?;
    let servers = format!("[\"tls://127.0.0.1:{}\"]", plan.ports.nats.port);
    let nats = "FJORD_MESSAGING__NATS";
    let path = |path: &Path| path.display().to_string();
    let variables = [
        ("FJORD_CONFIG".to_owned(), path(&directory)),
        (format!("{nats}__SERVERS"), servers),
        (format!("{nats}__TLS__CA"), path(&certificates.ca)),
        (format!("{nats}__TLS__CERTIFICATE"), path(&certificates.client.certificate)),
        (format!("{nats}__TLS__KEY"), path(&certificates.client.key)),
    ];
    let lines = variables.map(|(name, value)| format!("export {name}={}\n", quoted(&value)));
    let file = files.directory.join(ENVIRONMENT);
    std::fs::write(&file, lines.concat())?;
    Ok(file)
}
