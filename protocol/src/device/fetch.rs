//! The running download. It asks for chunks, checks what arrives, hands it to the medium and saves checkpoints, until
//! the payload is complete (SPEC section 8.3). Which chunks to ask for is decided by `download`.

use alloc::boxed::Box;

use super::carry::{Missed, Passed};
use super::config::SessionConfig;
use super::context::Context;
use super::download::{Accepted, Ask, Download, Longest};
use super::event::Reason;
use super::hello::REFUSED_MS_MIN;
use super::install::Installing;
use super::io::{StoreFailure, StoreOp};
use super::link::{Arrival, ArrivalKind, Link, Silence};
use super::meter::Terms;
use super::run::Fetch;
use super::timer::{Timer, Timers};
use super::work::{Deferred, RETRY_CAP_MS, RETRY_MS};
use crate::ids::{DeviceId, OpId, Prefix};
use crate::limits::CHUNK_HEADER_BYTES_MAX;
use crate::message::{ChunkMessage, DeferReason, PageMessage, PageRequest, Refusal};
use crate::time::Instant;
use crate::topic::Channel;

/// The state of work that fetches chunks.
#[derive(Debug)]
pub(super) struct Downloading {
    fetch: Box<Fetch>,
    download: Download,
    /// Bytes received, and received twice, of patches that were given up before.
    before: (u64, u64),
    /// Until when nothing is asked for, because the service refused, and why.
    paused: Option<(Instant, DeferReason)>,
    /// The checkpoint that is being saved.
    checkpoint: Option<OpId>,
    /// When the oldest write since the last checkpoint was made.
    unflushed_since: Option<Instant>,
    /// When the last request went out.
    asked_at: Instant,
    /// When the oldest request went out since nothing was under way.
    waiting_since: Instant,
    /// When a request went out while nothing else was under way. Its answer measures the round trip.
    probe: Option<Instant>,
    /// Pauses in a row. Each is at least twice as long as the one before.
    pauses: u32,
    /// Until when nothing is asked for, because what came was not what was asked for.
    held_until: Option<Instant>,
    /// Times in a row that this was so. Each doubles the wait.
    wrongs: u32,
    /// A chunk that was asked for arrived in this connection.
    has_come: bool,
    /// Silences since something that was asked for arrived in this connection.
    tries: u32,
    /// Chunks of a message in the last request.
    per_message: u32,
    /// The jitter of the present wait, in 256ths of a quarter.
    jitter: u64,
}

/// What a message of the download was found to hold.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// What it brought that had been asked for.
    pub(super) asked: Option<Arrival>,
    /// How many bytes of it nobody had asked for, and what is wrong with them.
    pub(super) unasked: Option<(usize, Reason)>,
}

/// Written chunks stay without a checkpoint for at most this long, so that a power cut on a slow link costs little.
const FLUSH_MS: u64 = 30_000;
/// After more wrong messages than this the device waits for half a minute and longer, and says so.
const WRONGS_TOLD: u32 = 5;
/// A wait gets up to a quarter longer, in so many steps.
const JITTER_PARTS: u64 = 256;

impl Checked {
    /// Nobody had asked for any of it.
    pub(super) const fn unasked(len: usize, reason: Reason) -> Self {
        Self { asked: None, unasked: Some((len, reason)) }
    }
}

impl Downloading {
    pub(super) fn new(fetch: Box<Fetch>, download: Download, before: (u64, u64), now: Instant) -> Self {
        Self {
            fetch,
            download,
            before,
            paused: None,
            checkpoint: None,
            unflushed_since: None,
            asked_at: now,
            waiting_since: now,
            probe: None,
            pauses: 0,
            held_until: None,
            wrongs: 0,
            has_come: false,
            tries: 0,
            per_message: 1,
            jitter: 0,
        }
    }

    pub(super) const fn download(&self) -> &Download {
        &self.download
    }

    /// What the pause is for, while there is one.
    pub(super) fn paused_for(&self) -> Option<DeferReason> {
        let stands_still = self.wrongs > WRONGS_TOLD && self.held_until.is_some();
        self.paused.map(|(_, reason)| reason).or(stands_still.then_some(DeferReason::Retry))
    }

