//! What a device can decode: it says so, and fetches nothing else.

use whimbrel_protocol::device::{DeviceSession, Input, Output, Record, SessionConfig};
use whimbrel_protocol::manifest::{Codec, Codecs, DecoderMemory, TransferDescriptor};
use whimbrel_protocol::message::{FailureCode, State};
use whimbrel_protocol::testing::{Fixture, OrderOptions, Pair, PairOptions, Verdict};
use whimbrel_protocol::time::{Instant, UnixTime};

use crate::by_hand::{boot, the_hello};
use crate::documents::release;
use crate::patches::{Update, failures};
use crate::session::{MINUTE, beside};

#[test]
fn a_hello_names_the_codecs_that_the_device_can_decode() {
    assert_eq!(
        [Codecs::RAW, Codecs::RAW.with(Codec::Patch), Codecs::ALL].map(Codecs::bits),
        [1, 0b101, 0b111]
    );
    let fixture = Fixture::new();
    for codecs in [Codecs::RAW, Codecs::ALL] {
        let Fixture { device, vendor, class, device_key, .. } = fixture.clone();
        let usual = SessionConfig::new(device, vendor, class, device_key, [7; 32]);
        let config = SessionConfig { codecs, ..usual };
        let (record, today) = (Record::default(), UnixTime::default());
        let mut session =
            DeviceSession::new(config, fixture.root(), boot(), record, None, Instant::ZERO, today);
        while session.poll_output().is_some() {}
        session.handle_input(Instant::ZERO, Input::Connected);
        let outputs: Vec<Output> = core::iter::from_fn(|| session.poll_output()).collect();
        assert_eq!(the_hello(&outputs).codecs, codecs.bits());
    }
}

#[test]
fn a_full_payload_that_the_device_cannot_decode_is_refused_before_a_chunk_is_asked_for() {
    for (codecs, fits) in [(Codecs::RAW.with(Codec::Lzma), true), (Codecs::RAW, false)] {
        let mut pair = Pair::new(PairOptions { codecs, ..PairOptions::default() });
        let plain = release(&pair, 1);
        let decoder = DecoderMemory { memory_bytes: 64 * 1024, dictionary_bytes: 4096 };
        let transfer = TransferDescriptor::lzma(plain.layout, plain.index.digest, decoder);
        let release = beside(&pair.fixture, &plain, transfer);
        pair.roll_out(release, OrderOptions::default());
        let outcome = if fits { State::Confirmed } else { State::Failed };
        assert_eq!(pair.run_until(outcome, 20 * MINUTE), Verdict::Done, "{codecs:?}: {pair:?}");
        assert_eq!(pair.service.reports[0].failure, (!fits).then_some(FailureCode::Unsupported));
        assert_eq!(pair.served_bytes > 0, fits);
    }
}

#[test]
fn a_device_without_a_decoder_of_patches_takes_the_full_payload_and_fetches_nothing_of_a_patch() {
    let update = Update::medium();
    let options = PairOptions { codecs: Codecs::RAW, ..PairOptions::default() };
    let (mut pair, release) = update.pair(options, std::slice::from_ref(&update.patch));
    update.confirmed(&mut pair);
    assert_eq!(pair.served, [(release.tag(), update.new.len() as u64)].into());
    assert_eq!(failures(&pair), [], "nothing is wrong with the patch");
}
