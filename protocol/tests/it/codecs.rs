//! What a device can decode: it fetches nothing else.

use whimbrel_protocol::manifest::{Codec, Codecs, DecoderMemory, TransferDescriptor};
use whimbrel_protocol::message::{FailureCode, State};
use whimbrel_protocol::testing::{OrderOptions, Pair, PairOptions, Verdict};

use crate::documents::release;
use crate::patches::{Update, failures};
use crate::session::{MINUTE, beside};

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
