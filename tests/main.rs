//! The promises of fjord, a file for each, on real servers and real processes.

#[cfg(test)]
mod allocates_no_more_than_it_did;
#[cfg(test)]
mod answers_over_the_whole_road;
#[cfg(test)]
mod answers_pages_of_other_origins_as_told;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod compresses_what_gets_smaller;
#[cfg(test)]
mod config_errors;
#[cfg(test)]
mod distant_workers;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod dry_run;
#[cfg(test)]
mod foreign_workers;
#[cfg(test)]
mod health_check;
#[cfg(test)]
mod hears_every_reply;
#[cfg(test)]
mod hung_worker;
#[cfg(test)]
mod import_command;
#[cfg(test)]
mod keeps_each_role_to_its_subjects;
#[cfg(test)]
mod large_answers;
#[cfg(test)]
mod lets_no_more_wait_than_may;
#[cfg(test)]
mod lets_nobody_in_without_proof;
#[cfg(test)]
mod logs_tell_whose_and_never_what;
#[cfg(test)]
mod loses_nothing_whatever_dies;
#[cfg(test)]
mod mixed_call_durations;
#[cfg(test)]
mod nats_link;
#[cfg(test)]
mod online_check;
#[cfg(test)]
mod openapi_visibility;
#[cfg(test)]
mod overload_bench;
#[cfg(test)]
mod proves_itself_to_nats;
#[cfg(test)]
mod refuses_bad_requests_in_full;
#[cfg(test)]
mod reloads_without_dropping;
#[cfg(test)]
mod runs_procedures_on_sql_server;
#[cfg(test)]
mod runs_under_systemd;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod session_timeouts;
#[cfg(test)]
mod shows_what_it_does;
#[cfg(test)]
mod simulates_sessions;
#[cfg(test)]
mod starts_many_queues_on_one_database;
#[cfg(test)]
mod starts_real_servers;
#[cfg(test)]
#[expect(dead_code, reason = "what the tests of the two roles stand on comes before them")]
mod support;
#[cfg(test)]
mod survives_a_database_outage;
#[cfg(test)]
mod survives_hostile_clients;
#[cfg(test)]
mod takes_whatever_comes;
#[cfg(test)]
mod tells_its_fleet_how_it_is;
#[cfg(test)]
mod traces_each_request;
#[cfg(test)]
mod withstands_foreign_tools;
