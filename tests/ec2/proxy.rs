//! Requests to the AWS services go through the proxy that the environment names. Requests to the metadata service never
//! do.

use tokio::net::TcpListener;
use tokio::process::Command;

use super::publish::publish;
use super::run;
use crate::support::aws::AwsServices;
use crate::support::connect_proxy::{ConnectProxy, ProxyRequest};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ports;

/// A fleet whose headroom is published, and the services that receive the published values.
struct Publisher {
    fleet: Fleet,
    aws: AwsServices,
}

impl Publisher {
    async fn start() -> Self {
        let fleet = Fleet::start(FleetOptions::default()).await;
        let aws = AwsServices::start(&fleet.certs).await;
        Self { fleet, aws }
    }

    fn command(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = publish(&self.fleet, &self.aws, &self.fleet.certs);
        command.envs(variables.iter().copied());
        command
    }

    fn connect(&self, authorization: &str) -> ProxyRequest {
        let line = format!("CONNECT {} HTTP/1.1", self.aws.api_address());
        ProxyRequest { line, authorization: authorization.to_owned() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_are_reached_through_the_proxy_of_the_environment() {
    let publisher = Publisher::start().await;
    let proxy = ConnectProxy::start(None).await;
    let address = proxy.address.to_string();
    let url = format!("http://{address}");
    let with_password = format!("http://fjord:secret-key-p@{address}/");
    for (variables, authorization) in [
        // The URL of the metadata service does not use TLS.
        (&[("HTTPS_PROXY", &*url), ("HTTP_PROXY", &*url), ("ALL_PROXY", &*url)][..], ""),
        (&[("https_proxy", &*address), ("no_proxy", "amazonaws.example, 10.0.0.0/8")], ""),
        (&[("HTTPS_PROXY", &*with_password)], "Basic ZmpvcmQ6c2VjcmV0LWtleS1w"),
    ] {
        let before = proxy.requests().len();
        publisher.aws.answer_with([]);
        let (status, _, stderr) = run(publisher.command(variables)).await;
        assert_eq!((status, &*stderr), (Some(0), ""), "{variables:?}");
        assert_eq!(publisher.aws.accepted().len(), 1, "{variables:?}");
        let requests = proxy.requests().split_off(before);
        assert_eq!(requests, [publisher.connect(authorization)], "{variables:?}");
    }
    // The environment excludes the services from proxying.
    let before = proxy.requests().len();
    for direct in
        [("NO_PROXY", "localhost,127.0.0.1"), ("no_proxy", "127.0.0.0/8"), ("NO_PROXY", "*")]
    {
        publisher.aws.answer_with([]);
        let (status, _, stderr) = run(publisher.command(&[("HTTPS_PROXY", &url), direct])).await;
        assert_eq!((status, &*stderr), (Some(0), ""), "{direct:?}");
        assert_eq!(publisher.aws.accepted().len(), 1, "{direct:?}");
    }
    assert_eq!(proxy.requests().len(), before, "no request went through the proxy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_or_does_not_answer_is_named() {
    let publisher = Publisher::start().await;
    for (refusal, reason) in [
        ("403 Forbidden", "refuses to connect to the service: the proxy must permit CONNECT"),
        ("407 Proxy Authentication Required", "without valid credentials (status 407)"),
    ] {
        let proxy = ConnectProxy::start(Some(refusal)).await;
        let url = format!("http://fjord:secret-key-p@{}", proxy.address);
        let (status, _, stderr) = run(publisher.command(&[("HTTPS_PROXY", &url)])).await;
        assert_eq!(status, Some(1), "{stderr}");
        let named = format!("the proxy http://{} (HTTPS_PROXY) ", proxy.address);
        assert!(stderr.contains(&named) && stderr.contains(reason), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!proxy.requests().is_empty());
    }
    let address = format!("127.0.0.1:{}", ports::pick());
    let (status, _, stderr) = run(publisher.command(&[("https_proxy", &address)])).await;
    assert_eq!(status, Some(1), "{stderr}");
    let named = format!("the proxy http://{address} (https_proxy) cannot be used: ");
    assert!(stderr.contains(&named) && stderr.contains("Connection refused"), "{stderr}");
    // The kernel accepts the connections.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    let (status, _, stderr) = run(publisher.command(&[("HTTPS_PROXY", &url)])).await;
    assert_eq!(status, Some(1), "{stderr}");
    let named = format!("no connection within 3 s (HTTPS_PROXY names the proxy {url})");
    assert!(stderr.contains(&named), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(publisher.aws.attempts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_proxy_is_an_error_before_anything_is_sent() {
    let publisher = Publisher::start().await;
    for value in ["http://", "socks5://127.0.0.1:1080", "http://secret-key-p@host:port"] {
        let (status, stdout, stderr) = run(publisher.command(&[("HTTPS_PROXY", value)])).await;
        assert_eq!((status, &*stdout), (Some(2), ""), "{value}: {stderr}");
        assert!(
            stderr.starts_with(
                "error: HTTPS_PROXY is not the URL of a proxy: expected http://HOST:PORT"
            ),
            "{value}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert_eq!(publisher.aws.attempts(), 0);
}
