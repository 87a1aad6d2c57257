//! What tests need: keys and releases, a link with faults, a medium, and a device and a service that are joined by
//! them.
//!
//! Everything is seeded and runs in virtual time, so that a failure can be replayed with its seed.

mod disk;
mod disk_image;
mod fixture;
mod link;
mod medium;
mod pair;
mod recording;

pub use disk::{DiskFault, DiskStep, SimDisk, Survival};
pub use fixture::{Fixture, FixturePatch, OrderOptions, Part, Release};
pub use link::{Direction, Faults, Packet, SeededLink};
pub use medium::{RamMedium, Stored};
pub use pair::{Pair, PairOptions, ServiceData, Tap, Verdict};
pub use recording::{Recorded, Recorder, Recording};
