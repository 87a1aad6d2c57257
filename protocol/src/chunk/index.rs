//! The paged index of chunk digests.
//!
//! A chunk digest is the first 8 bytes of a SHA-256 that is salted with the image. It is short, so that an
//! index costs little. The salt binds it to one image, so that the work of finding a collision helps for that
//! image only. If somebody finds one all the same, the image's full digest, which decides in the end, does
//! not match. Page digests of 16 bytes prove pages of 512 chunk digests; the index digest in the signed
//! manifest proves the list of page digests.

use alloc::boxed::Box;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::Layout;
use crate::ids::{ChunkIndex, Digest, PayloadTag};
use crate::limits::{CHUNK_DIGEST_BYTES, PAGE_DIGEST_BYTES};

/// What binds the digests of chunks and pages to one payload of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSalt {
    /// SHA-256 of the image that the payload becomes.
    pub image: Digest,
    /// Bytes of the payload as transferred.
    pub transfer_size: u64,
}

/// Numbers from here on are pages, numbers below are chunks, so that no digest of a chunk is ever one of a
/// page.
const PAGE_NUMBERS: u32 = 0x8000_0000;
/// The number of the list of page digests.
const LIST_NUMBER: u32 = 0xffff_ffff;

impl ChunkSalt {
    /// `SHA-256(image digest || transfer size u64 || number u32 || bytes)`, big-endian (SPEC section 6.2).
    fn digest(&self, number: u32, bytes: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.image.0);
        hash.update(self.transfer_size.to_be_bytes());
        hash.update(number.to_be_bytes());
        hash.update(bytes);
        hash.finalize().into()
    }

    /// The digest of `chunk` with content `bytes`.
    #[must_use]
    pub fn chunk_digest(&self, chunk: ChunkIndex, bytes: &[u8]) -> [u8; CHUNK_DIGEST_BYTES] {
        truncate(&self.digest(chunk.0, bytes))
    }

    /// The digest of index page `page` with content `bytes`.
    #[must_use]
    pub fn page_digest(&self, page: u32, bytes: &[u8]) -> [u8; PAGE_DIGEST_BYTES] {
        truncate(&self.digest(PAGE_NUMBERS | page, bytes))
    }

    /// The index digest that the manifest names: the digest of the list of page digests.
    #[must_use]
    pub fn index_digest(&self, list: &[u8]) -> Digest {
        Digest(self.digest(LIST_NUMBER, list))
    }
}

fn truncate<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    let mut short = [0; N];
    short.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    short
}

impl PayloadTag {
    /// The short name of the payload with this index digest.
    #[must_use]
    pub fn of(index: &Digest) -> Self {
        Self(truncate(&index.0))
    }
}

/// A page of chunk digests that was checked against the signed manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    number: u32,
    digests: Box<[u8]>,
}

impl Page {
    /// The digest of `chunk`, or `None` if it belongs to another page.
    #[must_use]
    pub fn chunk_digest(&self, chunk: ChunkIndex) -> Option<&[u8]> {
        if Layout::page_of(chunk) != self.number {
            return None;
        }
        let at = (chunk.0 % crate::limits::PAGE_CHUNKS) as usize * CHUNK_DIGEST_BYTES;
        self.digests.get(at..at + CHUNK_DIGEST_BYTES)
    }
}

/// The list of page digests that was checked against the signed manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageList {
    salt: ChunkSalt,
    layout: Layout,
    bytes: Box<[u8]>,
}

impl PageList {
    /// Checks `list` against the index digest from the manifest; `None` if it does not match.
    #[must_use]
    pub fn verify(salt: ChunkSalt, layout: Layout, index: &Digest, list: &[u8]) -> Option<Self> {
        let right_size = list.len() == layout.page_count() as usize * PAGE_DIGEST_BYTES;
        (right_size && salt.index_digest(list) == *index).then(|| Self { salt, layout, bytes: list.into() })
    }

    /// The list of a payload with a single page. It is the digest of that page, so that no message is needed
    /// for it.
    #[must_use]
    pub fn of_single_page(salt: ChunkSalt, layout: Layout, index: &Digest, page: &[u8]) -> Option<Self> {
        Self::verify(salt, layout, index, &salt.page_digest(0, page))
    }

