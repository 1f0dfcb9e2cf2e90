//! The configuration of a run: the configuration in the directory, with settings that replace addresses, certificates
//! and keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ports::{ChosenPort, PortChooser};
use super::token::{ALGORITHM, TokenSigner};
use crate::catalogue::{self, Catalogue};
use crate::cli::Role;
use crate::config::auth::KeySource;
use crate::config::gateway::DocumentationAccess;
use crate::config::messaging::TransportConfig;
use crate::config::tls::ClientAuth;
use crate::config::{Config, ConfigError, LoadedConfig, SettingOrigin, Sources};
use crate::new_file;
use crate::start_check::{self, PrepareFunction};
use crate::tls::ThrowawayCertificates;

/// The port of the NATS server if the configuration specifies none.
const NATS_PORT: u16 = 4222;
/// The issuer of tokens if the configuration contains none.
const ISSUER: &str = "fjord-dev";
/// The settings of an issuer that conflict with a key file.
const KEY_FETCHING_SETTINGS: [&str; 6] = [
    "keys_url",
    "keys_url_ca",
    "keys_refresh",
    "keys_cooldown",
    "keys_age_max",
    "insecure_plain_text",
];

/// The ports of all listeners. They do not change while `fjord dev` runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct DevPorts {
    pub(super) nats: ChosenPort,
    pub(super) https: ChosenPort,
    pub(super) gateway_admin: ChosenPort,
    pub(super) worker_admin: ChosenPort,
}

/// The parts of a run that come from outside the configuration.
pub(super) struct RunFiles<'a> {
    /// The run directory.
    pub(super) directory: &'a Path,
    /// The certificates of all listeners.
    pub(super) certificates: &'a ThrowawayCertificates,
    /// The key that signs tokens.
    pub(super) signer: &'a TokenSigner,
    /// Finds the errors that would prevent a role from starting.
    pub(super) check_role: PrepareFunction,
}

/// The files that contain the token of an issuer.
#[derive(Clone, Debug)]
pub(super) struct TokenFiles {
    /// The issuer.
    pub(super) issuer: String,
    /// The file with the token.
    pub(super) token: PathBuf,
    /// The file that contains the `Authorization` header. With this file, the token does not have to be passed as a
    /// command-line argument.
    pub(super) header: PathBuf,
}

/// The checked configuration of both roles.
#[derive(Debug)]
pub(super) struct DevPlan {
    /// The sources of the gateway's configuration.
    pub(super) gateway: Sources,
    /// The sources of the worker's configuration.
    pub(super) worker: Sources,
    /// The worker's configuration.
    pub(super) worker_config: Config,
    /// The endpoints with their examples.
    pub(super) catalogue: Arc<Catalogue>,
    /// The clients that can read the documentation.
    pub(super) documentation: DocumentationAccess,
    /// The ports.
    pub(super) ports: DevPorts,
    /// One token for each issuer whose keys are replaced.
    pub(super) tokens: Vec<TokenFiles>,
    /// The issuers whose keys are not replaced, because the gateway fetches them.
    pub(super) fetching_issuers: Vec<String>,
    /// Whether the gateway asks for client certificates.
    pub(super) asks_for_certificates: bool,
}

