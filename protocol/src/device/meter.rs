//! Measures the link, and sizes messages and the window by it (SPEC section 8.2).

use crate::chunk::Layout;
use crate::limits::{REQUEST_CHUNKS_MAX, WINDOW_BYTES_MIN};
use crate::time::Instant;

/// Rate and round trip time, as measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    /// Bytes per second.
    rate: Option<u64>,
    /// Start of the interval that is being measured, and the bytes since.
    interval: Option<(Instant, u64)>,
    /// Shortest round trip seen lately, in milliseconds.
    rtt_min: Option<u64>,
    /// Mean and deviation (RFC 6298 section 2), in milliseconds.
    rtt: Option<(u64, u64)>,
}

/// Shortest interval that makes a sample, and the shortest for the first one, in milliseconds.
const SAMPLE_MS: u64 = 1000;
const FIRST_SAMPLE_MS: u64 = 200;
/// Bytes that make a sample earlier on fast links, over at least [`FAST_SAMPLE_MS`].
const SAMPLE_BYTES: u64 = 128 * 1024;
const FAST_SAMPLE_MS: u64 = 20;
/// The rate assumed before anything was measured, for waiting only: 2 kbit/s.
const SLOW_BYTES_PER_S: u64 = 250;
/// The round trip assumed before anything was measured, for waiting only.
const SLOW_RTT_MS: u64 = 10_000;
/// Nothing counts as lost before this long without a byte.
const SILENCE_MIN_MS: u64 = 10_000;
/// Before anything has come in a connection, nothing counts as lost before this long: with jitter it is 10 s at most.
const FIRST_SILENCE_MS: u64 = 8_000;
/// A request whose answer is not expected to take long is not asked again before this.
const LOST_REQUEST_MS_MIN: u64 = 1_000;
/// A link that answers a hello more slowly than this is waited for as long as one that never answered.
const PROMPT_HELLO_MS: u64 = 10_000;
/// A message takes at most this long.
const MESSAGE_MS_MAX: u64 = 1500;

impl Meter {
    /// `bytes` that were asked for arrived.
    pub(super) fn arrived(&mut self, now: Instant, bytes: u64) {
        let Some((since, so_far)) = self.interval else {
            self.interval = Some((now, 0));
            return;
        };
        let (elapsed, so_far) = (now.millis_since(since), so_far + bytes);
        let long = if self.rate.is_some() { SAMPLE_MS } else { FIRST_SAMPLE_MS };
        if elapsed < long && (elapsed < FAST_SAMPLE_MS || so_far < SAMPLE_BYTES) {
            self.interval = Some((since, so_far));
            return;
        }
        let sample = (so_far * 1000 / elapsed.max(1)).max(1);
        self.rate = Some(self.rate.map_or(sample, |rate| (rate * 5 + sample * 3) / 8).max(1));
        self.interval = Some((now, 0));
    }

    /// Nothing is asked for any more, or the link is gone: what comes next starts a new interval.
    pub(super) fn idle(&mut self) {
        self.interval = None;
    }

    /// A request that went out while nothing else was under way was answered after `elapsed_ms` by a message of
    /// `bytes`.
    pub(super) fn round_trip(&mut self, elapsed_ms: u64, bytes: u64) {
        let transfer_ms = self.rate.map_or(0, |rate| bytes * 1000 / rate);
        let sample = elapsed_ms.saturating_sub(transfer_ms).max(1);
        // The minimum forgets slowly, so that a better cell is believed at once and a worse one in time.
        self.rtt_min = Some(self.rtt_min.map_or(sample, |min| sample.min(min + min / 16 + 1)));
        self.rtt = Some(match self.rtt {
            None => (sample, sample / 2),
            Some((mean, deviation)) => ((mean * 7 + sample) / 8, (deviation * 3 + mean.abs_diff(sample)) / 4),
        });
    }

    /// Bytes per second, if measured.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// A round trip that few are longer than, in milliseconds.
    pub(super) fn rtt_p95_ms(&self) -> u64 {
        self.rtt.map_or(SLOW_RTT_MS / 3, |(mean, deviation)| mean + 2 * deviation)
    }

    /// How long nothing may come, with `outstanding` bytes asked for, before it counts as lost.
    pub(super) fn silence_ms(&self, outstanding: u64, sees_activity: bool) -> u64 {
        let base = (3 * self.rtt_p95_ms()).max(SILENCE_MIN_MS);
        let hidden = 2 * outstanding * 1000 / self.rate.unwrap_or(SLOW_BYTES_PER_S).max(1);
        if sees_activity { base } else { base + hidden }
    }

