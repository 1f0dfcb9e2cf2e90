//! `[gateway.rate_limits]`: whether gateways count requests jointly.

use std::time::Duration;

use crate::config::limits;
use crate::config::settings::SettingsTable;

/// How requests are counted towards rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitConfig {
    /// The gateways that share a caller's quota.
    pub scope: RateLimitScope,
    /// The interval at which a gateway reports its callers' consumption to the other gateways.
    pub interval: Duration,
}

/// The gateways that share a caller's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitScope {
    /// All gateways of the fleet share a quota. It is enforced approximately.
    Fleet,
    /// Each gateway has its own quota.
    Gateway,
}

impl RateLimitConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let choices = [("fleet", RateLimitScope::Fleet), ("gateway", RateLimitScope::Gateway)];
        Self {
            scope: table.get_choice("scope", &choices, "fleet").unwrap_or(RateLimitScope::Fleet),
            interval: table.get_limited("interval", limits::RATE_LIMIT_INTERVAL),
        }
    }
}
