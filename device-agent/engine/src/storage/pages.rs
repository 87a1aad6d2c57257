//! Index pages of the download. They prove themselves against the signed manifest, so that a lost or torn one
//! is merely fetched again.
//!
//! | bytes of the area | content |
//! |---|---|
//! | 0..4 | `WX01` |
//! | 4..8 | zero |
//! | 8..40 | index digest of the payload that the pages belong to |
//! | 64..2112 | the list of page digests, if the payload has more than one page |
//! | 4096 x (n + 1).. | page n |

use alloc::vec;
use alloc::vec::Vec;

use whimbrel_protocol::chunk::{ChunkSalt, Layout, Page, PageList};
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::limits::{PAGE_BYTES_MAX, PAGE_DIGEST_BYTES, PAGE_LIST_BYTES_MAX};
use whimbrel_protocol::message::PageNumber;

const MAGIC: &[u8; 4] = b"WX01";
const HEADER_BYTES: usize = 40;
const LIST_AT: u64 = 64;
const FIRST_PAGE_AT: u64 = 4096;

/// Which pages are kept, and for which payload.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Something may have been written since the last flush.
    unflushed: bool,
}

impl Pages {
    /// Bytes of the area for a payload with this layout.
    pub(crate) fn area_bytes(layout: Layout) -> u64 {
        FIRST_PAGE_AT + u64::from(layout.page_count()) * PAGE_BYTES_MAX as u64
    }

    /// Makes the area the one of the payload with this index digest. `true` if it was before.
    pub(crate) fn begin(&mut self, disk: &mut impl Disk, index: &Digest) -> Result<bool, DiskError> {
        let wanted = header(index);
        let mut found = [0; HEADER_BYTES];
        disk.read(Area::Index, 0, &mut found)?;
        // What a process wrote that was killed since is in the cache and may not be on the medium.
        self.unflushed = true;
        if found == wanted {
            return Ok(true);
        }
        disk.write(Area::Index, 0, &wanted)?;
        Ok(false)
    }

    /// The index digest of the payload that the area belongs to, if it belongs to one.
    pub(crate) fn owner(disk: &mut impl Disk) -> Option<Digest> {
        let mut found = [0; HEADER_BYTES];
        disk.read(Area::Index, 0, &mut found).ok()?;
        let index = Digest(*found.last_chunk()?);
        (found == header(&index)).then_some(index)
    }

    /// Makes the area belong to no payload, durably, so that nothing of the payload is found again.
    pub(crate) fn forget(disk: &mut impl Disk) -> Result<(), DiskError> {
        disk.write(Area::Index, 0, &[0; HEADER_BYTES])?;
        disk.flush(Area::Index)
    }

    /// Keeps a verified page.
    pub(crate) fn write(
        &mut self,
        disk: &mut impl Disk,
        layout: Layout,
        page: PageNumber,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let place = place(layout, page).filter(|(_, len)| *len == bytes.len());
        let Some((offset, _)) = place else {
            return Err(DiskError::range(Area::Index, 0, bytes.len() as u64));
        };
        disk.write(Area::Index, offset, bytes)?;
        self.unflushed = true;
        Ok(())
    }

    /// A page as it is on the medium, not verified.
    pub(crate) fn read(disk: &mut impl Disk, layout: Layout, page: PageNumber) -> Option<Vec<u8>> {
        let (offset, len) = place(layout, page)?;
        let mut bytes = vec![0; len];
        disk.read(Area::Index, offset, &mut bytes).ok()?;
        Some(bytes)
    }

    /// The verified list of page digests, if it is here.
    pub(crate) fn list(
        disk: &mut impl Disk,
        salt: ChunkSalt,
        layout: Layout,
        index: &Digest,
    ) -> Option<PageList> {
        if layout.page_count() == 1 {
            let page = Self::read(disk, layout, PageNumber::Page(0))?;
            return PageList::of_single_page(salt, layout, index, &page);
        }
        let list = Self::read(disk, layout, PageNumber::List)?;
        PageList::verify(salt, layout, index, &list)
    }

    /// The verified page `number`, if it is here.
    pub(crate) fn page(disk: &mut impl Disk, layout: Layout, list: &PageList, number: u32) -> Option<Page> {
        list.verify_page(number, &Self::read(disk, layout, PageNumber::Page(number))?)
    }

    /// Makes durable what was written.
    pub(crate) fn flush(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        if self.unflushed {
            disk.flush(Area::Index)?;
            self.unflushed = false;
        }
        Ok(())
    }
}

fn header(index: &Digest) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let content = MAGIC.iter().chain(&[0; 4]).chain(&index.0);
    header.iter_mut().zip(content).for_each(|(to, from)| *to = *from);
    header
}

