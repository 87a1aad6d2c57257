//! Integration tests of the service.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    missing_docs,
    reason = "tests may panic"
)]

mod admin;
mod attach_client;
mod attach_links;
mod attach_support;
mod backup_documented;
mod campaign_documents;
mod clock_doubt;
mod device_support;
mod front_abuse;
mod front_access;
mod front_packets;
mod front_protocol;
mod front_router;
mod front_support;
mod halves;
mod halves_support;
mod imports;
mod logs;
mod operators_told;
mod patches;
mod payload_rules;
mod reports;
mod service_groups;
mod service_program;
mod service_rekeyed;
mod service_restart;
mod service_support;
mod service_update;
mod service_wire;
mod store_crash;
mod store_durable;
mod store_lost;
mod store_rules;
mod store_sqlite;
mod views;
mod views_measured;
mod voice;
