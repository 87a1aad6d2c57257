//! What is where on the medium (SPEC sections 8.6 to 8.9). Devices in the field have it: a change here needs a new
//! format number, and a reader for the old one.

use whimbrel_agent::disk::FileDisk;
use whimbrel_protocol::chunk::ChunkSet;
use whimbrel_protocol::device::{Checkpoint, JournalSector, Record};
use whimbrel_protocol::disk::Area;
use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::SimDisk;

use crate::power_cut::world;
use crate::power_cut_device::End;

const IMAGE_BYTES: usize = 40 * 1024;

#[test]
fn every_area_has_its_file_its_length_and_what_is_in_it_its_place() {
    let mut world = world::<SimDisk>(&[Codec::Lzma], IMAGE_BYTES);
    assert_eq!(world.run(), Ok(End::Confirmed));
    let release = world.service.release();
    let pages = u64::from(release.transfer.layout.page_count());
    let small = |places: &'static [(usize, &'static [u8])], bytes: u64| (places, bytes);
    for (area, name, (places, bytes)) in [
        (Area::SlotB, "slot-b.img", small(&[], IMAGE_BYTES as u64)),
        (Area::Staging, "staging.bin", small(&[], release.payload.len() as u64)),
        (Area::Index, "index.bin", small(&[(0, b"WX01\0\0\0\0")], 4096 + 4096 * pages)),
        (
            Area::Journal,
            "journal.bin",
            small(&[(0, b"WJ01\0\0\0\0"), (4096, b"WJ01\0\0\0\0"), (8192, b"WN01")], 12_288),
        ),
        (Area::Record, "record.bin", small(&[(0, b"WR01"), (36_864, b"WR01")], 73_728)),
        (Area::Manifests, "manifests.bin", small(&[(16_384, b"WM01"), (24_576, b"WM01")], 32_768)),
        (
            Area::BootEnvironment,
            "boot-environment.bin",
            small(&[(0, b"WB01\x28\0\0\0"), (4096, b"WB01\x28\0\0\0")], 8192),
        ),
        (
            Area::BootDefault,
            "boot-default.bin",
            small(&[(0, b"WD01\x01\0\0\0"), (4096, b"WD01\x01\0\0\0")], 8192),
        ),
    ] {
        assert_eq!(FileDisk::name(area), name);
        let content = world.disk.content(area);
        assert_eq!(content.len() as u64, bytes, "{area:?}");
        for (at, begins) in places {
            assert_eq!(content[*at..*at + begins.len()], **begins, "{area:?} at {at}");
        }
    }
    assert_eq!(FileDisk::name(Area::SlotA), "slot-a.img");
    // What belongs to a payload names it, and the only page stands behind the header.
    let index = release.transfer.index_digest;
    let content = world.disk.content(Area::Index);
    assert_eq!(content[8..40], index.0);
    assert_eq!(content[4096..4096 + release.index.page(0).len()], *release.index.page(0));
    let journal = world.disk.content(Area::Journal);
    assert_eq!(journal[16..48], index.0);
    assert_eq!(journal[8192 + 12..8192 + 20], index.0[..8]);
    assert_eq!(journal[8192 + 20..8192 + 28], Digest::of(&journal[8192..8192 + 20]).0[..8]);
}

#[test]
fn a_journal_sector_has_these_bytes() {
    let mut held = ChunkSet::empty(4000);
    [0, 1, 2, 4, 3402].into_iter().for_each(|chunk| {
        held.insert(ChunkIndex(chunk));
    });
    let ledger =
        Checkpoint { asked: ChunkIndex(9), bytes_received: 7, bytes_twice: 5, ..Checkpoint::of(&held) };
    let bytes = JournalSector { sequence: 6, index: Digest([8; 32]), checkpoint: ledger }.encode();
    let mut want = vec![0; 512];
    want[..4].copy_from_slice(b"WJ01");
    (want[8], want[48], want[52], want[56], want[64]) = (6, 3, 9, 7, 5);
    want[16..48].fill(8);
    // Chunk 4 is the second from the watermark on, chunk 3402 the last but one that a sector can tell apart.
    (want[72], want[72 + 3399 / 8]) = (1 << 1, 1 << (3399 % 8));
    let check = Digest::of(&want[..500]);
    want[500..].copy_from_slice(&check.0[..12]);
    assert_eq!(bytes[..], want[..]);
}

#[test]
fn an_empty_record_has_these_bytes() {
    let bytes = [0x8a, 0x01, 0x40, 0x80, 0xf6, 0x80, 0x00, 0xf6, 0x80, 0x80, 0x00];
    assert_eq!(Record::default().encode(), bytes);
    assert_eq!(Record::decode(&bytes), Ok(Record::default()));
}
