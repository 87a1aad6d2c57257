//! ELF files, alone or inside an image of many files (ext4, uncompressed squashfs, tar, cpio).
//!
//! In most such images a file lies in one piece; so it is found by its first bytes, wherever it is. An ext4 file system
//! is asked for its extents.

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

use whimbrel_protocol::patch::{Architecture, SEGMENTS_MAX, Segment};

use super::ext4::{self, Piece};

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
    if let Some(files) = ext4::files(image) {
        let mut found: Vec<ElfFile> = files.iter().filter_map(|pieces| file(image, pieces)).collect();
        found.sort_by_key(|file| file.start);
        let mut end = 0;
        found.retain(|file| {
            let free = file.start >= end;
            end = if free { file.start + file.len } else { end };
            free
        });
        return found;
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = find(&image[at..]) {
        at += step;
        let whole = Piece { in_file: 0, in_image: at as u64, len: (image.len() - at) as u64 };
        match file(image, &[whole]) {
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

/// The file in these pieces, where what its headers say is possible.
fn file(image: &[u8], pieces: &[Piece]) -> Option<ElfFile> {
    let (first, last) = (pieces.first()?, pieces.last()?);
    let start = usize::try_from(first.in_image).ok()?;
    let head = image.get(start..start.checked_add(usize::try_from(first.len).ok()?)?)?;
    let ascending = pieces.windows(2).all(|pair| pair[0].in_image + pair[0].len <= pair[1].in_image);
    if !head.starts_with(MAGIC) || first.in_file != 0 || !ascending {
        return None;
    }
    let wide = match head.get(4)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    if *head.get(5)? != 1 {
        // Big-endian code is not predicted.
        return None;
    }
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(len)?)?;
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
        segments.extend(pieces.iter().filter_map(|piece| part(piece, offset, address, len)));
    }
    // The longest tell most.
    segments.sort_by_key(|segment| core::cmp::Reverse(segment.len));
    segments.truncate(SEGMENTS_MAX);
    segments.sort_by_key(|segment| segment.offset);
    let len = match pieces {
        [only] => usize::try_from(end).ok().filter(|len| *len as u64 <= only.len)?,
        _ => usize::try_from(last.in_image + last.len - first.in_image).ok()?,
    };
    (len >= FILE_BYTES_MIN && !segments.is_empty()).then_some(ElfFile {
        start,
        len,
        architecture,
        wide,
        segments,
    })
}

/// What of a loaded range of a file lies in a piece.
fn part(piece: &Piece, offset: u64, address: u64, len: u64) -> Option<Segment> {
    let start = offset.max(piece.in_file);
    let end = offset.checked_add(len)?.min(piece.in_file.checked_add(piece.len)?);
    let bytes = end.checked_sub(start).filter(|bytes| *bytes > 0)?;
    Some(Segment {
        offset: u32::try_from(piece.in_image + (start - piece.in_file)).ok()?,
        address: address.checked_add(start - offset)?,
        len: u32::try_from(bytes).ok()?,
    })
}
