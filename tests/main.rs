//! Tests fjord's promises against real servers and real processes, with one file per subject.

#[cfg(test)]
mod allocations;
#[cfg(test)]
mod answer_reuse;
#[cfg(test)]
mod arbitrary_input;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod authentication;
#[cfg(test)]
mod caller_limits;
#[cfg(test)]
mod catalogue_memory;
#[cfg(test)]
mod compression;
#[cfg(test)]
mod conditional_requests;
#[cfg(test)]
mod config_errors;
#[cfg(test)]
mod cors;
#[cfg(test)]
mod database_outage;
#[cfg(test)]
mod dev_command;
#[cfg(test)]
mod diagnosis;
#[cfg(test)]
mod distant_workers;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod documentation_page;
#[cfg(test)]
mod dry_runs;
#[cfg(test)]
mod ec2;
#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod fault_tolerance;
#[cfg(test)]
mod fleet_page;
#[cfg(test)]
mod fleet_rate_limits;
#[cfg(test)]
mod fleet_status;
#[cfg(test)]
mod foreign_workers;
#[cfg(test)]
mod gateway_restart;
#[cfg(test)]
mod growth_simulation;
#[cfg(test)]
mod health_check;
#[cfg(test)]
mod hostile_clients;
#[cfg(test)]
mod hung_worker;
#[cfg(test)]
mod import_command;
#[cfg(test)]
mod init_command;
#[cfg(test)]
mod large_answers;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod many_queues;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod mixed_call_durations;
#[cfg(test)]
mod nats_authentication;
#[cfg(test)]
mod nats_link;
#[cfg(test)]
mod nats_permissions;
#[cfg(test)]
mod northwind;
#[cfg(test)]
mod online_check;
#[cfg(test)]
mod openapi_visibility;
#[cfg(test)]
mod overload_bench;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod reply_delivery;
#[cfg(test)]
mod representations;
#[cfg(test)]
mod request_validation;
#[cfg(test)]
mod response_headers;
#[cfg(test)]
mod returns;
#[cfg(test)]
mod runtime_threads;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod session_simulation;
#[cfg(test)]
mod session_timeouts;
#[cfg(test)]
mod sql_server;
#[cfg(test)]
mod start_check;
#[cfg(test)]
mod steering;
#[cfg(test)]
#[expect(dead_code, reason = "the benchmarks use the rest of it")]
mod support;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod test_command;
#[cfg(test)]
mod test_servers;
#[cfg(test)]
mod third_party_tools;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod waiting_limit;
#[cfg(test)]
mod weighted_queues;
