//! A world for tests: keys and releases, a link with faults, a medium, two sessions joined by them.
//!
//! Everything is seeded and runs in virtual time, so that a failure is replayed by its seed.

mod disk;
mod disk_image;
mod fixture;
mod link;
mod medium;
mod pair;
mod recording;
mod shelf;

pub use disk::{DiskFault, DiskStep, SimDisk, Survival};
pub use fixture::{Fixture, FixturePatch, OrderOptions, Part, Release};
pub use link::{Direction, Faults, Packet, SeededLink};
pub use medium::{RamMedium, Stored};
pub use pair::{Pair, PairOptions, Tap, Verdict};
pub use recording::{Recorded, Recorder, Recording};
pub use shelf::Shelf;
