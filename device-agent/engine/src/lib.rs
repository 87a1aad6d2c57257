//! The device engine: everything that a device does for an update on its own, as one value with two verbs.
//!
//! ```
//! use whimbrel_engine::boot::EnvironmentBoot;
//! use whimbrel_engine::storage::{Storage, StorageOptions};
//! use whimbrel_engine::{Device, Input, MemoryDisk, Output, Verdict, trust_anchor};
//! # use whimbrel_protocol::device::SessionConfig;
//! # use whimbrel_protocol::testing::Fixture;
//! # use whimbrel_protocol::time::{Instant, UnixTime};
//! # let fixture = Fixture::new();
//! # let (root, key) = (fixture.root_bytes(), fixture.device_key.clone());
//! # let config = SessionConfig::new(fixture.device.clone(), fixture.vendor, fixture.class, key, [7; 32]);
//! # let now = Instant::ZERO;
//! let mut storage = Storage::start(MemoryDisk::new(), EnvironmentBoot::new(), StorageOptions::default())?;
//! storage.boot()?; // the boot loader's step, on a device whose boot loader does not take it
//! let anchor = |pinned: &[u8]| trust_anchor(pinned, &root); // `root.cbor`, as `whimbrel init` made it
//! let mut device = Device::start(storage, config, anchor, now, UnixTime::default())?;
//!
//! let (mut subscribed, mut published) = (0, 0);
//! device.handle_input(now, Input::Connected);
//! while let Some(output) = device.poll_output() {
//!     match output {
//!         Output::Subscribe(channels) => subscribed += channels.len(),
//!         Output::Publish(_message) => published += 1,
//!         Output::Ask(op, _gate) => {
//!             device.handle_input(now, Input::Verdict { op, verdict: Verdict::Good });
//!         }
//!         Output::Disconnect | Output::Reboot(_) | Output::Event(_) => {}
//!     }
//! }
//! assert!(subscribed > 0 && published > 0, "the device introduces itself to its service");
//! assert!(device.poll_timeout().is_some(), "and waits for the answer, but not for ever");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # What a host does
//!
//! A host waits for the next thing that happens: a message, a change of the connection, or the time of
//! [`Device::poll_timeout`]. It feeds that with [`Device::handle_input`], and then does what [`Device::poll_output`]
//! gives, in that order, until there is nothing left.
//!
//! | output | what the host does | what it feeds afterwards |
//! |---|---|---|
//! | [`Output::Subscribe`] | subscribes to the channels' topics | |
//! | [`Output::Publish`] | publishes at the QoS that the message says, not retained | |
//! | [`Output::Disconnect`] | closes the connection, and connects again after its usual back-off | [`Input::Disconnected`], later [`Input::Connected`] |
//! | [`Output::Ask`] | decides, or lets the owner of the device decide; a host without an opinion says [`Verdict::Good`]. At [`Gate::Health`] it runs the health checks of the new image | [`Input::Verdict`] |
//! | [`Output::Reboot`] | restarts the machine, or takes the boot loader's step with [`Device::restart`] | [`Input::RebootFailed`] if it does not come about |
//! | [`Output::Event`] | writes its log, counts, shows progress | |
//!
//! What else is the host's: the MQTT connection, the clock, randomness for the session's seed, and the two traits under
//! the engine. [`Disk`](whimbrel_protocol::disk::Disk) is the medium, [`BootControl`](boot::BootControl) the boot
//! loader.
//!
//! # A medium that takes long
//!
//! [`Device`] does the medium's work while its outputs are polled. A host that must answer pings while an image is
//! written takes the device apart: it drives a [`Controller`] in its loop, and gives each [`Job`] to the thread that owns
//! the [`Storage`](storage::Storage). The agent for Linux does so. Both ways start with an [`Inventory`] and run the same
//! code; [`Device`] is no more than the two halves and the loop between them.
//!
//! # Features
//!
//! `lzma` decodes compressed payloads, `patch` applies patches; both are on by default. A device without one of them
//! does not open such a payload, and has none of its code. The crate needs `alloc` and no `std`.

#![no_std]
// A decoder that is left out leaves behind what only it would use; the compiler drops that.
#![cfg_attr(not(all(feature = "lzma", feature = "patch")), allow(dead_code))]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod anchor;
pub mod boot;
mod controller;
mod device;
mod image;
mod inventory;
mod memory;
pub mod slot;
pub mod storage;
mod two_copies;

pub use anchor::{OfferedRoot, trust_anchor};
pub use controller::{Controller, Effect, Gate, Input, Output, Pending, Verdict};
pub use device::Device;
pub use inventory::{Accepts, Finding, Inventory, StartError};
pub use memory::MemoryDisk;
pub use storage::{Done, Job};
