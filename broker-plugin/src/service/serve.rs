//! Chunks and pages: sent at once where they are at hand, else when they have been read.

use bytes::Bytes;
use whimbrel_protocol::ids::{ChunkIndex, DeviceId, PayloadTag};
use whimbrel_protocol::limits::{CHUNK_HEADER_BYTES_MAX, CHUNK_MESSAGE_BYTES_MAX};
use whimbrel_protocol::message::{PageNumber, Refusal, RefusalCode};

use super::{Core, Happened};
use crate::attach::BrokerLink;
use crate::campaign::Ask;
use crate::catalog::PayloadNumber;
use crate::metrics::Counters;
use crate::serving::admission::REQUEST_BYTES_SERVED_MAX;
use crate::serving::{Framed, Numbered, SegmentKey};
use crate::sessions::{Rest, Waiting};
use crate::store::StoreError;

/// Segments that are read at the same time; a MiB of memory each, and disks are no faster with more.
const READS_MAX: usize = 4;
/// The most payload bytes that one message carries.
const MESSAGE_BYTES_SERVED_MAX: u64 = (CHUNK_MESSAGE_BYTES_MAX - CHUNK_HEADER_BYTES_MAX) as u64;
/// What a device is told to wait when the disk failed.
const READ_RETRY_S: u32 = 30;

impl<L: BrokerLink> Core<L> {
    /// Answers a request for chunks that the session allows.
    pub(super) fn serve_chunks(
        &mut self,
        device: &DeviceId,
        tag: PayloadTag,
        runs: Vec<(ChunkIndex, u32)>,
        bytes: u64,
    ) {
        let Some(session) = self.sessions.find(device) else { return };
        let (Some(crowd), Some(live)) = (session.view.crowd(), session.view.live()) else { return };
        let Some((payload, number)) = live.payload(tag) else { return };
        let of = payload.layout.chunk_count();
        let largest = runs.iter().map(|(first, count)| span(payload.layout.bytes_of(*first, *count))).max();
        if bytes > REQUEST_BYTES_SERVED_MAX
            || largest.is_some_and(|largest| largest > MESSAGE_BYTES_SERVED_MAX)
        {
            Counters::count(&self.counters.rejected_misbehaved);
            let (code, payload) = (RefusalCode::Malformed, Some(tag));
            return self.refuse(device, Refusal { code, retry_after_s: None, payload });
        }
        session.forget_waiting(number, &runs);
        self.admission.take(self.now, &mut session.bytes, crowd, bytes);
        let before = runs.last().map_or(0, |(first, count)| first.0 + count);
        self.send_chunks(device, number, &runs);
        if let Some(row) = self.catalog.payload(number) {
            let payload = row.index.short();
            self.asked(device, Ask::Chunks { payload, before, of });
        }
    }

    /// Sends messages of chunks until one has to be read first.
    fn send_chunks(&mut self, device: &DeviceId, payload: PayloadNumber, runs: &[(ChunkIndex, u32)]) {
        let Self { sessions, catalog, shelf, outbox, counters, .. } = self;
        let (Some(session), Some(row)) = (sessions.find(device), catalog.payload(payload)) else { return };
        let numbered = Numbered { number: payload, row };
        for (sent, (first, count)) in runs.iter().enumerate() {
            match shelf.chunks(numbered, *first, *count) {
                Framed::Ready(frame) => {
                    Counters::add(&counters.served_bytes, span(row.layout.bytes_of(*first, *count)));
                    Counters::count(&counters.chunk_messages);
                    outbox.send(session.answers.clone(), frame);
                }
                Framed::Read(segment) => {
                    let rest = runs.get(sent..).unwrap_or_default().to_vec();
                    return self.wait_for(device, segment, Rest::Chunks { payload, runs: rest });
                }
            }
        }
    }

    /// Answers a request for an index page.
    pub(super) fn serve_page(&mut self, device: &DeviceId, tag: PayloadTag, page: PageNumber) {
        let Some(session) = self.sessions.find(device) else { return };
        let number = session.view.live().and_then(|live| live.payload(tag)).map(|(_, number)| number);
        if let Some(payload) = number {
            self.send_page(device, payload, page);
        }
    }

