use whimbrel_protocol::ids::ChunkIndex;
use whimbrel_protocol::testing::{Fixture, Release};
use whimbrel_protocol::time::UnixTime;

use super::*;
use crate::store::payloads::list_len;
use crate::store::{PayloadRow, PayloadSpec};

/// A payload of three pages that was uploaded.
struct Shop {
    data: tempfile::TempDir,
    folder: PayloadFolder,
    release: Release,
    row: PayloadRow,
}

impl Shop {
    fn open() -> Self {
        let fixture = Fixture::new();
        let bytes = (0..1_100_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
        let release = fixture.release(bytes.collect(), 1, 10);
        let data = tempfile::tempdir().unwrap();
        let folder = PayloadFolder::open(data.path()).unwrap();
        let image = Digest::of(&release.image);
        let mut upload = folder
            .begin(PayloadSpec {
                index: release.index.digest,
                layout: release.layout,
                images: Vec::from([image]),
            })
            .unwrap();
        upload.write(&release.payload).unwrap();
        let row = upload.finish(UnixTime::default()).unwrap();
        Self { data, folder, release, row }
    }

    fn files(&self) -> [PathBuf; 2] {
        [PayloadPart::Bytes, PayloadPart::Index].map(|part| self.folder.object_path(&self.row.index, part))
    }

    /// Does something while a file holds something else.
    fn while_it_holds(&self, file: &Path, change: impl FnOnce(&mut Vec<u8>), check: impl FnOnce()) {
        let intact = fs::read(file).unwrap();
        let mut changed = intact.clone();
        change(&mut changed);
        fs::write(file, changed).unwrap();
        check();
        fs::write(file, intact).unwrap();
    }
}

#[test]
fn a_payload_is_held_where_both_files_have_their_lengths_and_the_list_is_the_signed_one() {
    let shop = Shop::open();
    assert!(shop.folder.holds(&shop.row));
    for file in shop.files() {
        let held = || shop.folder.holds(&shop.row);
        shop.while_it_holds(
            &file,
            |bytes| bytes.truncate(bytes.len() - 1),
            || assert!(!held(), "cut off: {file:?}"),
        );
        shop.while_it_holds(&file, |bytes| bytes.push(0), || assert!(!held(), "longer: {file:?}"));
        shop.while_it_holds(&file, Vec::clear, || assert!(!held(), "empty: {file:?}"));
        let away = file.with_extension("away");
        fs::rename(&file, &away).unwrap();
        assert!(!held(), "gone: {file:?}");
        fs::rename(&away, &file).unwrap();
        assert!(held());
    }
    let [_, index] = shop.files();
    shop.while_it_holds(&index, |bytes| bytes[0] ^= 1, || assert!(!shop.folder.holds(&shop.row)));
}

#[test]
fn what_is_read_is_what_was_uploaded_wherever_it_begins() {
    let shop = Shop::open();
    let chunks = shop.release.layout.chunk_count();
    assert_eq!(shop.release.layout.page_count(), 3);
    for (first, count) in [(0, 1), (0, chunks), (511, 2), (1023, 1), (1024, 3), (chunks - 1, 1)] {
        let bytes = shop.folder.chunks(&shop.row, ChunkIndex(first), count).unwrap().unwrap();
        let from = first as usize * 1024;
        let to = (from + count as usize * 1024).min(shop.release.payload.len());
        assert!(bytes == shop.release.payload[from..to], "{first} {count}");
    }
    for page in 0..3 {
        assert_eq!(shop.folder.page(&shop.row, page).unwrap().unwrap(), shop.release.index.page(page));
    }
    assert_eq!(shop.folder.list(&shop.row).unwrap().unwrap().bytes(), shop.release.index.list);
}

#[test]
fn damage_is_noticed_where_it_is_and_nowhere_else() {
    let shop = Shop::open();
    let [payload, index] = shop.files();
    let chunk = |first| shop.folder.chunks(&shop.row, ChunkIndex(first), 1).unwrap().is_some();
    let page = |number| shop.folder.page(&shop.row, number).unwrap().is_some();
    shop.while_it_holds(
        &payload,
        |bytes| bytes[600 * 1024] ^= 1,
        || {
            assert!(chunk(599) && !chunk(600) && chunk(601));
            assert_eq!(shop.folder.chunks(&shop.row, ChunkIndex(590), 20).unwrap(), None);
        },
    );
    let list_bytes = usize::try_from(list_len(&shop.row.layout)).unwrap();
    shop.while_it_holds(
        &index,
        |bytes| bytes[list_bytes + shop.release.index.page(0).len()] ^= 1,
        || {
            assert!(page(0) && !page(1) && page(2));
            assert!(chunk(511) && !chunk(512) && chunk(1024), "the second page vouches for nothing");
        },
    );
}

#[test]
fn an_upload_that_was_cut_off_is_removed_at_the_next_start_and_nothing_else() {
    let shop = Shop::open();
    let left = shop.folder.path().join(format!("{}-0.part", shop.row.index));
    let left_too = shop.folder.path().join(format!("{}-0.index.part", shop.row.index));
    fs::write(&left, "half").unwrap();
    fs::write(&left_too, "half").unwrap();
    let again = PayloadFolder::open(shop.data.path()).unwrap();
    assert!(!left.exists() && !left_too.exists());
    assert!(again.holds(&shop.row));
}
