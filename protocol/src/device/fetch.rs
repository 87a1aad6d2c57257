//! The running download: asks, checks, writes, saves checkpoints, until everything is here (SPEC section 8.3).

use super::download::{Accepted, Ask, Download};
use super::io::{InstallOp, Output, Reason, StoreFailure, StoreOp};
use super::meter::Terms;
use super::release::Run;
use super::work::Work;
use super::{Boxed, DeviceSession, SessionConfig};
use crate::ids::{DeviceId, OpId, Prefix};
use crate::limits::CHUNK_HEADER_BYTES_MAX;
use crate::message::{ChunkMessage, DeferReason, PageMessage, PageRequest};
use crate::time::Instant;
use crate::topic::Channel;

/// A download with what surrounds it.
#[derive(Debug)]
pub(super) struct Downloading {
    pub(super) run: Boxed<Run>,
    pub(super) download: Download,
    /// Bytes received, and received twice, of patches that were given up before.
    before: (u64, u64),
    /// The service or the medium asked for a pause.
    pub(super) paused: Option<(Instant, DeferReason)>,
    /// A checkpoint is being saved.
    pub(super) checkpoint: Option<OpId>,
    /// When the oldest write since the last checkpoint was made.
    pub(super) unflushed_since: Option<Instant>,
    /// When the last request went out.
    pub(super) asked_at: Instant,
    /// When a request went out that nothing was ahead of.
    pub(super) probe: Option<Instant>,
    /// Pauses in a row; lengthens the next.
    pub(super) pauses: u32,
}

/// Written chunks stay without a checkpoint for at most this long.
pub(super) const FLUSH_MS: u64 = 30_000;

impl Downloading {
    pub(super) fn new(run: Boxed<Run>, download: Download, before: (u64, u64), now: Instant) -> Self {
        Self {
            run,
            download,
            before,
            paused: None,
            checkpoint: None,
            unflushed_since: None,
            asked_at: now,
            probe: None,
            pauses: 0,
        }
    }

    /// Bytes received, and received twice, of everything that was fetched in the deployment.
    pub(super) fn ledger(&self) -> (u64, u64) {
        let (received, twice) = self.before;
        (
            received.saturating_add(self.download.bytes_received),
            twice.saturating_add(self.download.bytes_twice),
        )
    }
}

impl DeviceSession {
    /// Asks for more, saves a checkpoint, or goes on to the installation. `true` where the work changed.
    pub(super) fn pump(&mut self) -> bool {
        let Work::Downloading(work) = &mut self.work else {
            return false;
        };
        if work.paused.is_some_and(|(until, _)| until <= self.now) {
            work.paused = None;
        }
        if work.checkpoint.is_none() && !work.download.has_unflushed() && work.download.is_complete() {
            return self.install_payload();
        }
        let due = work.unflushed_since.is_some_and(|since| self.now.millis_since(since) >= FLUSH_MS);
        if work.checkpoint.is_none() && (due || work.download.wants_checkpoint(self.meter.bytes_in_10_s())) {
            self.checkpoint();
        }
        self.ask();
        false
    }

    pub(super) fn checkpoint(&mut self) {
        let Work::Downloading(work) = &mut self.work else {
            return;
        };
        let checkpoint = work.download.checkpoint();
        work.unflushed_since = None;
        let op = self.store(StoreOp::SaveCheckpoint(checkpoint));
        if let Work::Downloading(work) = &mut self.work {
            work.checkpoint = Some(op);
        }
    }

    fn ask(&mut self) {
        loop {
            let terms = terms(&self.config);
            let up = self.link.is_up();
            let Work::Downloading(work) = &mut self.work else {
                return;
            };
            let sizing = self.meter.sizing(work.download.layout(), &terms);
            let idle = !work.download.is_waiting();
            let may_ask = up && work.paused.is_none();
            let tag = work.download.tag();
            let ask = work.download.next(sizing, may_ask);
            if matches!(ask, Ask::Page(_) | Ask::Chunks(..)) {
                work.asked_at = self.now;
                if idle {
                    work.probe = Some(self.now);
                }
            }
            match ask {
                Ask::Nothing => return,
                Ask::Load(page) => {
                    let op = self.store(StoreOp::LoadPage(page));
                    if let Work::Downloading(work) = &mut self.work {
                        work.download.loading(op, page);
                    }
                }
                Ask::Page(page) => {
                    self.publish(Channel::Requests, PageRequest { payload: tag, page }.encode(), false);
                }
                Ask::Chunks(request, notes) => {
                    for note in [notes.again, notes.fresh].into_iter().flatten() {
                        self.store(StoreOp::NoteAsked(note));
                    }
                    self.publish(Channel::Requests, request.encode(), false);
                }
            }
        }
    }