    fn send_page(&mut self, device: &DeviceId, payload: PayloadNumber, page: PageNumber) {
        let Some(row) = self.catalog.payload(payload) else { return };
        match self.shelf.page(Numbered { number: payload, row }, page) {
            Framed::Ready(frame) => {
                Counters::count(&self.counters.page_messages);
                self.send(device, frame);
            }
            Framed::Read(segment) => self.wait_for(device, segment, Rest::Page { payload, page }),
        }
    }

    /// Lets a device wait for a segment, and has it read.
    fn wait_for(&mut self, device: &DeviceId, segment: SegmentKey, rest: Rest) {
        let Some(session) = self.sessions.find(device) else { return };
        session.wait(Waiting { segment, rest });
        Counters::count(&self.counters.waited_for_disk);
        let waiting = self.reads.entry(segment).or_insert_with(|| {
            self.reads_to_start.push_back(segment);
            Vec::new()
        });
        // A device that asks again while it waits stands there once.
        if !waiting.contains(device) {
            waiting.push(device.clone());
        }
        self.start_reads();
    }

    /// Reads more, once what was read has been sent: else the one could push out the other.
    fn start_reads(&mut self) {
        if !self.ready.is_empty() {
            return;
        }
        while self.reads_running < READS_MAX {
            let Some(segment) = self.reads_to_start.pop_front() else { return };
            let Some(row) = self.catalog.payload(segment.payload).copied() else { continue };
            self.reads_running += 1;
            let (folder, tell) = (self.folder.clone(), self.tell.clone());
            self.elsewhere.spawn_blocking(move || {
                let result = segment.read(&folder, &row);
                let _stopping = tell.send(Happened::Read { segment, result });
            });
        }
    }

    /// A segment was read, or could not be: those who wait go on.
    pub(super) fn segment_read(&mut self, segment: SegmentKey, result: Result<Option<Bytes>, StoreError>) {
        self.reads_running -= 1;
        let waiting = self.reads.remove(&segment).unwrap_or_default();
        let payload = self.catalog.payload(segment.payload).map(|row| PayloadTag::of(&row.index));
        match result {
            Ok(Some(bytes)) => {
                self.shelf.keep(segment, bytes);
                self.ready.extend(waiting.into_iter().map(|device| (device, segment)));
            }
            Ok(None) => {
                Counters::count(&self.counters.damaged_payloads);
                let index = self.catalog.payload(segment.payload).map(|row| row.index.to_hex());
                tracing::error!(payload = index, "payload on the disk is damaged, upload it again");
                self.catalog.forget_payload(segment.payload);
                self.epoch += 1;
                let gone = Refusal { code: RefusalCode::NotFound, retry_after_s: None, payload };
                self.give_up(segment, waiting, gone);
            }
            Err(error) => {
                Counters::count(&self.counters.read_failures);
                tracing::error!(reason = %error, "payload not read");
                let later = Refusal { code: RefusalCode::Busy, retry_after_s: Some(READ_RETRY_S), payload };
                self.give_up(segment, waiting, later);
            }
        }
        self.start_reads();
        let (frames, segments) = self.shelf.bytes();
        Counters::set(&self.counters.frame_cache_bytes, frames);
        Counters::set(&self.counters.payload_cache_bytes, segments);
    }

    /// Refuses what could not be read.
    fn give_up(&mut self, segment: SegmentKey, devices: Vec<DeviceId>, refusal: Refusal) {
        for device in devices {
            let waited = self.sessions.find(&device).map(|session| session.waited_for(segment));
            if waited.is_some_and(|waited| !waited.is_empty()) {
                self.refuse(&device, refusal);
            }
        }
    }

    /// Serves devices whose segment has been read, as long as the broker takes it.
    pub(super) fn serve_ready(&mut self) {
        while self.outbox.has_room()
            && let Some((device, segment)) = self.ready.pop_front()
        {
            let waited = self.sessions.find(&device).map(|session| session.waited_for(segment));
            for rest in waited.unwrap_or_default() {
                match rest {
                    Rest::Chunks { payload, runs } => self.send_chunks(&device, payload, &runs),
                    Rest::Page { payload, page } => self.send_page(&device, payload, page),
                }
            }
        }
        self.start_reads();
    }
}

fn span(range: core::ops::Range<u64>) -> u64 {
    range.end - range.start
}