impl DevPlan {
    /// Reads and checks the configuration as `fjord check` does, and writes the tokens. Chooses ports unless they are
    /// given.
    ///
    /// # Errors
    /// Returns all errors that would prevent the roles from starting, one line each.
    pub(super) fn load(
        base: &Sources,
        files: &RunFiles<'_>,
        ports: Option<DevPorts>,
    ) -> Result<Self, Vec<String>> {
        let mut settings = common_settings(files);
        // The files named in the configuration are not read yet, because some of them are replaced below.
        let first = load_roles(base, &settings, true);
        let (gateway, worker) = match first {
            Ok(loaded) => loaded,
            Err(errors) => return Err(load_roles(base, &settings, false).err().unwrap_or(errors)),
        };
        let ports = match ports {
            Some(ports) => ports,
            None => DevPorts::choose(base, &gateway.config, &worker.config)
                .map_err(|error| vec![format!("no port of 127.0.0.1 is free: {error}")])?,
        };
        settings.push(format!("messaging.nats.servers=[\"tls://127.0.0.1:{}\"]", ports.nats.port));
        let issuers = issuer_settings(&gateway, files);
        let (issuer_settings, fetching_issuers) = issuers.map_err(|error| vec![error])?;
        let asks_for_certificates = asks_for_certificates(&gateway.config);
        let mut gateway_settings = settings.clone();
        gateway_settings.extend(issuer_settings);
        gateway_settings.push(format!("gateway.listen=127.0.0.1:{}", ports.https.port));
        gateway_settings.push(format!("admin.listen=127.0.0.1:{}", ports.gateway_admin.port));
        if asks_for_certificates {
            let ca = files.certificates.ca.display();
            gateway_settings.push(format!("gateway.tls.client_ca={ca}"));
        }
        settings.push(format!("admin.listen=127.0.0.1:{}", ports.worker_admin.port));
        let gateway = sources(base, Role::Gateway, &gateway_settings, false);
        let worker = sources(base, Role::Worker, &settings, false);
        let mut errors = Vec::new();
        let loaded = [(&gateway, Role::Gateway), (&worker, Role::Worker)].map(|(sources, role)| {
            let checked = start_check::load(sources, |loaded| (files.check_role)(role, loaded));
            checked.map_err(|found| errors.extend(lines(&found))).ok()
        });
        errors.sort();
        errors.dedup();
        let [Some((gateway_config, catalogue)), Some((worker_config, _))] = loaded else {
            return Err(errors);
        };
        let documentation = gateway_config.config.gateway.documentation;
        let catalogue = with_examples(catalogue, &gateway_config.config);
        let tokens = write_tokens(&gateway_config.config, &fetching_issuers, &catalogue, files)
            .map_err(|error| vec![error])?;
        Ok(Self {
            gateway,
            worker,
            worker_config: worker_config.config,
            catalogue,
            documentation,
            ports,
            tokens,
            fetching_issuers,
            asks_for_certificates,
        })
    }
}

impl DevPorts {
    fn choose(base: &Sources, gateway: &Config, worker: &Config) -> std::io::Result<Self> {
        let mut ports = PortChooser::default();
        Ok(Self {
            https: ports.choose(gateway.gateway.listen.port())?,
            nats: ports.choose(nats_port(base))?,
            gateway_admin: ports.choose(gateway.admin.listen.port())?,
            worker_admin: ports.choose(worker.admin.listen.port())?,
        })
    }

    /// Returns a remark for each port that differs from the configuration.
    pub(super) fn remarks(&self) -> Vec<String> {
        let purposes = [
            (self.https, "the API"),
            (self.nats, "nats-server"),
            (self.gateway_admin, "the gateway's admin listener"),
            (self.worker_admin, "the worker's admin listener"),
        ];
        purposes.into_iter().filter_map(|(port, purpose)| port.remark(purpose)).collect()
    }
}

/// Returns the catalogue with its examples. A gateway that serves no documentation discards them.
fn with_examples(catalogue: Arc<Catalogue>, gateway: &Config) -> Arc<Catalogue> {
    if gateway.gateway.documentation != DocumentationAccess::Off {
        return catalogue;
    }
    let loaded = catalogue::load(&gateway.catalogue.directory, &gateway.catalogue.defaults);
    // The files were valid a moment ago. A later change is detected and reported by the watcher.
    loaded.map_or(catalogue, Arc::new)
}

