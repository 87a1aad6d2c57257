//! What the agent's parts do together.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

extern crate alloc;

mod broker;
mod config;
mod control;
mod files_made;
mod hooks;
mod hooks_documented;
mod link;
mod local_trust;
mod logs;
mod power_cut;
mod power_cut_boot;
mod power_cut_device;
mod power_cut_environment;
mod power_cut_faults;
mod power_cut_life;
mod power_cut_patch;
mod power_cut_points;
mod power_cut_service;
mod power_cut_trials;
mod provision;
mod rig;
mod standalone;
mod status;
mod storage_amplification;
mod storage_boot;
mod storage_cache;
mod storage_download;
mod storage_files;
mod storage_formats;
mod storage_install;
mod storage_lying;
mod storage_patch;
mod storage_stream;
mod storage_support;
mod update;
mod update_hooks;