    /// The same before the first chunk of a connection. A hello was answered in it, or not yet; `tries` is how often
    /// was asked in vain.
    ///
    /// A link that answers hellos within 10 s is not waited for as if it were the slowest there is, but for three round
    /// trips at least. At a rate that is known from before, what was asked for may take longer. If no rate is known, little is asked for, and it
    /// is most likely the request that was lost: it is asked for again soon, and then more and more slowly, so that a
    /// slow link does not fill up with what was asked for twice.
    pub(super) fn first_silence_ms(
        &self,
        outstanding: u64,
        sees_activity: bool,
        answered: bool,
        tries: u32,
    ) -> u64 {
        let usual = self.silence_ms(outstanding, sees_activity);
        let round_trip_ms = self.rtt.filter(|(mean, _)| *mean < PROMPT_HELLO_MS).map(|(mean, _)| mean);
        let wait = match (self.rate, round_trip_ms) {
            (Some(rate), Some(ms)) => {
                let hidden = if sees_activity { 0 } else { 2 * outstanding * 1000 / rate.max(1) };
                FIRST_SILENCE_MS.max(3 * ms).max(self.rtt_p95_ms() + hidden)
            }
            (None, Some(ms)) if answered => LOST_REQUEST_MS_MIN.max(3 * ms) << tries.min(8),
            _ => usual,
        };
        wait.min(usual)
    }

    /// Bytes that arrive in 10 s at the measured rate: the size of a flush group.
    pub(super) fn bytes_in_10_s(&self) -> u64 {
        self.rate.unwrap_or(SLOW_BYTES_PER_S).saturating_mul(10)
    }

    /// How large messages and the window are to be.
    pub(super) fn sizing(&self, layout: &Layout, terms: &Terms) -> Sizing {
        let chunk = layout.chunk_size();
        let bdp = self.rate.unwrap_or(0) * self.rtt_min.unwrap_or(0) / 1000;
        let window_max = terms.window_bytes_max.max(WINDOW_BYTES_MIN).max(chunk);
        let message = self.rate.map_or(0, |rate| {
            let best = (2 * terms.header_bytes * rate).saturating_mul(terms.losses_s).isqrt();
            // If the window is what limits, four messages fill it.
            let room = (window_max.saturating_sub(2 * bdp) / 2).max(window_max / 4);
            best.min(rate * MESSAGE_MS_MAX / 1000).min(room).min(terms.message_bytes_max)
        });
        let most = u32::try_from(message / chunk).unwrap_or(REQUEST_CHUNKS_MAX).min(REQUEST_CHUNKS_MAX / 2);
        // A power of two, so that devices of different links still share messages.
        let per_message = most.checked_ilog2().map_or(1, |log| 1 << log);
        let window = (2 * bdp + 2 * u64::from(per_message) * chunk).clamp(WINDOW_BYTES_MIN, window_max);
        let chunks = u32::try_from(window.div_ceil(chunk)).unwrap_or(REQUEST_CHUNKS_MAX);
        let chunks = chunks.next_multiple_of(per_message);
        let most = u32::try_from(window_max / chunk).unwrap_or(REQUEST_CHUNKS_MAX).max(1);
        Sizing { window_chunks: chunks.min(most).min(REQUEST_CHUNKS_MAX), per_message }
    }
}

/// What the device's configuration says about sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Bytes that each message costs beyond its chunks.
    pub(super) header_bytes: u64,
    /// Mean time between losses of the link, in seconds.
    pub(super) losses_s: u64,
    /// Largest message.
    pub(super) message_bytes_max: u64,
    /// Largest window.
    pub(super) window_bytes_max: u64,
}