/// Where a page is and how long; `None` if the payload has no such page.
fn place(layout: Layout, page: PageNumber) -> Option<(u64, usize)> {
    match page {
        PageNumber::List => Some((LIST_AT, layout.page_count() as usize * PAGE_DIGEST_BYTES)),
        PageNumber::Page(number) if number < layout.page_count() => {
            Some((FIRST_PAGE_AT + u64::from(number) * PAGE_BYTES_MAX as u64, layout.page_len(number)))
        }
        PageNumber::Page(_) => None,
    }
}

const _: () = assert!(LIST_AT + PAGE_LIST_BYTES_MAX as u64 <= FIRST_PAGE_AT);

#[cfg(test)]
mod tests {
    use whimbrel_protocol::testing::{DiskFault, SimDisk, Survival};

    use super::*;

    const INDEX: Digest = Digest([7; 32]);

    /// Three chunks: one page.
    fn layout() -> Layout {
        Layout::new(10, 3000).unwrap()
    }

    fn begun(disk: &mut SimDisk) -> Pages {
        disk.reserve(Area::Index, Pages::area_bytes(layout())).unwrap();
        let mut pages = Pages::default();
        pages.begin(disk, &INDEX).unwrap();
        pages
    }

    fn page() -> Vec<u8> {
        vec![9; layout().page_len(0)]
    }

    fn is_kept(disk: &mut SimDisk) -> bool {
        Pages::owner(disk) == Some(INDEX) && Pages::read(disk, layout(), PageNumber::Page(0)) == Some(page())
    }

    fn is_kept_without_power(disk: &SimDisk) -> bool {
        let mut disk = disk.clone();
        disk.power_cut(Survival::None, 1);
        is_kept(&mut disk)
    }

    #[test]
    fn pages_and_whose_they_are_outlive_a_power_cut_once_they_are_flushed() {
        let mut disk = SimDisk::new();
        let mut pages = begun(&mut disk);
        pages.write(&mut disk, layout(), PageNumber::Page(0), &page()).unwrap();
        assert!(is_kept(&mut disk) && !is_kept_without_power(&disk));
        pages.flush(&mut disk).unwrap();
        assert!(is_kept_without_power(&disk));
    }

    #[test]
    fn a_page_that_came_after_a_flush_is_flushed_by_the_next_one() {
        let mut disk = SimDisk::new();
        let mut pages = begun(&mut disk);
        pages.flush(&mut disk).unwrap();
        pages.write(&mut disk, layout(), PageNumber::Page(0), &page()).unwrap();
        pages.flush(&mut disk).unwrap();
        assert!(is_kept_without_power(&disk));
        let operations = disk.operations();
        pages.flush(&mut disk).unwrap();
        assert_eq!(disk.operations(), operations, "there is nothing to flush");
    }

    /// What a killed process wrote is in the cache only: the process after it writes none of it and flushes it.
    #[test]
    fn pages_of_a_process_that_was_killed_are_flushed_by_the_next_one() {
        let mut disk = SimDisk::new();
        begun(&mut disk).write(&mut disk, layout(), PageNumber::Page(0), &page()).unwrap();
        disk.kill();
        let mut pages = Pages::default();
        assert_eq!(pages.begin(&mut disk, &INDEX), Ok(true));
        pages.flush(&mut disk).unwrap();
        assert!(is_kept_without_power(&disk));
    }

    #[test]
    fn pages_whose_flush_failed_are_not_taken_for_flushed() {
        let mut disk = SimDisk::new();
        let mut pages = begun(&mut disk);
        disk.fail_at(DiskFault::Failed, disk.calls(DiskFault::Failed) + 1, false);
        assert_eq!(pages.flush(&mut disk), Err(DiskError::Failed { area: Area::Index }));
        let operations = disk.operations();
        pages.flush(&mut disk).unwrap();
        assert_eq!(disk.operations(), operations + 1, "it is flushed again");
    }

    #[test]
    fn pages_that_are_forgotten_stay_so_after_a_power_cut() {
        let mut disk = SimDisk::new();
        let mut pages = begun(&mut disk);
        pages.flush(&mut disk).unwrap();
        Pages::forget(&mut disk).unwrap();
        disk.power_cut(Survival::None, 1);
        assert_eq!(Pages::owner(&mut disk), None);
        assert_eq!(Pages::default().begin(&mut disk, &INDEX), Ok(false));
    }

    #[test]
    fn pages_of_another_payload_are_not_its_pages() {
        let mut disk = SimDisk::new();
        begun(&mut disk);
        let other = Digest([8; 32]);
        assert_eq!(Pages::default().begin(&mut disk, &other), Ok(false));
        assert_eq!(Pages::owner(&mut disk), Some(other));
        assert_eq!(Pages::default().begin(&mut disk, &INDEX), Ok(false));
    }
}
