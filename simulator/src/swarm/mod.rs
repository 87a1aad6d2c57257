//! Many devices in one process, each a machine over a shaped link to a real broker.
//!
//! A device is one task: no other task, channel or thread belongs to it. It carries out what its [`Machine`] wants
//! and tells it what happens; when to connect, to ask and to give up is the machine's decision, when the link allows
//! it is the plan's. Everything that a device draws comes from the seed, so a run can be repeated as far as a real
//! broker and a real machine allow.

mod device;

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::fleet::DeviceState;
use crate::meter::{Classify, Ledger, Part};
use crate::mqtt::Delivery;
use crate::outage::Outages;
use crate::profile::Profile;
use crate::seed::Seed;

pub use device::run_device;

/// What decides for a device, without any I/O: a session of the protocol with what is around it.
pub trait Machine: Send {
    /// Something happened. Never fails.
    fn handle_input(&mut self, now: Moment, input: Input<'_>);

    /// The next thing to do; `None` when all is done.
    fn poll_output(&mut self) -> Option<Output>;

    /// When to feed [`Input::Timeout`], if nothing else happens before.
    fn poll_timeout(&self) -> Option<Moment>;

    /// How long to wait before the next attempt to connect, after one failed or a connection ended.
    fn reconnect_after(&mut self) -> Duration;
}

/// What a machine is told.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The broker accepted the login.
    Connected,
    /// The connection is over.
    Disconnected,
    /// A message arrived; nobody has looked at its bytes.
    Message {
        /// Where it was published.
        topic: &'a str,
        /// What it says.
        payload: &'a [u8],
    },
    /// Bytes arrived that do not complete a message yet.
    Activity,
    /// The time of [`Machine::poll_timeout`] has come.
    Timeout,
}

/// What a machine wants.
#[derive(Clone, Debug)]
pub enum Output {
    /// Publish a message, never retained. Dropped while there is no connection.
    Publish {
        /// Where to.
        topic: String,
        /// What it says.
        payload: Bytes,
        /// How often it should arrive.
        delivery: Delivery,
    },
    /// Subscribe to exact topics. Dropped while there is no connection.
    Subscribe(Vec<(String, Delivery)>),
    /// For the ledger: what a data message carried.
    Carried {
        /// What it was.
        part: Part,
        /// Bytes that the device did not have.
        first_bytes: u64,
        /// Bytes that it had.
        repeated_bytes: u64,
    },
    /// For people: what the device is doing now.
    State(DeviceState),
    /// Close the connection; the next one comes after [`Machine::reconnect_after`].
    HangUp,
    /// Nothing more to do: close the connection, and that is all.
    Finished,
}

/// What all devices of a run have in common.
#[derive(Clone, Debug)]
pub struct SwarmPlan {
    /// How many.
    pub devices: u32,
    /// The broker.
    pub broker: SocketAddr,
    /// What their links are like.
    pub profile: Arc<Profile>,
    /// What cuts their links.
    pub outages: Outages,
    /// What they draw from.
    pub seed: Seed,
    /// They come on within this time, evenly.
    pub start_within: Duration,
    /// What has not finished by then never will.
    pub give_up_at: Moment,
    /// Longest silence on a connection before a ping, in seconds. At most 65,535.
    pub keep_alive: Duration,
    /// Largest packet that a device takes.
    pub packet_bytes_max: usize,
    /// Real time between two wakes of a device whose link is the bottleneck.
    pub wake_every: Duration,
    /// Tells data from control.
    pub classify: Classify,
}

/// Who one device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Client id.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
}

/// How a device ended.
#[derive(Debug)]
pub struct DeviceEnd<M> {
    /// Its number, from 0.
    pub number: u32,
    /// Its machine, with all that it holds.
    pub machine: M,
    /// Its bytes.
    pub ledger: Ledger,
    /// Whether the machine said that it is finished; otherwise it was given up.
    pub finished: bool,
    /// The last state that it reported.
    pub state: DeviceState,
    /// When it came on.
    pub began: Moment,
    /// When it ended.
    pub ended: Moment,
}
