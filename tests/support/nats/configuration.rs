//! Renders the configuration of a nats-server: the one for tests, or the shipped one.

use std::fs;
use std::path::Path;

use super::super::certs::Certs;
use super::{NatsOptions, NatsPorts};

/// The password of every user in the shipped configuration.
pub(crate) const SHIPPED_PASSWORD: &str = "of-this-test-alone";

/// Renders the configuration file of the server on the ports `own`. `all` are the cluster's ports.
pub(super) fn render(
    home: &Path,
    certs: &Certs,
    options: &NatsOptions,
    (own, all): (NatsPorts, &[NatsPorts]),
) -> String {
    if options.is_shipped {
        return shipped(home, certs, own, all);
    }
    let home = home.display();
    let tls = if options.has_tls {
        format!(
            "tls {{ cert_file: '{}', key_file: '{}', ca_file: '{}', verify: {}, timeout: 5, handshake_first: {} }}\n",
            certs.server.certificate.display(),
            certs.server.key.display(),
            certs.ca.display(),
            options.wants_client_certificates,
            options.is_tls_first,
        )
    } else {
        String::new()
    };
    let cluster = if all.len() > 1 {
        let routes: Vec<_> =
            all.iter().map(|p| format!("'nats-route://127.0.0.1:{}'", p.cluster)).collect();
        let routes = routes.join(", ");
        format!(
            "cluster {{ name: fjord, listen: '127.0.0.1:{}', routes: [{routes}]\n{}}}\n",
            own.cluster,
            tls.replace(", handshake_first: false", ""),
        )
    } else {
        String::new()
    };
    // The server accepts no lame duck duration below 30 s. With few clients, it ends much sooner.
    format!(
        "server_name: 'nats-{}'\nlisten: '127.0.0.1:{}'\nhttp: '127.0.0.1:{}'\n\
         ports_file_dir: '{home}'\nmax_payload: {}\nping_interval: '{}'\nping_max: 2\n\
         lame_duck_duration: '30s'\nlame_duck_grace_period: '5s'\n{tls}{cluster}{}\n",
        own.client,
        own.client,
        own.monitoring,
        options.payload_bytes_max,
        options.ping_interval,
        options.extra,
    )
}

/// Returns the shipped configuration, after writing the files that it includes.
fn shipped(home: &Path, certs: &Certs, own: NatsPorts, all: &[NatsPorts]) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/nats");
    // All servers in the cluster share one authority for their routes, which the first server
    // creates.
    let first = all.first().map_or(own.client, |ports| ports.client);
    let peers = home.with_file_name(format!("peers-{first}"));
    if !peers.is_dir() {
        Certs::new(&peers);
    }
    let seeds: Vec<_> =
        all.iter().map(|ports| format!("\"tls://127.0.0.1:{}\"", ports.cluster)).collect();
    let node = format!(
        "NAME: \"nats-{}\"\nCLIENTS: \"127.0.0.1:{}\"\nPEERS: \"127.0.0.1:{}\"\n\
         MONITORING: \"127.0.0.1:{}\"\nSEEDS: [{}]\nCERTIFICATE: \"{}\"\nKEY: \"{}\"\nCA: \"{}\"\n\
         PEER_CERTIFICATE: \"{}\"\nPEER_KEY: \"{}\"\nPEER_CA: \"{}\"\n\
         ports_file_dir: \"{}\"\n",
        own.client,
        own.client,
        own.cluster,
        own.monitoring,
        seeds.join(", "),
        certs.server.certificate.display(),
        certs.server.key.display(),
        certs.ca.display(),
        peers.join("server.pem").display(),
        peers.join("server.key").display(),
        peers.join("ca.pem").display(),
        home.display(),
    );
    let users = [
        "GATEWAY",
        "WORKER_PAYMENTS",
        "WORKER_REPORTS",
        "WORKER",
        "OPERATOR",
        "CONTROLLER",
        "CALLER",
        "SYSTEM",
    ];
    let secrets = users.map(|user| format!("{user}_PASSWORD: \"{SHIPPED_PASSWORD}\"\n")).concat();
    fs::write(home.join("node.conf"), node).expect("the file can be written");
    fs::write(home.join("secrets.conf"), secrets).expect("the file can be written");
    fs::copy(shipped.join("accounts.conf"), home.join("accounts.conf"))
        .expect("the file can be copied");
    fs::read_to_string(shipped.join("nats-server.conf")).expect("the shipped file can be read")
}
