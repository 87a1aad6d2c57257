//! Chunks and pages: sent at once if they are at hand, else when they have been read.

use bytes::Bytes;
use whimbrel_protocol::ids::{ChunkIndex, DeviceId, PayloadTag};
use whimbrel_protocol::limits::{CHUNK_HEADER_BYTES_MAX, CHUNK_MESSAGE_BYTES_MAX};
use whimbrel_protocol::message::{PageNumber, Refusal, RefusalCode};

use super::admission::REQUEST_BYTES_SERVED_MAX;
use super::frames::{Extent, Framed, Numbered};
use super::sessions::{Unsent, Waits};
use super::{Event, Output, Serving};
use crate::attach::Outgoing;
use crate::fleet::campaign::Ask;
use crate::fleet::catalog::PayloadNumber;
use crate::fleet::{self, Fleet};
use crate::metrics::Counters;
use crate::store::StoreError;

/// Extents that are read at the same time; a MiB of memory each, and disks are no faster with more.
const READS_MAX: usize = 4;
/// The most payload bytes that one message carries.
const MESSAGE_BYTES_SERVED_MAX: u64 = (CHUNK_MESSAGE_BYTES_MAX - CHUNK_HEADER_BYTES_MAX) as u64;
/// What a device is told to wait when the disk failed.
const READ_RETRY_S: u32 = 30;

/// A request for chunks that the session allows, as its output says.
pub(super) struct Asked {
    pub(super) payload: PayloadTag,
    /// The payload's place among those of the live release.
    pub(super) position: usize,
    /// First chunk and count of each message.
    pub(super) runs: Vec<(ChunkIndex, u32)>,
    /// Payload bytes in all.
    pub(super) bytes: u64,
}

impl Serving {
    /// Answers a request for chunks that the session allows, if every rate does.
    pub(super) fn serve_chunks(&mut self, fleet: &Fleet, device: &DeviceId, asked: Asked) {
        let Asked { payload, position, runs, bytes } = asked;
        let Some(session) = self.sessions.find(device) else { return };
        let (Some(pools), Some(number)) = (session.view.pools(), session.view.number(position)) else {
            return;
        };
        let Some(row) = fleet.catalog().payload(number) else { return };
        let of = row.layout.chunk_count();
        let largest = runs.iter().map(|(first, count)| span(row.layout.bytes_of(*first, *count))).max();
        if bytes > REQUEST_BYTES_SERVED_MAX
            || largest.is_some_and(|largest| largest > MESSAGE_BYTES_SERVED_MAX)
        {
            Counters::count(&self.counters.rejected_misbehaved);
            let (code, payload) = (RefusalCode::Malformed, Some(PayloadTag::of(&row.index)));
            return self.refuse(device, Refusal { code, retry_after_s: None, payload });
        }
        if let Err(wait_s) = self.admission.check(self.now, &mut session.bytes, pools, bytes) {
            session.machine.not_sent(payload, bytes);
            Counters::count(&self.counters.busy);
            let refusal = Refusal { code: RefusalCode::Busy, retry_after_s: Some(wait_s), payload: None };
            return self.refuse(device, refusal);
        }
        session.forget_waiting(number, &runs);
        self.admission.take(self.now, &mut session.bytes, pools, bytes);
        let topic = session.answers.clone();
        let before = runs.last().map_or(0, |(first, count)| first.0 + count);
        self.send_chunks(fleet, device, &topic, Numbered { number, row }, &runs);
        let (campaign, ask) = (pools.campaign, Ask::Chunks { payload: row.index.short(), before, of });
        self.tell_fleet(fleet::Input::Asked { device: device.clone(), campaign, ask });
    }

    /// Sends messages of chunks until one has to be read first.
    fn send_chunks(
        &mut self,
        fleet: &Fleet,
        device: &DeviceId,
        topic: &Bytes,
        payload: Numbered<'_>,
        runs: &[(ChunkIndex, u32)],
    ) {
        for (sent, (first, count)) in runs.iter().enumerate() {
            match self.frames.chunks(payload, *first, *count) {
                Framed::Ready(frame) => {
                    let bytes = span(payload.row.layout.bytes_of(*first, *count));
                    Counters::add(&self.counters.served_bytes, bytes);
                    Counters::count(&self.counters.chunk_messages);
                    self.publish(Outgoing::to_device(topic.clone(), frame));
                }
                Framed::Read(extent) => {
                    let runs = runs.get(sent..).unwrap_or_default().to_vec();
                    let unsent = Unsent::Chunks { payload: payload.number, runs };
                    return self.wait_for(fleet, device, extent, unsent);
                }
            }
        }
    }

