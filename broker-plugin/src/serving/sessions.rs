//! The devices that talk: one [`ServerSession`] each, made when a device speaks, dropped when it is silent or when
//! there are too many. What is lost with it only bounded what that device could cost.

use alloc::collections::{BinaryHeap, VecDeque};
use core::cmp::Reverse;
use std::collections::HashMap;

use bytes::Bytes;
use whimbrel_protocol::ids::{ChunkIndex, DeviceId, Prefix};
use whimbrel_protocol::message::PageNumber;
use whimbrel_protocol::server::{Bucket, ServerSession};
use whimbrel_protocol::time::Instant;
use whimbrel_protocol::topic::Channel;

use super::admission::Admission;
use super::frames::Extent;
use super::view::View;
use crate::fleet::catalog::PayloadNumber;

/// All sessions and their timers.
#[derive(Debug)]
pub(crate) struct Sessions {
    prefix: Prefix,
    sessions: HashMap<DeviceId, Session>,
    sessions_max: usize,
    idle_ms: u64,
    timers: BinaryHeap<Reverse<(Instant, DeviceId)>>,
    dropped: usize,
}

/// One device.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) machine: ServerSession,
    pub(crate) view: View,
    /// The state of the world that `view` was made of.
    epoch: u64,
    /// Topic of what is sent to the device.
    pub(crate) answers: Bytes,
    /// Bytes that the device may get.
    pub(crate) bytes: Bucket,
    /// Signatures of the device that are checked.
    pub(crate) signed: Bucket,
    /// Refusals that come from outside the machine.
    pub(crate) refusals: Bucket,
    /// Requests that wait for the disk.
    waiting: VecDeque<Waits>,
    heard: Instant,
    /// The time for which the heap holds a timer of this device; `None` if it holds none.
    timer: Option<Instant>,
}

/// A request that waits for the disk.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) extent: Extent,
    pub(crate) unsent: Unsent,
}

/// What is still to be sent of a request.
#[derive(Clone, Debug)]
pub(crate) enum Unsent {
    /// Messages of chunks that are still to be sent.
    Chunks { payload: PayloadNumber, runs: Vec<(ChunkIndex, u32)> },
    /// An index page.
    Page { payload: PayloadNumber, page: PageNumber },
}

/// Requests of one device that wait for the disk. A window is asked for in two or three, and a page beside them.
const WAITING_MAX: usize = 8;
/// Signed messages of one device whose signatures are checked: at once, and one more every so often.
const SIGNED_BURST: u64 = 32;
const SIGNED_EVERY_MS: u64 = 1000;
/// Refusals of one device from outside the machine.
const REFUSALS_BURST: u64 = 8;
const REFUSALS_EVERY_MS: u64 = 1000;
/// When there are too many sessions, this part of them is dropped, the longest silent ones.
const DROPPED_PART: usize = 16;

impl Sessions {
    pub(crate) fn new(prefix: Prefix, sessions_max: usize, idle_ms: u64) -> Self {
        Self {
            prefix,
            sessions: HashMap::new(),
            sessions_max,
            idle_ms,
            timers: BinaryHeap::new(),
            dropped: 0,
        }
    }

    /// The session of a device that speaks now; made if there is none.
    pub(crate) fn speak(&mut self, device: &DeviceId, now: Instant, admission: &Admission) -> &mut Session {
        if !self.sessions.contains_key(device) {
            if self.sessions.len() >= self.sessions_max {
                self.drop_longest_silent();
            }
            let answers = Channel::Answers.topic(&self.prefix, device);
            self.sessions.insert(device.clone(), Session::new(device, Bytes::from(answers), now, admission));
        }
        let session = self.sessions.get_mut(device).expect("it is there, or was just put there");
        session.heard = now;
        session
    }

    /// The session of a device, if there is one.
    pub(crate) fn find(&mut self, device: &DeviceId) -> Option<&mut Session> {
        self.sessions.get_mut(device)
    }

    /// Something about this device has changed: its view is made anew when it speaks next.
    pub(crate) fn forget_view(&mut self, device: &DeviceId) {
        if let Some(session) = self.sessions.get_mut(device) {
            session.epoch = 0;
        }
    }