    /// Until when nothing is asked for.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused.map(|(until, _)| until).or(self.held_until)
    }

    /// What the pause was for does not rule any more. The next refusal waits for longer all the same.
    pub(super) const fn end_pause(&mut self) {
        self.paused = None;
    }

    /// Bytes received, and received twice, of everything that was fetched in the deployment.
    pub(super) fn ledger(&self) -> (u64, u64) {
        let (received, twice) = self.before;
        (
            received.saturating_add(self.download.bytes_received),
            twice.saturating_add(self.download.bytes_twice),
        )
    }

    /// Whether everything is here and claimed by a checkpoint.
    pub(super) fn is_done(&self) -> bool {
        self.checkpoint.is_none() && !self.download.has_unflushed() && self.download.is_complete()
    }

    /// Saves a checkpoint when it is time, and asks for more.
    pub(super) fn pump(&mut self, cx: &mut Context, link: &Link) {
        self.paused.take_if(|(until, _)| *until <= cx.now);
        self.held_until.take_if(|until| *until <= cx.now);
        let due = self.flush_at().is_some_and(|at| at <= cx.now);
        let full = self.download.wants_checkpoint(link.meter().bytes_in_10_s());
        if self.checkpoint.is_none() && (due || full) {
            self.save_checkpoint(cx);
        }
        self.ask(cx, link);
    }

    fn save_checkpoint(&mut self, cx: &mut Context) {
        self.unflushed_since = None;
        self.checkpoint = Some(cx.outputs.store(StoreOp::SaveCheckpoint(self.download.checkpoint())));
    }

    fn ask(&mut self, cx: &mut Context, link: &Link) {
        let terms = terms(&cx.config, link.message_bytes_max());
        let sizing = link.meter().sizing(self.download.layout(), &terms);
        let payload = self.download.tag();
        let may_ask = link.is_up() && self.paused.is_none() && self.held_until.is_none();
        loop {
            let idle = !self.download.is_waiting();
            let ask = self.download.next(sizing, may_ask);
            if matches!(ask, Ask::Page(_) | Ask::Chunks(..)) {
                self.asked_at = cx.now;
                self.per_message = sizing.per_message;
                if idle {
                    self.probe = Some(cx.now);
                    self.waiting_since = cx.now;
                    self.jitter = cx.jitter.below(JITTER_PARTS);
                }
            }
            match ask {
                Ask::Nothing => return,
                Ask::Load(page) => self.download.loading(cx.outputs.store(StoreOp::LoadPage(page)), page),
                Ask::Page(page) => cx.request(PageRequest { payload, page }.encode()),
                Ask::Chunks(request, notes) => {
                    for note in [notes.again, notes.fresh].into_iter().flatten() {
                        cx.outputs.store(StoreOp::NoteAsked(note));
                    }
                    cx.request(request.encode());
                }
            }
        }
    }

    /// A message of chunks arrived, `len` bytes long.
    pub(super) fn chunks(&mut self, cx: &mut Context, message: &ChunkMessage<'_>, len: usize) -> Checked {
        let (accepted, wrong) = self.download.chunks_arrived(message);
        if accepted.is_empty() {
            self.hold_after(cx, wrong);
        }
        let asked = (!accepted.is_empty()).then(|| {
            (self.pauses, self.wrongs, self.tries, self.has_come) = (0, 0, 0, true);
            let more = self.download.is_waiting();
            let kind = if more { ArrivalKind::Chunks } else { ArrivalKind::LastChunks };
            let content = message.bytes.len() as u64;
            let in_parts = content > self.download.layout().chunk_size();
            self.arrival(cx.now, len, Passed { bytes: message_bytes(content), in_parts }, kind)
        });
        let good: usize = accepted.iter().map(|run| run.bytes.len()).sum();
        for run in accepted {
            self.write(cx, run);
        }
        Checked { asked, unasked: wrong.map(|reason| (len.saturating_sub(good), reason)) }
    }

    fn write(&mut self, cx: &mut Context, run: Accepted) {
        let Accepted { first, bytes } = run;
        let len = bytes.len() as u64;
        let op = cx.outputs.store(StoreOp::WriteChunks { first, bytes });
        self.download.writing(op, first, len);
        self.unflushed_since.get_or_insert(cx.now);
    }

    /// An index page arrived in a message of `len` bytes.
    pub(super) fn page(&mut self, cx: &mut Context, message: &PageMessage<'_>, len: usize) -> Checked {
        match self.download.page_arrived(message) {
            Ok(()) => {
                (self.wrongs, self.tries) = (0, 0);
                cx.outputs.store(StoreOp::WritePage { page: message.page, bytes: message.bytes.to_vec() });
                let passed = Passed { bytes: message_bytes(message.bytes.len() as u64), in_parts: false };
                let asked = Some(self.arrival(cx.now, len, passed, ArrivalKind::Page));
                Checked { asked, unasked: None }
            }
            Err(reason) => {
                self.hold_after(cx, Some(reason));
                Checked::unasked(len, reason)
            }
        }
    }

    /// What was asked for came, and was wrong: anybody on the way can have made it. It is asked for again after a
    /// wait, so that wrong answers do not make the device ask as fast as they come.
    fn hold_after(&mut self, cx: &mut Context, wrong: Option<Reason>) {
        if matches!(wrong, Some(Reason::WrongChunk(_) | Reason::WrongPage(_))) && self.held_until.is_none() {
            self.held_until = Some(cx.after_about((REFUSED_MS_MIN << self.wrongs.min(8)).min(RETRY_CAP_MS)));
            self.wrongs = self.wrongs.saturating_add(1);
        }
    }

    fn arrival(&mut self, now: Instant, len: usize, passed: Passed, kind: ArrivalKind) -> Arrival {
        let round_trip_ms = self.probe.take().map(|probe| now.millis_since(probe));
        Arrival { round_trip_ms, bytes: len as u64, passed, kind }
    }

    /// The medium gave an index page back, or has none.
    pub(super) fn loaded(&mut self, op: OpId, bytes: Option<&[u8]>) {
        self.download.loaded(op, bytes);
    }

    /// A write or a checkpoint is done. Returns how the work stops for now, if the medium failed.
    pub(super) fn stored(
        &mut self,
        cx: &mut Context,
        op: OpId,
        result: Result<(), StoreFailure>,
    ) -> Option<Deferred> {
        if self.checkpoint == Some(op) {
            self.checkpoint = None;
        } else if !self.download.written(op, result.is_ok()) {
            // An index page or a note: what it would have saved can be fetched or counted again.
            return None;
        }
        result.err().map(|failure| Deferred::of(cx, failure))
    }

    /// The link is gone: what was asked for does not come any more.
    pub(super) fn disconnected(&mut self, cx: &mut Context) {
        self.download.disconnected();
        self.probe = None;
        (self.has_come, self.tries) = (false, 0);
        if self.checkpoint.is_none() && self.download.has_unflushed() {
            self.save_checkpoint(cx);
        }
    }

    /// What was asked for counts as lost. Returns how many chunks that are.
    pub(super) fn forget_outstanding(&mut self) -> u32 {
        self.probe = None;
        self.download.forget_outstanding()
    }

    /// Nothing came for too long: what was asked for counts as lost.
    pub(super) fn silent(&mut self, cx: &Context, link: &Link) -> Silence {
        let ms = self.patience_ms(cx, link);
        let Longest { chunks, chunk_bytes, page_bytes } = self.download.longest_outstanding(self.per_message);
        let asked_at = self.waiting_since;
        let missed = if chunk_bytes > page_bytes {
            // Messages have a power of two of chunks, or fewer.
            let half = (chunks > 1).then(|| {
                let chunks = 1_u64 << (chunks - 1).checked_ilog2().unwrap_or(0);
                message_bytes(chunks * self.download.layout().chunk_size())
            });
            Missed { bytes: message_bytes(chunk_bytes), half, asked_at }
        } else {
            Missed { bytes: message_bytes(page_bytes), half: None, asked_at }
        };
        self.tries = self.tries.saturating_add(1);
        Silence { chunks: self.forget_outstanding(), ms, missed }
    }

    /// How long nothing may come before what was asked for counts as lost, before jitter.
    fn patience_ms(&self, cx: &Context, link: &Link) -> u64 {
        let outstanding = self.download.outstanding_bytes();
        let (meter, sees_activity) = (link.meter(), cx.config.sees_activity);
        if self.has_come {
            meter.silence_ms(outstanding, sees_activity)
        } else {
            meter.first_silence_ms(outstanding, sees_activity, link.is_answered(), self.tries)
        }
    }

    /// The broker does not carry what is asked for, and it can't be asked for in parts: asks more and more rarely.
    pub(super) fn pause(&mut self, cx: &mut Context) {
        self.refused(cx, None, DeferReason::Retry);
    }

    /// Whether a refusal can be the answer to what is being asked for.
    pub(super) fn concerns(&self, refusal: Refusal, missing: bool) -> bool {
        match refusal.payload {
            Some(payload) => payload == self.download.tag(),
            // What is missing is always named.
            None => !missing,
        }
    }

    /// The service refused. Asks again after what it asks for, and not before the device would by itself. Returns how
    /// many milliseconds to wait, before jitter.
    ///
    /// Another refusal during the pause answers nothing: it can make the pause longer, and does not begin a new one.
    pub(super) fn refused(&mut self, cx: &mut Context, wait_ms: Option<u64>, reason: DeferReason) -> u64 {
        let is_paused = self.paused.is_some();
        let range = if wait_ms.is_some() { REFUSED_MS_MIN } else { RETRY_MS };
        let own = if is_paused { REFUSED_MS_MIN } else { range << self.pauses.min(12) };
        let wait = own.max(wait_ms.unwrap_or(0)).min(RETRY_CAP_MS);
        if !is_paused {
            self.pauses = self.pauses.saturating_add(1);
        }
        self.forget_outstanding();
        let until = cx.after_about(wait);
        self.paused = match self.paused {
            Some((known, reason)) if known >= until => Some((known, reason)),
            _ => Some((until, reason)),
        };
        wait
    }

    /// The payload is complete: has the medium write the image and compare it with the signed digest.
    pub(super) fn install(self, cx: &mut Context) -> Installing {
        let (received, twice) = self.ledger();
        // This needs no save of its own, because the journal has it too.
        cx.saving.amend(|record| {
            if let Some(deployment) = &mut record.deployment {
                (deployment.bytes_received, deployment.bytes_twice) = (received, twice);
            }
        });
        Installing::begin(cx, self.fetch)
    }

    fn flush_at(&self) -> Option<Instant> {
        self.unflushed_since.map(|since| since.plus_millis(FLUSH_MS))
    }

    pub(super) fn set_timers(&self, cx: &Context, link: &Link, timers: &mut Timers) {
        let patience = self.patience_ms(cx, link);
        let patience = patience + patience / 4 * self.jitter / JITTER_PARTS;
        let silence = (self.download.is_waiting() && link.is_up())
            .then(|| link.last_heard().max(self.asked_at).plus_millis(patience));
        timers.set(Timer::Silence, silence);
        let paused = self.paused.map(|(until, _)| until);
        timers.set(Timer::Pause, [paused, self.held_until].into_iter().flatten().min());
        timers.set(Timer::Flush, self.flush_at().filter(|_| self.checkpoint.is_none()));
    }
}