    pub(super) fn chunks(&mut self, message: &ChunkMessage<'_>, len: usize) {
        let Work::Downloading(work) = &mut self.work else {
            return self.unsolicited(Channel::Answers, len, Reason::Unsolicited);
        };
        let (accepted, wrong) = work.download.chunks_arrived(message);
        if !accepted.is_empty() {
            if let Some(probe) = work.probe.take() {
                self.meter.round_trip(self.now.millis_since(probe), len as u64);
            }
            self.meter.arrived(self.now, len as u64);
            work.pauses = 0;
            if !work.download.is_waiting() {
                self.meter.idle();
            }
            self.not_silent();
        }
        let good: usize = accepted.iter().map(|run| run.bytes.len()).sum();
        for run in accepted {
            self.write(run);
        }
        if let Some(reason) = wrong {
            self.unsolicited(Channel::Answers, len.saturating_sub(good), reason);
        }
    }

    fn write(&mut self, run: Accepted) {
        let op = self.op();
        let Work::Downloading(work) = &mut self.work else {
            return;
        };
        work.download.writing(op, &run);
        work.unflushed_since.get_or_insert(self.now);
        let Accepted { first, bytes } = run;
        self.outputs.push_back(Output::Store(op, StoreOp::WriteChunks { first, bytes }));
    }

    pub(super) fn page(&mut self, message: &PageMessage<'_>, len: usize) {
        let Work::Downloading(work) = &mut self.work else {
            return self.unsolicited(Channel::Answers, len, Reason::Unsolicited);
        };
        match work.download.page_arrived(message) {
            Ok(()) => {
                if let Some(probe) = work.probe.take() {
                    self.meter.round_trip(self.now.millis_since(probe), len as u64);
                }
                self.not_silent();
                self.store(StoreOp::WritePage { page: message.page, bytes: message.bytes.to_vec() });
            }
            Err(reason) => self.unsolicited(Channel::Answers, len, reason),
        }
    }

    pub(super) fn loaded(&mut self, op: OpId, bytes: Option<&[u8]>) {
        if let Work::Downloading(work) = &mut self.work {
            work.download.loaded(op, bytes);
        }
    }

    /// A write or a checkpoint is done.
    pub(super) fn work_stored(&mut self, op: OpId, result: Result<(), StoreFailure>) {
        let Work::Downloading(work) = &mut self.work else {
            return;
        };
        if work.checkpoint == Some(op) {
            work.checkpoint = None;
        } else if !work.download.written(op, result.is_ok()) {
            // An index page or a note: what it would have saved can be fetched or counted again.
            return;
        }
        if let Err(failure) = result {
            self.defer(failure);
        }
    }

    /// Everything is here: writes and checks the image.
    fn install_payload(&mut self) -> bool {
        let work = core::mem::replace(&mut self.work, Work::Idle);
        let Work::Downloading(work) = work else {
            self.work = work;
            return false;
        };
        let (received, twice) = work.ledger();
        if let Some(deployment) = &mut self.record.deployment {
            // Not urgent enough for a save of its own: the journal has it too.
            (deployment.bytes_received, deployment.bytes_twice) = (received, twice);
        }
        let op = self.install(InstallOp::Install);
        self.work = Work::Installing { run: work.run, op };
        false
    }
}

/// Type and flags, three bytes of length, two bytes of the topic's length (MQTT 3.1.1 section 3.3).
const PUBLISH_HEADER_BYTES: usize = 6;

/// What the configuration says about sizes: the bytes of chunks that a message may have.
fn terms(config: &SessionConfig) -> Terms {
    Terms {
        header_bytes: header_bytes(&config.prefix, &config.device),
        losses_s: config.mean_time_between_losses_s,
        message_bytes_max: config.message_bytes_max.saturating_sub(CHUNK_HEADER_BYTES_MAX) as u64,
        window_bytes_max: config.window_bytes_max,
    }
}

/// What each chunk message costs beyond its chunks: MQTT's header with the topic, and ours.
fn header_bytes(prefix: &Prefix, device: &DeviceId) -> u64 {
    let topic = Channel::Answers.topic(prefix, device);
    (PUBLISH_HEADER_BYTES + topic.len() + CHUNK_HEADER_BYTES_MAX) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_message_costs_its_mqtt_header_its_topic_and_our_header() {
        let cost =
            |prefix, device| header_bytes(&Prefix::new(prefix).unwrap(), &DeviceId::new(device).unwrap());
        assert_eq!(cost("ota", "m1"), 22);
        assert_eq!(cost("ota", "meter-17"), 28);
        assert_eq!(cost("updates", "m1"), 26);
    }

    #[test]
    fn a_message_of_chunks_with_its_header_is_no_longer_than_the_device_takes() {
        let fixture = crate::testing::Fixture::new();
        let key = fixture.device_key.clone();
        let usual = SessionConfig::new(fixture.device.clone(), fixture.vendor, fixture.class, key, [0; 32]);
        let config = SessionConfig { message_bytes_max: 8 * 1024, ..usual };
        assert_eq!(terms(&config).message_bytes_max, 8 * 1024 - CHUNK_HEADER_BYTES_MAX as u64);
    }
}
