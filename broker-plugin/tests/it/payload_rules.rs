//! The rules for where payloads are kept, which hold for every implementation: one suite, run for each of them.

use std::fs;

use whimbrel_protocol::ids::{ChunkIndex, Digest};
use whimbrel_protocol::testing::{Fixture, Release};
use whimbrel_protocol::time::UnixTime;
use whimbrel_service::store::{
    MemoryPayloads, PayloadFolder, PayloadPart, PayloadRow, PayloadSpec, Payloads, UploadError,
};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// Where payloads are kept, and a way to spoil them there.
trait Place {
    fn payloads(&self) -> &dyn Payloads;

    fn damage(&self, index: &Digest, part: PayloadPart, damage: &dyn Fn(&mut Vec<u8>));
}

struct Folder {
    _data: tempfile::TempDir,
    payloads: PayloadFolder,
}

impl Folder {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let payloads = PayloadFolder::open(data.path()).unwrap();
        Self { _data: data, payloads }
    }
}

impl Place for Folder {
    fn payloads(&self) -> &dyn Payloads {
        &self.payloads
    }

    fn damage(&self, index: &Digest, part: PayloadPart, damage: &dyn Fn(&mut Vec<u8>)) {
        let extension = if part == PayloadPart::Bytes { "payload" } else { "index" };
        let path = self.payloads.path().join(format!("{index}.{extension}"));
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

impl Place for MemoryPayloads {
    fn payloads(&self) -> &dyn Payloads {
        self
    }

    fn damage(&self, index: &Digest, part: PayloadPart, damage: &dyn Fn(&mut Vec<u8>)) {
        Self::damage(self, index, part, damage);
    }
}

/// Makes a test of each rule for each implementation.
macro_rules! rules {
    ($($name:ident,)*) => {
        mod folder {
            $(#[test]
            fn $name() {
                super::$name(&super::Folder::new());
            })*
        }

        mod memory {
            $(#[test]
            fn $name() {
                super::$name(&super::MemoryPayloads::default());
            })*
        }
    };
}

rules! {
    what_is_read_is_what_was_uploaded_wherever_it_begins,
    damage_is_noticed_where_it_is_and_nowhere_else,
    a_payload_is_there_whole_or_not_at_all,
    only_the_payload_that_the_release_names_is_kept,
}

/// A release whose payload has three pages, and what is to be uploaded of it.
fn release() -> (Release, PayloadSpec) {
    let bytes = (0..1_100_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    let release = Fixture::new().release(bytes.collect(), 1, 10);
    let images = vec![Digest([9; 32]), Digest::of(&release.image)];
    let spec = PayloadSpec { index: release.index.digest, layout: release.layout, images };
    (release, spec)
}

fn upload(place: &impl Place) -> (Release, PayloadRow) {
    let (release, spec) = release();
    let mut upload = place.payloads().begin(spec).unwrap();
    release.payload.chunks(70_000).for_each(|piece| upload.write(piece).unwrap());
    let row = upload.finish(NOW).unwrap();
    assert_eq!((row.image, row.added), (Digest::of(&release.image), NOW));
    (release, row)
}

fn what_is_read_is_what_was_uploaded_wherever_it_begins(place: &impl Place) {
    let (release, row) = upload(place);
    let payloads = place.payloads();
    assert!(payloads.holds(&row));
    let chunks = release.layout.chunk_count();
    for (first, count) in [(0, 1), (0, chunks), (511, 2), (1023, 1), (1024, 3), (chunks - 1, 1)] {
        let bytes = payloads.chunks(&row, ChunkIndex(first), count).unwrap().unwrap();
        let from = first as usize * 1024;
        let to = (from + count as usize * 1024).min(release.payload.len());
        assert!(bytes == release.payload[from..to], "{first} {count}");
    }
    for page in 0..3 {
        assert_eq!(payloads.page(&row, page).unwrap().unwrap(), release.index.page(page));
    }
    assert_eq!(payloads.list(&row).unwrap().unwrap().bytes(), release.index.list);
}

fn damage_is_noticed_where_it_is_and_nowhere_else(place: &impl Place) {
    let (release, row) = upload(place);
    let payloads = place.payloads();
    let chunk = |first| payloads.chunks(&row, ChunkIndex(first), 1).unwrap().is_some();
    let flip = |part, at: usize| place.damage(&row.index, part, &move |bytes| bytes[at] ^= 1);
    flip(PayloadPart::Bytes, 600 * 1024);
    assert!(chunk(599) && !chunk(600) && chunk(601));
    flip(PayloadPart::Bytes, 600 * 1024);
    assert!(chunk(600));
    let second_page = release.index.list.len() + release.index.page(0).len();
    flip(PayloadPart::Index, second_page);
    let page = |number| payloads.page(&row, number).unwrap().is_some();
    assert!(page(0) && !page(1) && page(2));
    assert!(chunk(511) && !chunk(512) && chunk(1024), "the second page vouches for nothing");
    assert!(payloads.holds(&row), "pages are looked at when they are read");
    flip(PayloadPart::Index, 0);
    assert!(!payloads.holds(&row), "the list is looked at at once");
}

fn a_payload_is_there_whole_or_not_at_all(place: &impl Place) {
    let (release, spec) = release();
    let payloads = place.payloads();
    let lengths = || [PayloadPart::Bytes, PayloadPart::Index].map(|part| payloads.len(&spec.index, part));
    let mut broken_off = payloads.begin(spec.clone()).unwrap();
    broken_off.write(&release.payload[..500_000]).unwrap();
    assert_eq!(lengths(), [0, 0]);
    drop(broken_off);
    assert_eq!(lengths(), [0, 0]);
    assert!(payloads.read(&spec.index, PayloadPart::Bytes, 0, 1).is_err());
    let (_, row) = upload(place);
    for part in [PayloadPart::Bytes, PayloadPart::Index] {
        let whole = payloads.len(&row.index, part);
        assert!(payloads.read(&row.index, part, whole - 1, 1).is_ok());
        assert!(payloads.read(&row.index, part, whole - 1, 2).is_err(), "it ends before");
        place.damage(&row.index, part, &|bytes| bytes.truncate(bytes.len() - 1));
        assert!(!payloads.holds(&row), "cut off: {part:?}");
        place.damage(&row.index, part, &|bytes| bytes.push(0));
    }
}

fn only_the_payload_that_the_release_names_is_kept(place: &impl Place) {
    let (release, spec) = release();
    let payloads = place.payloads();
    let (payload, want) = (&release.payload, spec.layout.transfer_size());
    let mut short = payloads.begin(spec.clone()).unwrap();
    short.write(&payload[1..]).unwrap();
    assert!(matches!(short.finish(NOW), Err(UploadError::Size { got, .. }) if got == want - 1));
    let mut long = payloads.begin(spec.clone()).unwrap();
    long.write(payload).unwrap();
    assert!(matches!(long.write(&[0]), Err(UploadError::Size { .. })));
    let mut other = payloads.begin(spec.clone()).unwrap();
    let mut changed = payload.clone();
    changed[40_000] ^= 1;
    other.write(&changed).unwrap();
    assert!(matches!(other.finish(NOW), Err(UploadError::Content { want, .. }) if want == spec.index));
    assert_eq!(payloads.len(&spec.index, PayloadPart::Bytes), 0);
}
