use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::message::Answer;
use whimbrel_protocol::testing::{Fixture, Release};
use whimbrel_protocol::time::UnixTime;

use super::*;
use crate::fleet::catalog::Catalog;
use crate::store::{PayloadFolder, PayloadSpec, UploadError};

/// A payload on the disk, and its number.
struct Shop {
    _data: tempfile::TempDir,
    folder: PayloadFolder,
    catalog: Catalog,
    release: Release,
    number: PayloadNumber,
}

impl Shop {
    fn open(chunk_size_log2: u64, bytes: usize) -> Self {
        let image: Vec<u8> = (0..bytes).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
        let fixture = Fixture::new();
        let release = fixture.release(image, 1, chunk_size_log2);
        let data = tempfile::tempdir().unwrap();
        let folder = PayloadFolder::open(data.path()).unwrap();
        let mut catalog = Catalog::new(10);
        let known =
            crate::fleet::catalog::Release::read(&release.envelope, &fixture.root(), UnixTime::default())
                .unwrap();
        let mut upload = folder.begin(known.payloads[0].spec.clone()).unwrap();
        release.payload.chunks(1000).for_each(|piece| upload.write(piece).unwrap());
        catalog.enter_payload(upload.finish(UnixTime::default()).unwrap());
        let (_, number) = catalog.live(&known)[0];
        Self { _data: data, folder, catalog, release, number }
    }

    fn payload(&self) -> Numbered<'_> {
        Numbered { number: self.number, row: self.catalog.payload(self.number).unwrap() }
    }

    /// Frames until nothing has to be read any more; says how much was read.
    fn frame(
        &self,
        mut framed: impl FnMut() -> Framed,
        frames: &core::cell::RefCell<Frames>,
    ) -> (Bytes, u32) {
        let mut reads = 0;
        loop {
            match framed() {
                Framed::Ready(bytes) => return (bytes, reads),
                Framed::Read(extent) => {
                    reads += 1;
                    let bytes = extent.read(&self.folder, self.payload().row).unwrap().unwrap();
                    frames.borrow_mut().keep(extent, bytes);
                }
            }
        }
    }
}

#[test]
fn every_run_of_chunks_is_framed_as_the_device_expects_it() {
    // The largest payload spans three extents; three chunks a message straddle them.
    for (log2, bytes) in [(10, 1), (10, 5000), (12, 2_500_000), (16, 1_200_000)] {
        let shop = Shop::open(log2, bytes);
        let frames = core::cell::RefCell::new(Frames::new(1 << 20, 8 << 20));
        let layout = shop.release.layout;
        let mut all = Vec::new();
        // No message is larger than 64 KiB.
        let most = if log2 == 16 { 1 } else { 3 };
        for first in (0..layout.chunk_count()).step_by(most as usize) {
            let count = most.min(layout.chunk_count() - first);
            let framed = || frames.borrow_mut().chunks(shop.payload(), ChunkIndex(first), count);
            let (frame, _) = shop.frame(framed, &frames);
            let Ok(Answer::Chunk(message)) = Answer::decode(&frame) else { panic!("{log2} {first}") };
            assert_eq!(message.first, ChunkIndex(first));
            assert!(message.is_of(shop.release.tag()));
            all.extend_from_slice(message.bytes);
        }
        assert_eq!(all, shop.release.payload, "{log2} {bytes}");
    }
}

#[test]
fn a_message_is_framed_once_and_shared_by_all_who_ask_for_it() {
    let shop = Shop::open(12, 50_000);
    let frames = core::cell::RefCell::new(Frames::new(1 << 20, 8 << 20));
    let framed = || frames.borrow_mut().chunks(shop.payload(), ChunkIndex(4), 4);
    let (first, reads) = shop.frame(framed, &frames);
    let (second, reads_again) = shop.frame(framed, &frames);
    assert_eq!((reads, reads_again), (1, 0));
    assert_eq!(frames.borrow().bytes(), (first.len(), 50_000));
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn pages_and_their_list_are_those_that_the_manifest_vouches_for() {
    let shop = Shop::open(10, 600 * 1024);
    let frames = core::cell::RefCell::new(Frames::new(1 << 20, 8 << 20));
    let index = &shop.release.index;
    for (page, want) in [
        (PageNumber::List, &index.list[..]),
        (PageNumber::Page(0), index.page(0)),
        (PageNumber::Page(1), index.page(1)),
    ] {
        let (frame, _) = shop.frame(|| frames.borrow_mut().page(shop.payload(), page), &frames);
        let Ok(Answer::Page(message)) = Answer::decode(&frame) else { panic!("{page:?}") };
        assert_eq!((message.page, message.bytes), (page, want));
    }
}

#[test]
fn a_payload_that_has_rotted_on_the_disk_is_never_served() {
    let shop = Shop::open(12, 50_000);
    let mut frames = Frames::new(1 << 20, 8 << 20);
    let Framed::Read(extent) = frames.chunks(shop.payload(), ChunkIndex(0), 1) else { panic!() };
    let row = *shop.payload().row;
    let path = |extension: &str| shop.folder.path().join(format!("{}.{extension}", row.index));
    for (file, at) in [("payload", 12_345), ("index", 3), ("index", 20)] {
        let intact = std::fs::read(path(file)).unwrap();
        let mut rotten = intact.clone();
        rotten[at] ^= 1;
        std::fs::write(path(file), rotten).unwrap();
        assert_eq!(extent.read(&shop.folder, &row).unwrap(), None, "{file} {at}");
        std::fs::write(path(file), intact).unwrap();
    }
    assert!(extent.read(&shop.folder, &row).unwrap().is_some());
}

#[test]
fn an_upload_that_is_not_the_releases_payload_is_refused_and_nothing_is_kept() {
    let shop = Shop::open(12, 50_000);
    let row = *shop.payload().row;
    let spec = PayloadSpec { index: row.index, layout: row.layout, images: vec![row.image] };
    let payload = &shop.release.payload;
    let files = || std::fs::read_dir(shop.folder.path()).unwrap().count();
    let before = files();

    let mut short = shop.folder.begin(spec.clone()).unwrap();
    short.write(&payload[1..]).unwrap();
    assert!(matches!(short.finish(row.added), Err(UploadError::Size { got: 49_999, want: 50_000 })));

    let mut long = shop.folder.begin(spec.clone()).unwrap();
    long.write(payload).unwrap();
    assert!(matches!(long.write(&[0]), Err(UploadError::Size { .. })));
    drop(long);

    let mut other = shop.folder.begin(spec.clone()).unwrap();
    let mut changed = payload.clone();
    changed[40_000] ^= 1;
    other.write(&changed).unwrap();
    let error = other.finish(row.added).unwrap_err();
    assert!(matches!(error, UploadError::Content { want, .. } if want == row.index), "{error}");

    let broken_off = shop.folder.begin(spec.clone()).unwrap();
    drop(broken_off);
    assert_eq!(files(), before);

    // The right bytes are found to be the second image's, where a release has one for each slot.
    let two = PayloadSpec { images: vec![Digest([9; 32]), row.image], ..spec };
    let mut right = shop.folder.begin(two).unwrap();
    right.write(payload).unwrap();
    assert_eq!(right.finish(row.added).unwrap(), row);
}