/// Type and flags, three bytes of length, two bytes of the topic's length (MQTT 3.1.1 section 3.3).
const PUBLISH_HEADER_BYTES: usize = 6;

/// Bytes of a message with `content` bytes of chunks, or of a page. Its header counts as if it were the longest one:
/// what was missed and what arrived are compared, and only one of them is known to the byte.
fn message_bytes(content: u64) -> u32 {
    u32::try_from(content + CHUNK_HEADER_BYTES_MAX as u64).unwrap_or(u32::MAX)
}

/// What the configuration says about sizes: the bytes of chunks that a message may have, at most `bytes_max` with
/// its header.
fn terms(config: &SessionConfig, bytes_max: u32) -> Terms {
    let message_bytes_max = u64::from(bytes_max).min(config.message_bytes_max as u64);
    Terms {
        header_bytes: header_bytes(&config.prefix, &config.device),
        losses_s: config.mean_time_between_losses_s,
        message_bytes_max: message_bytes_max.saturating_sub(CHUNK_HEADER_BYTES_MAX as u64),
        window_bytes_max: config.window_bytes_max,
    }
}

/// Bytes that each chunk message has besides its chunks: MQTT's header with the topic, and ours.
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
        assert_eq!(terms(&config, u32::MAX).message_bytes_max, 8 * 1024 - CHUNK_HEADER_BYTES_MAX as u64);
        assert_eq!(terms(&config, 4102).message_bytes_max, 4096, "nor than the broker carries");
    }
}
