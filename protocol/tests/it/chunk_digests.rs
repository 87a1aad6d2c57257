//! Every byte of a chunk digest counts, also where the index that holds it is signed.

use whimbrel_protocol::chunk::{ChunkSalt, Index};
use whimbrel_protocol::device::{Event, Reason};
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::limits::{CHUNK_DIGEST_BYTES, PAGE_BYTES_MAX, PAGE_DIGEST_BYTES};
use whimbrel_protocol::manifest::TransferDescriptor;
use whimbrel_protocol::message::{ChunkMessage, PageNumber, State};
use whimbrel_protocol::testing::{Fixture, OrderOptions, Pair, PairOptions, Release, Verdict};
use whimbrel_protocol::topic::Channel;

use crate::session::{DAY, MINUTE, beside, image};

/// The release with a signed index that `change` has changed.
fn with_index(fixture: &Fixture, release: &Release, change: impl Fn(&mut Index, ChunkSalt)) -> Release {
    let salt = ChunkSalt { image: Digest::of(&release.image), transfer_size: release.layout.transfer_size() };
    let mut index = release.index.clone();
    change(&mut index, salt);
    index.digest = salt.index_digest(&index.list);
    let transfer = TransferDescriptor::raw(release.layout, index.digest);
    Release { index, ..beside(fixture, release, transfer) }
}

fn list_of(pages: &[u8], salt: ChunkSalt) -> Vec<u8> {
    (0..).zip(pages.chunks(PAGE_BYTES_MAX)).flat_map(|(page, bytes)| salt.page_digest(page, bytes)).collect()
}

#[test]
fn a_chunk_whose_digest_differs_in_any_one_byte_is_not_taken() {
    for byte in 0..CHUNK_DIGEST_BYTES {
        let mut pair = Pair::new(PairOptions::default());
        let plain = pair.fixture.release(image(20_000, 1), 1, 12);
        let wrong = with_index(&pair.fixture, &plain, |index, salt| {
            index.pages[2 * CHUNK_DIGEST_BYTES + byte] ^= 1;
            index.list = list_of(&index.pages, salt);
        });
        pair.roll_out(wrong, OrderOptions::default());
        pair.run(2 * MINUTE, |_| false);
        let chunk = Reason::WrongChunk(ChunkIndex(2));
        let refused =
            |(_, event): &(_, Event)| matches!(event, Event::Rejected { reason, .. } if *reason == chunk);
        assert!(pair.events.iter().any(refused), "byte {byte}");
        assert_eq!(pair.device.status().map(|status| status.chunks_held), Some(4), "byte {byte}: the others");
    }
}

#[test]
fn a_page_whose_digest_differs_in_any_one_byte_is_not_taken() {
    for byte in 0..PAGE_DIGEST_BYTES {
        let mut pair = Pair::new(PairOptions::default());
        let plain = pair.fixture.release(image(600 * 1024, 1), 1, 10);
        let wrong = with_index(&pair.fixture, &plain, |index, _| index.list[byte] ^= 1);
        pair.roll_out(wrong, OrderOptions::default());
        pair.run(MINUTE, |_| false);
        let refused = |(_, event): &(_, Event)| {
            matches!(event, Event::Rejected { reason: Reason::WrongPage(PageNumber::Page(0)), .. })
        };
        assert!(pair.events.iter().any(refused), "byte {byte}");
        assert_eq!(pair.served_bytes, 0, "byte {byte}: nothing can be checked without it");
    }
}

/// One chunk message may carry good chunks and bad ones: the good ones count, and no bad one is kept.
#[test]
fn a_chunk_with_one_changed_byte_anywhere_is_not_taken() {
    let good = image(30_000, 1);
    for at in [0, 1, 2048, 4095] {
        let mut pair = Pair::with_release(PairOptions::default(), good.clone(), 12);
        let mut left = 3;
        pair.tap = Some(Box::new(move |_, mut packet| {
            if packet.channel == Channel::Answers && packet.payload.first() == Some(&0x18) && left > 0 {
                left -= 1;
                let header = packet.payload.len() % 4096;
                packet.payload[(header + at) % 4096] ^= 0x80;
            }
            vec![packet]
        }));
        assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done, "{at}");
        assert_eq!(pair.medium.running_image(), good);
    }
    // A message that ends in the middle of a chunk is not taken beyond its last whole one.
    let mut pair = Pair::with_release(PairOptions::default(), good.clone(), 12);
    pair.run(MINUTE, |pair| pair.device.status().is_some_and(|status| status.chunks_held == 1));
    let tag = pair.service.releases[0].tag();
    pair.inject(Channel::Answers, ChunkMessage::encode(tag, ChunkIndex(1), &good[4096..8191]));
    assert_eq!(pair.device.status().map(|status| status.chunks_held), Some(1));
    assert_eq!(pair.run_until(State::Confirmed, DAY), Verdict::Done);
}
