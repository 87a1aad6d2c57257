//! What several tests need: a clock, paths, a way of telling data from control.

use core::num::NonZeroU32;
use core::time::Duration;

use whimbrel_sim::clock::Clock;
use whimbrel_sim::control::Control;
use whimbrel_sim::meter::{Class, Part};
use whimbrel_sim::mqtt::ClientOptions;
use whimbrel_sim::profile::Rates;
use whimbrel_sim::shape::Path;

/// Guards against a test that hangs; nothing depends on how long it is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of the toy messages' header: kind, tag, number.
pub(crate) const CHUNK_HEADER_BYTES: u16 = 4;
pub(crate) const CHUNK: u8 = 0x13;
pub(crate) const PAGE: u8 = 0x14;
pub(crate) const REQUEST: u8 = 0x12;

/// The toy messages of these tests: a kind in the first byte, data on `/c` and `/q`.
pub(crate) fn classify(topic: &str, payload: &[u8]) -> Class {
    match (topic.rsplit('/').next(), payload.first()) {
        (Some("c"), Some(&CHUNK)) => Class::Data { part: Part::Chunks, header_bytes: CHUNK_HEADER_BYTES },
        (Some("c"), Some(&PAGE)) => Class::Data { part: Part::Page, header_bytes: 2 },
        (Some("q"), Some(&REQUEST)) => Class::Data { part: Part::Request, header_bytes: 0 },
        _ => Class::Control(Control::Other),
    }
}

pub(crate) fn options(client_id: &str) -> ClientOptions {
    ClientOptions {
        client_id: client_id.to_owned(),
        login: None,
        keep_alive_s: 60,
        packet_bytes_max: 70_000,
        classify,
    }
}

pub(crate) fn clock(scale: u32) -> Clock {
    Clock::start(NonZeroU32::new(scale).unwrap())
}

/// A path without a rate, a round trip or a cut.
pub(crate) const UNSHAPED: Path =
    Path { rates: None, round_trip: Duration::ZERO, cut: None, quantum: Duration::from_millis(50) };

/// A path of this rate both ways and this round trip.
pub(crate) fn shaped(bytes_s: u64, round_trip_ms: u64) -> Path {
    Path {
        rates: Some(Rates { down_bytes_s: bytes_s, up_bytes_s: bytes_s }),
        round_trip: Duration::from_millis(round_trip_ms),
        ..UNSHAPED
    }
}
