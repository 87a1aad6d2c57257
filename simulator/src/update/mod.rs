//! A whole update of a fleet: a release, a service, devices that run the protocol, and what became of them.
//!
//! `rollout` makes keys, releases and a service, to which `operator` brings them; `device` is the device engine on a
//! disk in memory, as a [`Machine`](crate::swarm::Machine); `start` says what each ran before;
//! `classify` tells data from control; `guest` is what a run is called at a broker of others, and clears what that keeps;
//! `conduct` runs the fleet and reads every image back.

mod classify;
mod conduct;
mod device;
mod guest;
mod operator;
mod rollout;
mod seen;
mod start;

pub use classify::classify;
pub use conduct::{Conduct, conduct};
pub use device::{FleetFacts, UpdatingDevice, device_id, device_key};
pub use guest::{Forgotten, Guest, Left, until_interrupted};
pub use rollout::{CLASS, Rollout, RolloutOptions, ServiceReady, VENDOR};
pub use seen::PayloadFacts;
pub use start::{Start, StartOptions, Starting};