    /// The list's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks the content of page `number`; `None` if it does not match.
    #[must_use]
    pub fn verify_page(&self, number: u32, bytes: &[u8]) -> Option<Page> {
        let at = number as usize * PAGE_DIGEST_BYTES;
        let want = self.bytes.get(at..at + PAGE_DIGEST_BYTES)?;
        let right_size = bytes.len() == self.layout.page_len(number);
        (right_size && self.salt.page_digest(number, bytes) == want)
            .then(|| Page { number, digests: bytes.into() })
    }
}

/// The index of a payload, as its maker computes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The chunk digests, page after page.
    pub pages: Vec<u8>,
    /// The page digests.
    pub list: Vec<u8>,
    /// What the manifest signs.
    pub digest: Digest,
}

impl Index {
    /// Computes the index of `payload`, whose length must be the layout's.
    #[must_use]
    pub fn build(salt: ChunkSalt, layout: Layout, payload: &[u8]) -> Self {
        debug_assert_eq!(payload.len() as u64, layout.transfer_size());
        let chunks = payload.chunks(1 << layout.chunk_size_log2());
        let pages: Vec<u8> = (0..)
            .zip(chunks)
            .flat_map(|(chunk, bytes)| salt.chunk_digest(ChunkIndex(chunk), bytes))
            .collect();
        let list: Vec<u8> = (0..)
            .zip(pages.chunks(crate::limits::PAGE_BYTES_MAX))
            .flat_map(|(page, bytes)| salt.page_digest(page, bytes))
            .collect();
        let digest = salt.index_digest(&list);
        Self { pages, list, digest }
    }