    /// Answers a request for an index page.
    pub(super) fn serve_page(&mut self, fleet: &Fleet, device: &DeviceId, position: usize, page: PageNumber) {
        let Some(session) = self.sessions.find(device) else { return };
        if let Some(payload) = session.view.number(position) {
            self.send_page(fleet, device, payload, page);
        }
    }

    fn send_page(&mut self, fleet: &Fleet, device: &DeviceId, payload: PayloadNumber, page: PageNumber) {
        let Some(row) = fleet.catalog().payload(payload) else { return };
        match self.frames.page(Numbered { number: payload, row }, page) {
            Framed::Ready(frame) => {
                Counters::count(&self.counters.page_messages);
                self.send(device, frame);
            }
            Framed::Read(extent) => self.wait_for(fleet, device, extent, Unsent::Page { payload, page }),
        }
    }

    /// Lets a device wait for an extent, and has it read.
    fn wait_for(&mut self, fleet: &Fleet, device: &DeviceId, extent: Extent, unsent: Unsent) {
        let Some(session) = self.sessions.find(device) else { return };
        session.wait(Waits { extent, unsent });
        Counters::count(&self.counters.waited_for_disk);
        let waiting = self.reads.entry(extent).or_insert_with(|| {
            self.reads_to_start.push_back(extent);
            Vec::new()
        });
        // A device that asks again while it waits stands there once.
        if !waiting.contains(device) {
            waiting.push(device.clone());
        }
        self.start_reads(fleet);
    }

    /// Reads more, once what was read has been sent: else the one could push out the other.
    fn start_reads(&mut self, fleet: &Fleet) {
        if !self.ready.is_empty() {
            return;
        }
        while self.reads_running < READS_MAX {
            let Some(extent) = self.reads_to_start.pop_front() else { return };
            let Some(payload) = fleet.catalog().payload(extent.payload).copied() else { continue };
            self.reads_running += 1;
            self.outputs.push_back(Output::Read { extent, payload });
        }
    }

    /// An extent was read, or could not be. The devices that waited for it are answered.
    pub(super) fn extent_read(
        &mut self,
        fleet: &Fleet,
        extent: Extent,
        result: Result<Option<Bytes>, StoreError>,
    ) {
        self.reads_running -= 1;
        let waiting = self.reads.remove(&extent).unwrap_or_default();
        let index = fleet.catalog().payload(extent.payload).map(|row| row.index);
        let payload = index.as_ref().map(PayloadTag::of);
        match result {
            Ok(Some(bytes)) => {
                self.frames.keep(extent, bytes);
                self.ready.extend(waiting.into_iter().map(|device| (device, extent)));
            }
            Ok(None) => {
                Counters::count(&self.counters.damaged_payloads);
                self.outputs.push_back(Output::Event(Event::PayloadDamaged { index }));
                self.tell_fleet(fleet::Input::PayloadDamaged(extent.payload));
                let gone = Refusal { code: RefusalCode::NotFound, retry_after_s: None, payload };
                self.give_up(extent, waiting, gone);
            }
            Err(error) => {
                Counters::count(&self.counters.read_failures);
                self.outputs.push_back(Output::Event(Event::NotRead { error }));
                let later = Refusal { code: RefusalCode::Busy, retry_after_s: Some(READ_RETRY_S), payload };
                self.give_up(extent, waiting, later);
            }
        }
        self.start_reads(fleet);
    }

    /// Refuses what could not be read.
    fn give_up(&mut self, extent: Extent, devices: Vec<DeviceId>, refusal: Refusal) {
        for device in devices {
            let waited = self.sessions.find(&device).map(|session| session.waited_for(extent));
            if waited.is_some_and(|waited| !waited.is_empty()) {
                self.refuse(&device, refusal);
            }
        }
    }

    /// Serves devices whose extent has been read, as long as the broker takes it.
    pub(super) fn serve_ready(&mut self, fleet: &Fleet) {
        while self.has_room()
            && let Some((device, extent)) = self.ready.pop_front()
        {
            let Some(session) = self.sessions.find(&device) else { continue };
            let topic = session.answers.clone();
            for unsent in session.waited_for(extent) {
                match unsent {
                    Unsent::Chunks { payload: number, runs } => {
                        if let Some(row) = fleet.catalog().payload(number) {
                            self.send_chunks(fleet, &device, &topic, Numbered { number, row }, &runs);
                        }
                    }
                    Unsent::Page { payload, page } => self.send_page(fleet, &device, payload, page),
                }
            }
        }
        self.start_reads(fleet);
    }
}

fn span(range: core::ops::Range<u64>) -> u64 {
    range.end - range.start
}
