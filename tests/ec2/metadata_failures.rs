//! Failures of the instance metadata service, and of the connection to `CloudWatch`.

use super::publish::publish;
use super::run;
use crate::support::aws::{AwsServices, MetadataMode, ROLE};
use crate::support::certs::Certs;
use crate::support::fleet::{Fleet, FleetOptions};

/// Runs `fjord ec2 publish`, which must fail with one line that contains `reason`, and must send nothing to
/// `CloudWatch`.
async fn fails(fleet: &Fleet, aws: &AwsServices, certs: &Certs, reason: &str) {
    let (status, stdout, stderr) = run(publish(fleet, aws, certs)).await;
    println!("{stderr}");
    assert_eq!((status, stdout.as_str()), (Some(1), ""), "{reason}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{reason}: {stderr}");
    assert!(stderr.contains(reason), "{reason}: {stderr}");
    assert!(aws.accepted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_the_metadata_is_one_line() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let aws = AwsServices::start(&fleet.certs).await;
    let certs = &fleet.certs;
    for (mode, reason) in [
        (
            MetadataMode::Version1,
            "does not issue a session token (status 404 Not Found): expected version 2",
        ),
        (MetadataMode::Hangs, "no answer within 2 s (expected an EC2 instance"),
    ] {
        aws.set_mode(mode);
        fails(&fleet, &aws, certs, reason).await;
    }
    aws.set_mode(MetadataMode::Version2);
    let role = "iam/security-credentials/";
    let credentials = format!("{role}{ROLE}");
    let failed =
        r#"{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role"}"#;
    let incomplete = r#"{"Code": "Success", "AccessKeyId": "ASIA0"}"#;
    for (path, value, normal, reason) in [
        (role, None, Some(ROLE), "the instance has no role: attach an instance profile"),
        (role, Some(""), Some(ROLE), "the instance has no role: attach an instance profile"),
        ("placement/region", None, Some("eu-north-1"), "has no placement/region"),
        (
            &*credentials,
            Some(failed),
            None,
            "AssumeRoleUnauthorizedAccess: EC2 cannot assume the role",
        ),
        (
            &*credentials,
            Some(incomplete),
            None,
            "the credentials of role fjord-gateway are incomplete",
        ),
        (
            &*credentials,
            Some("<html>"),
            None,
            "expected the credentials of role fjord-gateway as JSON",
        ),
    ] {
        aws.set(path, value);
        fails(&fleet, &aws, certs, reason).await;
        aws.set(path, normal);
    }
    // The services have a certificate from another authority.
    let home = tempfile::tempdir().expect("a temporary directory");
    let others = Certs::new(home.path());
    fails(&fleet, &aws, &others, "in 3 attempts: ").await;
    let (status, ..) = run(publish(&fleet, &aws, certs)).await;
    assert_eq!(status, Some(0), "the services work again");
    let mut elsewhere = publish(&fleet, &aws, certs);
    elsewhere.args(["--metadata-url", "http://127.0.0.1:1"]);
    let (status, _, stderr) = run(elsewhere).await;
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("expected an EC2 instance with the metadata service enabled"),
        "{stderr}"
    );
}