    /// The bytes of page `number`; empty beyond the last.
    #[must_use]
    pub fn page(&self, number: u32) -> &[u8] {
        let at = number as usize * crate::limits::PAGE_BYTES_MAX;
        let page = self.pages.get(at..).unwrap_or_default();
        page.get(..crate::limits::PAGE_BYTES_MAX).unwrap_or(page)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn payload(chunks: u64) -> (ChunkSalt, Layout, Vec<u8>) {
        let bytes: Vec<u8> =
            (0..chunks * 1024 - 100).map(|i| (i * i / 128 % 251).try_into().unwrap()).collect();
        let layout = Layout::new(10, bytes.len() as u64).unwrap();
        (ChunkSalt { image: Digest::of(&bytes), transfer_size: bytes.len() as u64 }, layout, bytes)
    }

    #[test]
    fn every_chunk_is_proved_by_its_page_and_every_page_by_the_list() {
        let (salt, layout, bytes) = payload(1030);
        let index = Index::build(salt, layout, &bytes);
        let list = PageList::verify(salt, layout, &index.digest, &index.list).unwrap();
        for (number, chunk) in bytes.chunks(1024).enumerate() {
            let chunk_index = ChunkIndex(number.try_into().unwrap());
            let page =
                list.verify_page(Layout::page_of(chunk_index), index.page(Layout::page_of(chunk_index)));
            assert_eq!(
                page.unwrap().chunk_digest(chunk_index).unwrap(),
                salt.chunk_digest(chunk_index, chunk)
            );
        }
    }

    #[test]
    fn a_changed_page_or_list_is_refused() {
        let (salt, layout, bytes) = payload(1030);
        let index = Index::build(salt, layout, &bytes);
        let list = PageList::verify(salt, layout, &index.digest, &index.list).unwrap();
        let mut page = index.page(1).to_vec();
        page[7] ^= 1;
        assert_eq!(list.verify_page(1, &page), None);
        assert_eq!(list.verify_page(0, index.page(1)), None);
        assert_eq!(list.verify_page(3, &[]), None);
        let mut other = index.list.clone();
        other[0] ^= 1;
        assert_eq!(PageList::verify(salt, layout, &index.digest, &other), None);
    }

    #[test]
    fn a_single_page_needs_no_list() {
        let (salt, layout, bytes) = payload(3);
        let index = Index::build(salt, layout, &bytes);
        let list = PageList::of_single_page(salt, layout, &index.digest, index.page(0)).unwrap();
        assert_eq!(list.bytes(), index.list);
    }

    #[test]
    fn digests_are_the_first_bytes_of_the_hash_that_the_specification_says() {
        let (salt, ..) = payload(3);
        let hash = |number: u32, bytes: &[u8]| -> [u8; 32] {
            let size = salt.transfer_size.to_be_bytes();
            Sha256::digest([&salt.image.0[..], &size, &number.to_be_bytes(), bytes].concat()).into()
        };
        let (chunk, list) = ([7; 1024], [9; 32]);
        assert_eq!(salt.chunk_digest(ChunkIndex(300), &chunk)[..], hash(300, &chunk)[..8]);
        assert_eq!(salt.page_digest(3, &chunk)[..], hash(0x8000_0003, &chunk)[..16]);
        assert_eq!(salt.index_digest(&list).0, hash(0xffff_ffff, &list));
    }

    #[test]
    fn every_byte_of_the_index_digest_counts() {
        let (salt, layout, bytes) = payload(3);
        let index = Index::build(salt, layout, &bytes);
        for byte in 0..32 {
            let mut other = index.digest;
            other.0[byte] ^= 1;
            assert_eq!(PageList::verify(salt, layout, &other, &index.list), None, "byte {byte}");
            assert_eq!(PageList::of_single_page(salt, layout, &other, index.page(0)), None, "byte {byte}");
        }
    }

    #[test]
    fn every_byte_of_a_page_digest_counts() {
        let (salt, layout, bytes) = payload(1030);
        let index = Index::build(salt, layout, &bytes);
        for byte in 0..PAGE_DIGEST_BYTES {
            // The list itself is signed; only the page differs from what the list says.
            let mut list = index.list.clone();
            list[PAGE_DIGEST_BYTES + byte] ^= 1;
            let list = PageList::verify(salt, layout, &salt.index_digest(&list), &list).unwrap();
            assert_eq!(list.verify_page(1, index.page(1)), None, "byte {byte}");
            assert!(
                list.verify_page(0, index.page(0)).is_some() && list.verify_page(2, index.page(2)).is_some()
            );
        }
    }

    #[test]
    fn a_page_or_list_that_is_too_short_or_too_long_is_refused() {
        let (salt, layout, bytes) = payload(1030);
        let index = Index::build(salt, layout, &bytes);
        let list = PageList::verify(salt, layout, &index.digest, &index.list).unwrap();
        for changed in [&index.list[..32], &[&index.list[..], &[0; 16]].concat()] {
            assert_eq!(PageList::verify(salt, layout, &salt.index_digest(changed), changed), None);
        }
        // The last page has 6 digests. A page of another length has the right digest only if that was signed.
        for len in [0, 40, 56] {
            let page = vec![5; len];
            let mut signed = index.list.clone();
            signed[32..].copy_from_slice(&salt.page_digest(2, &page));
            let signed = PageList::verify(salt, layout, &salt.index_digest(&signed), &signed).unwrap();
            assert_eq!(signed.verify_page(2, &page), None, "{len}");
        }
        assert_eq!(list.verify_page(2, index.page(2)).unwrap().chunk_digest(ChunkIndex(511)), None);
    }

    /// The work of finding two chunks with the same digest helps for one image only.
    #[test]
    fn digests_are_salted_with_image_size_and_number() {
        let (salt, ..) = payload(3);
        let chunk = vec![7; 1024];
        let digest = salt.chunk_digest(ChunkIndex(0), &chunk);
        assert_ne!(digest, salt.chunk_digest(ChunkIndex(1), &chunk));
        let other_image = ChunkSalt { image: Digest::of(b"other"), ..salt };
        assert_ne!(digest, other_image.chunk_digest(ChunkIndex(0), &chunk));
        let other_size = ChunkSalt { transfer_size: salt.transfer_size + 1, ..salt };
        assert_ne!(digest, other_size.chunk_digest(ChunkIndex(0), &chunk));
    }
}
