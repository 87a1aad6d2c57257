//! ELF files, alone or inside an image of many files (ext4, uncompressed squashfs, tar, cpio).
//!
//! A file in such an image lies in one piece, or nearly; so it is found by its first bytes, wherever it is.

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

use whimbrel_protocol::patch::{Architecture, SEGMENTS_MAX, Segment};

/// An ELF file in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ElfFile {
    /// Its first byte in the image.
    pub(super) start: usize,
    /// Bytes, as far as its headers tell.
    pub(super) len: usize,
    /// Whose code it holds.
    pub(super) architecture: Architecture,
    /// Whether its addresses have 64 bits.
    pub(super) wide: bool,
    /// What of it is loaded, with offsets from the start of the image.
    pub(super) segments: Vec<Segment>,
}

/// Smaller files are not worth the words that a region takes.
const FILE_BYTES_MIN: usize = 4096;
const MAGIC: &[u8] = b"\x7fELF";
const PROGRAM_LOAD: u64 = 1;

/// The files in `image`, in order; none within another.
pub(super) fn files(image: &[u8]) -> Vec<ElfFile> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = find(&image[at..]) {
        at += step;
        match file(image, at) {
            Some(file) => {
                at += file.len;
                found.push(file);
            }
            None => at += MAGIC.len(),
        }
    }
    found
}

fn find(image: &[u8]) -> Option<usize> {
    image.windows(MAGIC.len()).position(|window| window == MAGIC)
}

/// The file that begins at `start`, where what its headers say is possible.
fn file(image: &[u8], start: usize) -> Option<ElfFile> {
    let bytes = &image[start..];
    let wide = match bytes.get(4)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    if *bytes.get(5)? != 1 {
        // Big-endian code is not predicted.
        return None;
    }
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let architecture = match number(18, 2)? {
        183 => Architecture::Arm64,
        // Which instructions an ARM file holds mostly, its entry tells where it is a program.
        40 if number(24, 4)? & 1 == 0 && number(24, 4)? != 0 => Architecture::Arm,
        40 => Architecture::Thumb,
        243 => Architecture::RiscV,
        62 => Architecture::X86,
        _ => Architecture::None,
    };
    let word = if wide { 8 } else { 4 };
    let (programs, sections) = if wide { (32, 40) } else { (28, 32) };
    let counts = if wide { 54 } else { 42 };
    let table = number(programs, word)?;
    let (size, count) = (number(counts, 2)?, number(counts + 2, 2)?);
    let section_end = number(sections, word)?.checked_add(number(counts + 4, 2)? * number(counts + 6, 2)?)?;
    let mut end = section_end;
    let mut segments = Vec::new();
    for n in 0..count.min(64) {
        let at = usize::try_from(table.checked_add(n * size)?).ok()?;
        let (offset, address, len) = if wide { (8, 16, 32) } else { (4, 8, 16) };
        let (offset, address, len) =
            (number(at + offset, word)?, number(at + address, word)?, number(at + len, word)?);
        if number(at, 4)? != PROGRAM_LOAD || len == 0 {
            continue;
        }
        end = end.max(offset.checked_add(len)?);
        let offset = u32::try_from(offset.checked_add(start as u64)?).ok()?;
        segments.push(Segment { offset, address, len: u32::try_from(len).ok()? });
    }
    segments.truncate(SEGMENTS_MAX);
    let len = usize::try_from(end).ok()?;
    let fits = len >= FILE_BYTES_MIN && len <= bytes.len() && !segments.is_empty();
    fits.then_some(ElfFile { start, len, architecture, wide, segments })
}