/// How much to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizing {
    /// Chunks that may be outstanding.
    pub(super) window_chunks: u32,
    /// Consecutive chunks of one message.
    pub(super) per_message: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bytes_per_s: u64, rtt_ms: u64) -> Meter {
        let mut meter = Meter::default();
        for second in 0..40 {
            meter.arrived(Instant::from_millis(second * 1000), bytes_per_s);
        }
        for _ in 0..20 {
            meter.round_trip(rtt_ms, 0);
        }
        meter
    }

    fn sizing(bytes_per_s: u64, rtt_ms: u64, losses_s: u64) -> Sizing {
        let terms =
            Terms { header_bytes: 27, losses_s, message_bytes_max: 32 * 1024, window_bytes_max: 64 * 1024 };
        measured(bytes_per_s, rtt_ms).sizing(&Layout::new(12, 1 << 20).unwrap(), &terms)
    }

    #[test]
    fn the_rate_settles_at_what_arrives() {
        assert_eq!(measured(37_500, 120).rate(), Some(37_500));
        assert_eq!(measured(100, 120).rate(), Some(100));
    }

    #[test]
    fn an_unmeasured_link_starts_small() {
        let terms =
            Terms { header_bytes: 27, losses_s: 3600, message_bytes_max: 32_768, window_bytes_max: 65_536 };
        let sizing = Meter::default().sizing(&Layout::new(12, 1 << 20).unwrap(), &terms);
        assert_eq!(sizing, Sizing { window_chunks: 2, per_message: 1 });
    }

    #[test]
    fn messages_are_large_where_the_link_is_fast_and_holds() {
        assert_eq!(sizing(37_500, 120, 14_400).per_message, 4);
        assert_eq!(sizing(2_500, 800, 7_200).per_message, 1);
        assert!(sizing(1_250_000, 30, 43_200).per_message <= 8);
        assert_eq!(sizing(37_500, 120, 1).per_message, 1);
    }

    #[test]
    fn the_window_covers_two_bandwidth_delay_products_and_two_messages() {
        for (rate, rtt) in [(2_500, 800), (2_500, 2_000), (37_500, 120), (3_750, 700), (125, 10_000)] {
            let sizing = sizing(rate, rtt, 7_200);
            let window = u64::from(sizing.window_chunks) * 4096;
            let message = u64::from(sizing.per_message) * 4096;
            assert!(window >= (2 * rate * rtt / 1000 + 2 * message).min(65_536), "{rate} {rtt}: {sizing:?}");
            assert!(window <= 65_536);
        }
    }

    #[test]
    fn a_full_window_still_holds_large_messages() {
        let sizing = sizing(1_250_000, 500, 43_200);
        assert_eq!(sizing, Sizing { window_chunks: 16, per_message: 4 });
    }

    #[test]
    fn silence_is_never_shorter_than_ten_seconds_and_waits_for_hidden_bytes() {
        let meter = measured(1000, 100);
        assert_eq!(meter.silence_ms(8192, true), 10_000);
        assert_eq!(meter.silence_ms(8192, false), 10_000 + 16_384);
        assert_eq!(measured(1000, 8000).silence_ms(0, true), 3 * measured(1000, 8000).rtt_p95_ms());
    }

    /// A link that moved from a fast cell to a slow one has a rate that is too high: eight seconds are enough for it.
    #[test]
    fn before_the_first_chunk_of_a_connection_silence_is_ten_seconds_at_most_unless_the_known_rate_needs_more()
     {
        let meter = measured(100_000, 100);
        assert_eq!(meter.first_silence_ms(65_536, false, false, 0), 8_000);
        assert_eq!(meter.first_silence_ms(65_536, false, true, 5), 8_000);
        // What is known of a slow link is not forgotten.
        let slow = measured(1_000, 900);
        assert_eq!(slow.first_silence_ms(8_192, false, true, 0), slow.rtt_p95_ms() + 16_384);
        assert_eq!(slow.first_silence_ms(8_192, true, true, 0), 8_000);
        let satellite = measured(1_000, 5_000);
        assert_eq!(satellite.first_silence_ms(8_192, true, true, 0), 15_000, "three round trips");
        let far = measured(1_000, 12_000);
        assert_eq!(far.first_silence_ms(8_192, false, true, 0), far.silence_ms(8_192, false));
    }

    #[test]
    fn a_request_lost_before_the_rate_is_known_is_asked_again_after_three_round_trips_doubled_each_time() {
        let waits = |hello_ms: u64, answered| {
            let mut meter = Meter::default();
            meter.round_trip(hello_ms, 0);
            [0, 1, 2, 3, 9].map(|tries| meter.first_silence_ms(8_192, false, answered, tries))
        };
        assert_eq!(waits(50, true), [1_000, 2_000, 4_000, 8_000, 75_536], "a second at least");
        assert_eq!(waits(1_200, true), [3_600, 7_200, 14_400, 28_800, 75_536]);
        // On a link that takes its time, asking too early costs what it carries in many seconds.
        assert_eq!(waits(9_000, true)[..3], [27_000, 54_000, 108_000]);
        // As long as nobody has answered, or slowly, the link may be the slowest there is.
        assert_eq!(waits(50, false), [75_536; 5]);
        assert!(waits(10_000, true).iter().all(|wait| *wait > 75_536));
        assert_eq!(Meter::default().first_silence_ms(8_192, false, true, 0), 75_536);
    }

    #[test]
    fn a_sample_is_made_after_its_time_or_on_fast_links_its_bytes() {
        let mut meter = Meter::default();
        let mut rate = |ms, bytes| {
            meter.arrived(Instant::from_millis(ms), bytes);
            meter.rate()
        };
        // What comes first starts the clock; the first sample is a short one.
        assert_eq!((rate(1000, 9999), rate(1199, 600)), (None, None));
        assert_eq!(rate(1200, 400), Some(5000));
        // Five eighths of what was known and three of what is new.
        assert_eq!((rate(2199, 100), rate(2200, 900)), (Some(5000), Some(3500)));
        assert_eq!((rate(2219, SAMPLE_BYTES), rate(2220, 0)), (Some(3500), Some(2_459_787)));
        let mut meter = measured(1000, 100);
        meter.idle();
        meter.arrived(Instant::from_millis(1_000_000), 5000);
        meter.arrived(Instant::from_millis(1_000_020), SAMPLE_BYTES - 1);
        assert_eq!(meter.rate(), Some(1000), "a byte too few, and nothing of before counts");
        meter.arrived(Instant::from_millis(1_001_000), 1);
        assert_eq!(meter.rate(), Some((1000 * 5 + SAMPLE_BYTES * 3) / 8));
    }

    #[test]
    fn round_trips_are_taken_without_the_time_of_their_bytes() {
        let mut meter = Meter::default();
        assert_eq!(meter.rtt_p95_ms(), 3333);
        meter.round_trip(100, 5000);
        assert_eq!((meter.rtt_min, meter.rtt, meter.rtt_p95_ms()), (Some(100), Some((100, 50)), 200));
        // The minimum forgets a sixteenth; mean and deviation follow by an eighth and a quarter.
        meter.round_trip(180, 0);
        assert_eq!((meter.rtt_min, meter.rtt, meter.rtt_p95_ms()), (Some(107), Some((110, 57)), 224));
        meter.round_trip(10, 0);
        assert_eq!((meter.rtt_min, meter.rtt), (Some(10), Some((97, 67))));
        let mut meter = Meter { rate: Some(1000), ..Meter::default() };
        meter.round_trip(500, 200);
        assert_eq!(meter.rtt_min, Some(300));
        meter.round_trip(500, 2000);
        assert_eq!(meter.rtt_min, Some(1));
    }

    #[test]
    fn before_anything_is_measured_waits_are_long_and_flush_groups_small() {
        let meter = Meter::default();
        assert_eq!((meter.silence_ms(1000, true), meter.silence_ms(1000, false)), (10_000, 18_000));
        assert_eq!((meter.bytes_in_10_s(), measured(37_500, 120).bytes_in_10_s()), (2500, 375_000));
    }

    /// Computed apart from the code, by SPEC 8.2.
    #[test]
    fn sizes_are_those_of_the_specification_whichever_of_its_limits_is_the_lowest() {
        for ([rate, rtt, losses_s, chunk_log2], [header, message, window], [chunks, per_message]) in [
            ([37500, 120, 3, 10], [27, 32768, 65536], [14, 2]),
            ([1250000, 30, 1, 10], [27, 32768, 65536], [64, 8]),
            ([37500, 120, 3, 10], [100, 32768, 65536], [20, 4]),
            ([5000, 800, 7200, 10], [27, 32768, 65536], [16, 4]),
            ([12000, 1000, 36000, 10], [27, 32768, 65536], [64, 16]),
            ([3000, 2000, 36000, 10], [27, 32768, 65536], [20, 4]),
            ([37500, 120, 14400, 12], [27, 32768, 65536], [12, 4]),
            ([20000, 100, 86400, 10], [27, 32768, 65536], [48, 16]),
            ([40000, 700, 7200, 11], [27, 32768, 65536], [32, 8]),
            ([1250000, 5, 43200, 10], [27, 32768, 65536], [48, 16]),
            ([1250000, 500, 43200, 10], [27, 32768, 65536], [64, 16]),
            ([1250000, 10, 43200, 10], [27, 8000, 65536], [36, 4]),
            ([1250000, 500, 43200, 16], [27, 32768, 65536], [1, 1]),
            ([1250000, 1, 43200, 10], [27, 262144, 262144], [128, 64]),
            ([1250000, 1, 43200, 10], [27, 1048576, 1048576], [128, 64]),
            ([600000, 30, 43200, 10], [27, 65536, 100000], [80, 16]),
            ([400000, 30, 43200, 10], [27, 65536, 100000], [96, 32]),
            ([600000, 60, 43200, 10], [27, 65536, 100000], [97, 16]),
            ([500000, 100, 43200, 10], [27, 32768, 4096], [8, 2]),
            ([100, 100, 3600, 10], [27, 32768, 65536], [8, 1]),
        ] {
            let layout = Layout::new(chunk_log2, 1 << 20).unwrap();
            let terms = Terms {
                header_bytes: header,
                losses_s,
                message_bytes_max: message,
                window_bytes_max: window,
            };
            let meter = Meter { rate: Some(rate), rtt_min: Some(rtt), rtt: Some((rtt, 0)), interval: None };
            let Sizing { window_chunks, per_message: got } = meter.sizing(&layout, &terms);
            assert_eq!([window_chunks, got], [chunks, per_message], "{rate} {rtt} {losses_s} {chunk_log2}");
        }
    }
}