    /// When a device was last heard.
    pub(crate) fn heard(&self, device: &DeviceId) -> Option<Instant> {
        self.sessions.get(device).map(|session| session.heard)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// How many were dropped since the start.
    pub(crate) const fn dropped(&self) -> usize {
        self.dropped
    }

    /// Sees to it that the device's machine is woken when it wants to be.
    pub(crate) fn set_timer(&mut self, device: &DeviceId) {
        let Some(session) = self.sessions.get_mut(device) else { return };
        let Some(wanted) = session.machine.poll_timeout() else { return };
        if session.timer.is_none_or(|set| wanted < set) {
            session.timer = Some(wanted);
            self.timers.push(Reverse((wanted, device.clone())));
        }
    }

    /// When the next timer goes off.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// A device whose timer has gone off. A device may be named that wants nothing any more.
    pub(crate) fn due(&mut self, now: Instant) -> Option<DeviceId> {
        self.timers.peek().filter(|Reverse((at, _))| *at <= now)?;
        let Reverse((_, device)) = self.timers.pop()?;
        if let Some(session) = self.sessions.get_mut(&device) {
            session.timer = None;
        }
        Some(device)
    }

    /// Drops the sessions of devices that have been silent for too long.
    pub(crate) fn drop_idle(&mut self, now: Instant) {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| now.millis_since(session.heard) < self.idle_ms);
        self.dropped += before - self.sessions.len();
    }

    fn drop_longest_silent(&mut self) {
        let mut heard: Vec<Instant> = self.sessions.values().map(|session| session.heard).collect();
        let last = (heard.len() / DROPPED_PART).min(heard.len().saturating_sub(1));
        let (_, limit, _) = heard.select_nth_unstable(last);
        let limit = *limit;
        let before = self.sessions.len();
        // At least one goes; if many were heard at the same instant, all of them may.
        self.sessions.retain(|_, session| session.heard > limit);
        self.dropped += before - self.sessions.len();
    }
}

impl Session {
    fn new(device: &DeviceId, answers: Bytes, now: Instant, admission: &Admission) -> Self {
        Self {
            machine: ServerSession::new(device.clone(), now),
            view: View::default(),
            epoch: 0,
            answers,
            bytes: admission.device_bucket(now),
            signed: Bucket::new(SIGNED_BURST, 1000, SIGNED_EVERY_MS, now),
            refusals: Bucket::new(REFUSALS_BURST, 1000, REFUSALS_EVERY_MS, now),
            waiting: VecDeque::new(),
            heard: now,
            timer: None,
        }
    }

    /// Lets a request wait. If too many do, the oldest is forgotten: the device asks again.
    pub(crate) fn wait(&mut self, waiting: Waits) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(waiting);
    }

    /// A device that has lost patience asks again for what still waits: once is enough.
    pub(crate) fn forget_waiting(&mut self, asked: PayloadNumber, again: &[(ChunkIndex, u32)]) {
        let overlap = |one: &(ChunkIndex, u32), other: &(ChunkIndex, u32)| {
            one.0.0 < other.0.0.saturating_add(other.1) && other.0.0 < one.0.0.saturating_add(one.1)
        };
        self.waiting.retain(|waiting| match &waiting.unsent {
            Unsent::Chunks { payload, runs } => {
                *payload != asked || !runs.iter().any(|run| again.iter().any(|other| overlap(run, other)))
            }
            Unsent::Page { .. } => true,
        });
    }

    /// What has waited for `extent`.
    pub(crate) fn waited_for(&mut self, extent: Extent) -> Vec<Unsent> {
        let all = core::mem::take(&mut self.waiting);
        let (done, others): (Vec<Waits>, Vec<Waits>) =
            all.into_iter().partition(|waiting| waiting.extent == extent);
        self.waiting = others.into();
        done.into_iter().map(|waiting| waiting.unsent).collect()
    }

    /// Makes the view anew if the world has changed since; `world` is asked then. Epochs start at 1.
    pub(crate) fn refresh(&mut self, epoch: u64, world: impl FnOnce() -> View) {
        if self.epoch != epoch {
            self.view = world();
            self.epoch = epoch;
        }
    }
}

#[cfg(test)]
mod tests;
