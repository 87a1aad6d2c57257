//! What goes into a [`DeviceSession`](super::DeviceSession) and what comes out.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::checkpoint::Checkpoint;
use super::event::Event;
use crate::chunk::ChunkSet;
use crate::ids::{ChunkIndex, Digest, OpId};
use crate::manifest::{ImageId, RUNNING_COMPONENT, TransferDescriptor};
use crate::message::PageNumber;
use crate::time::UnixTime;
use crate::topic::Channel;

/// Something happened outside. Feeding it never fails.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The broker accepted the connection. Whether it kept a session does not matter.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// A message arrived; its bytes are not verified.
    Message {
        /// On which channel.
        channel: Channel,
        /// The bytes.
        payload: &'a [u8],
    },
    /// Bytes arrived that do not complete a message yet. For links that can tell.
    Activity,
    /// A message arrived on a topic that is none of the device's. Its bytes count as not asked for.
    Foreign {
        /// Bytes of its payload.
        bytes: usize,
    },
    /// Topics that bring news are not subscribed to in this connection: the broker refused them, or the host left them
    /// out. The session asks for news instead, more and more rarely.
    NotSubscribed,
    /// The device's calendar clock was read. It dates reports, and decides nothing.
    WallClock(UnixTime),
    /// A [`StoreOp`] is done.
    Stored {
        /// Which operation.
        op: OpId,
        /// Whether it worked.
        result: Result<(), StoreFailure>,
    },
    /// [`StoreOp::Open`] is done.
    Opened {
        /// Which operation.
        op: OpId,
        /// What the medium already holds of the payload.
        result: Result<Found, StoreFailure>,
    },
    /// [`StoreOp::LoadPage`] is done.
    Loaded {
        /// Which operation.
        op: OpId,
        /// The page's bytes as stored, not verified; `None` if there are none.
        bytes: Option<&'a [u8]>,
    },
    /// An [`InstallOp`] or a [`HostOp`] is done.
    Installed {
        /// Which operation.
        op: OpId,
        /// Whether it worked.
        result: Result<(), InstallFailure>,
    },
    /// What a health check or a hook said last, before its result comes. If the deployment ends because of it, the report
    /// has the end of it, for people.
    Said(&'a str),
    /// The host has looked at its medium: there is room again for what had none. A wait for room ends.
    RoomFound,
    /// Somebody at the device asks to look for news now. What waits for the medium or the host is tried at once, too.
    Check,
    /// The time of [`DeviceSession::poll_timeout`](super::DeviceSession::poll_timeout) has come.
    Timeout,
}

/// An effect to carry out, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Subscribe to these channels.
    Subscribe(Vec<Channel>),
    /// Publish a message.
    Publish(Publish),
    /// Do something on the medium, then feed [`Input::Stored`], [`Input::Opened`] or [`Input::Loaded`].
    Store(OpId, StoreOp),
    /// Do something with images or the boot control, then feed [`Input::Installed`].
    Install(OpId, InstallOp),
    /// Do something that no medium can do, then feed [`Input::Installed`].
    Host(OpId, HostOp),
    /// Close the connection and reconnect after the usual back-off.
    Disconnect,
    /// Something that people or counters may want to know.
    Event(Event),
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// On which channel.
    pub channel: Channel,
    /// The bytes.
    pub payload: Vec<u8>,
    /// QoS 1 if `true`, else QoS 0. Never retained.
    pub at_least_once: bool,
}

/// What is about to be downloaded. Everything in it comes from a verified manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The signed envelope, to be kept with the slot.
    pub envelope: Vec<u8>,
    /// The release: digest of the manifest.
    pub release: Digest,
    /// Its sequence number.
    pub sequence: u64,
    /// Digest of the image.
    pub image: Digest,
    /// Bytes of the image.
    pub image_size: u64,
    /// How the payload becomes the image.
    pub transfer: TransferDescriptor,
    /// For a patch the image that it starts from. The running slot was found to hold it.
    pub base: Option<ImageId>,
}

/// Something to do on the medium. Operations are carried out one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Save the device's record durably.
    SaveRecord(Vec<u8>),
    /// Make ready for a download: durably mark the target slot not bootable, reserve all room, keep the
    /// envelope; then look for what an earlier run left of the same payload, and re-hash it.
    Open(Box<Opening>),
    /// Keep a verified index page, or the verified list of page digests. Needs no flush of its own.
    WritePage {
        /// Which page.
        page: PageNumber,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Give back an index page kept earlier.
    LoadPage(PageNumber),
    /// Write verified chunks that follow each other.
    WriteChunks {
        /// The number of the first chunk.
        first: ChunkIndex,
        /// Their bytes.
        bytes: Vec<u8>,
    },
    /// Note that chunks below this one were asked for; with the number of the note before, that what is missing
    /// below it is asked for again. Needs no flush: it only serves the ledger.
    NoteAsked(ChunkIndex),
    /// Make every earlier write durable, then save this durably.
    SaveCheckpoint(Checkpoint),
    /// Forget the download.
    Close,
}

/// What the medium already holds of a payload, re-hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Chunks whose bytes on the medium match the signed index.
    pub held: ChunkSet,
    /// Chunks below this one were asked for before.
    pub asked: ChunkIndex,
    /// Chunks from the first missing one on that the medium has room for; later ones are not asked for yet.
    pub reach: u32,
    /// Payload bytes received by earlier runs, as far as they were noted.
    pub bytes_received: u64,
    /// Payload bytes received twice by earlier runs, as far as they were noted.
    pub bytes_twice: u64,
}

/// Why the medium did not do it. The download stops, keeps what it has and goes on later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// There is no room.
    NoRoom,
    /// It failed.
    Failed,
}

/// Something to do with images or the boot control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallOp {
    /// Hash a slot from the medium and compare.
    Match {
        /// Which slot.
        place: Place,
        /// Digest required.
        image: Digest,
        /// Bytes to hash.
        size: u64,
    },
    /// Turn the complete payload into the image in the target slot, make it durable, read it back from the
    /// medium and compare with the signed digest.
    Install,
    /// Arm the trial boot of the target slot, durably.
    Activate,
    /// Keep the running image, durably.
    Confirm,
    /// Disarm the trial, so that the next start is the old image, durably.
    Revert,
}

/// Something that the host does itself, without its medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostOp {
    /// Start whatever the boot control chooses. The session ends with it.
    Reboot,
    /// Run the health checks of the new image.
    CheckHealth,
}

/// Where an image is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the slot that an update is written to.
    Target,
    /// In the slot that runs, which is only ever read.
    Running,
}

impl Place {
    /// Where a component of a manifest is: the second one, if there are two, is the image that runs
    /// (SPEC section 5.3).
    #[must_use]
    pub const fn of(component: usize) -> Self {
        if component == RUNNING_COMPONENT as usize { Self::Running } else { Self::Target }
    }
}

/// Why an [`InstallOp`] or a [`HostOp`] did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallFailure {
    /// There is no room.
    NoRoom,
    /// The medium failed.
    Failed,
    /// The image is not the one that was signed.
    Mismatch,
    /// The payload does not decode.
    Decode,
    /// The boot control failed.
    Boot,
    /// A health check failed.
    Unhealthy,
    /// A hook refused.
    Hook,
    /// Not now: ask again later.
    Retry,
}
