//! From what was written about other origins to an endpoint's rules.

use std::sync::Arc;

use crate::catalogue::cors::{Cors, CorsRules, MAX_AGE_DEFAULT};
use crate::catalogue::endpoint::Auth;
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::parameter::Parameter;
use crate::catalogue::written::{Object, WrittenCors};
use crate::config::CatalogueConfig;
use crate::config::duration::{DURATION_EXPECTED, parse_duration};

/// The rules of an endpoint; `None` when no other origin may call it.
pub(super) fn rules(
    written: Option<Object<WrittenCors>>,
    config: &CatalogueConfig,
    (parameters, auth, dry_run): (&[Parameter], Option<&Auth>, bool),
    errors: &mut EndpointErrors<'_>,
) -> Option<Arc<CorsRules>> {
    let cors = match written {
        Some(written) => read(written.0, errors),
        None => config.cors_default.clone(),
    };
    // Without `auth` there is no endpoint: that error is known.
    CorsRules::new(&cors, (parameters, dry_run), auth?).map(Arc::new)
}

fn read(written: WrittenCors, errors: &mut EndpointErrors<'_>) -> Cors {
    if written.origins.is_none() {
        errors.add_missing("cors.origins", "expected the origins; an empty list switches it off");
    }
    let max_age = written.max_age.as_deref().map(parse_duration);
    if max_age == Some(None) {
        errors.add("cors.max_age", format!("expected {DURATION_EXPECTED}"));
    }
    let cors = Cors {
        origins: written.origins.unwrap_or_default(),
        headers: written.headers,
        exposed_headers: written.exposed_headers,
        credentials: written.credentials,
        max_age: max_age.flatten().unwrap_or(MAX_AGE_DEFAULT),
    };
    for (key, expected) in cors.errors() {
        errors.add(format!("cors.{key}"), expected);
    }
    cors
}