fn lines<E: ToString>(errors: &[E]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Returns the sources of a role's configuration, with the settings of the run as the layer with the highest
/// precedence.
fn sources(base: &Sources, role: Role, settings: &[String], only_nats_files: bool) -> Sources {
    let settings = base.sets.iter().chain(settings).cloned().collect();
    Sources { role: Some(role), sets: settings, only_nats_files, ..base.clone() }
}

fn load_roles(
    base: &Sources,
    settings: &[String],
    only_nats_files: bool,
) -> Result<(LoadedConfig, LoadedConfig), Vec<String>> {
    let load =
        |role, settings: &[String]| Config::load(&sources(base, role, settings, only_nats_files));
    let mut settings = settings.to_vec();
    // Any server will do, because the configuration is not required to name one.
    settings.push("messaging.nats.servers=[\"tls://127.0.0.1\"]".to_owned());
    match (load(Role::Gateway, &settings), load(Role::Worker, &settings)) {
        (Ok(gateway), Ok(worker)) => Ok((gateway, worker)),
        (gateway, worker) => {
            let found: Vec<Vec<ConfigError>> =
                [gateway.err(), worker.err()].into_iter().flatten().collect();
            let mut errors = lines(&found.concat());
            errors.sort();
            errors.dedup();
            Err(errors)
        }
    }
}

/// Returns the settings that both roles need regardless of the configuration.
fn common_settings(files: &RunFiles<'_>) -> Vec<String> {
    let certificates = files.certificates;
    let path = |key: &str, path: &Path| format!("{key}={}", path.display());
    let mut settings = vec![
        path("messaging.nats.tls.ca", &certificates.ca),
        path("messaging.nats.tls.certificate", &certificates.client.certificate),
        path("messaging.nats.tls.key", &certificates.client.key),
        path("gateway.tls.certificate", &certificates.server.certificate),
        path("gateway.tls.key", &certificates.server.key),
    ];
    let others = [
        "messaging.nats.insecure_plain_text=false",
        "messaging.nats.tls_first=false",
        "messaging.nats.discover=false",
        "messaging.nats.monitoring=[]",
        "gateway.tls.certificates=[]",
        "gateway.insecure_plain_text=false",
        "gateway.hosts=[]",
        "gateway.proxy_protocol=false",
        "gateway.trusted_proxies=[]",
        "lifecycle.drain_delay=0s",
        // The worker is restarted whenever the configuration changes, so it must stop quickly.
        "worker.unsubscribe_quiet_time=50ms",
        "log.format=json",
    ];
    settings.extend(others.map(str::to_owned));
    settings
}

/// Returns the port of the first NATS server in the configuration that both roles share.
fn nats_port(base: &Sources) -> u16 {
    let shared = Config::load(&Sources { role: None, only_nats_files: true, ..base.clone() });
    let port = shared.ok().and_then(|loaded| {
        let TransportConfig::Nats(nats) = loaded.config.messaging.transport;
        nats.servers.first()?.rsplit_once(':')?.1.parse().ok()
    });
    port.unwrap_or(NATS_PORT)
}

fn asks_for_certificates(gateway: &Config) -> bool {
    let tls = gateway.gateway.tls.as_ref();
    tls.is_some_and(|tls| tls.client_auth != ClientAuth::Off)
}

/// Returns the settings that replace the keys of issuers, and the issuers whose keys are kept because they are fetched.
fn issuer_settings(
    gateway: &LoadedConfig,
    files: &RunFiles<'_>,
) -> Result<(Vec<String>, Vec<String>), String> {
    let jwks = files.directory.join("jwks.json");
    write_secret(&jwks, &files.signer.jwks())?;
    let (mut settings, mut others) = (Vec::new(), Vec::new());
    let mut replace_keys = |name: &str| {
        settings.push(format!("auth.jwt.{name}.keys={}", jwks.display()));
        settings.push(format!("auth.jwt.{name}.algorithms=[\"{ALGORITHM}\"]"));
    };
    let issuers = &gateway.config.auth.issuers;
    for (name, issuer) in issuers {
        let is_fetched = matches!(issuer.keys, KeySource::Fetched(_));
        let fetches_keys = KEY_FETCHING_SETTINGS.iter().any(|key| {
            let key = format!("auth.jwt.{name}.{key}");
            let mut entries = gateway.entries.iter();
            entries.any(|entry| entry.key == key && entry.origin != SettingOrigin::Default)
        });
        if is_fetched && fetches_keys {
            others.push(name.clone());
        } else {
            replace_keys(name);
        }
    }
    // An issuer is added even if no endpoint requires a token yet. The gateway can then reload a catalogue in which an
    // endpoint requires one.
    if issuers.is_empty() {
        replace_keys(ISSUER);
        settings.push(format!("auth.jwt.{ISSUER}.issuer=https://{ISSUER}.invalid/"));
        settings.push(format!("auth.jwt.{ISSUER}.audiences=[\"fjord\"]"));
    }
    Ok((settings, others))
}

/// Writes a token for each issuer whose keys are replaced. The token's file is named `token`, or `token-NAME` if there
/// are several issuers. A second file contains the header.
fn write_tokens(
    gateway: &Config,
    fetching_issuers: &[String],
    catalogue: &Catalogue,
    files: &RunFiles<'_>,
) -> Result<Vec<TokenFiles>, String> {
    let issuers = gateway.auth.issuers.iter();
    let issuers: Vec<_> = issuers.filter(|(name, _)| !fetching_issuers.contains(name)).collect();
    let mut tokens = Vec::new();
    for (name, issuer) in &issuers {
        let file = if issuers.len() == 1 { "token".to_owned() } else { format!("token-{name}") };
        let header = files.directory.join(format!("{file}.header"));
        let path = files.directory.join(file);
        let token = files.signer.token(issuer, catalogue);
        write_secret(&path, &token)?;
        write_secret(&header, &format!("Authorization: Bearer {token}\n"))?;
        tokens.push(TokenFiles { issuer: (*name).clone(), token: path, header });
    }
    Ok(tokens)
}

/// Writes a file that is readable only by its owner.
fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    new_file::replace_private(path, text)
        .map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}
