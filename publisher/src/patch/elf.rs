//! Finds ELF files, alone or inside an image of many files (ext4, uncompressed squashfs, tar, cpio).
//!
//! In most such images a file lies in one piece, so that it is found by its first bytes, wherever it is. In an ext4
//! file system it may lie in several pieces; there its extents say where they are.

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
    /// Its parts that are loaded, with offsets from the start of the image.
    pub(super) segments: Vec<Segment>,
}

/// Smaller files are left out, because a region for them would cost more than it saves.
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

/// Reads the file that lies in these pieces; `None` if its headers say something impossible.
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
        // The entry point of an ARM program tells which instructions the file mostly holds.
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
    // The longest segments are the most useful ones.
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

/// The part of a loaded range of a file that lies in a piece.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of 64 bits for `machine` with one segment of everything at `address`.
    fn elf(machine: u16, address: u64, len: usize) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(len, 0x5a);
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(18, &machine.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        // Section headers of no bytes at the end.
        put(40, &(len as u64).to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &1_u16.to_le_bytes());
        put(58, &[0; 4]);
        put(64, &1_u32.to_le_bytes());
        put(72, &0_u64.to_le_bytes());
        put(80, &address.to_le_bytes());
        put(96, &(len as u64).to_le_bytes());
        file
    }

    #[test]
    fn files_are_found_wherever_they_are_with_their_addresses() {
        let (one, other) = (elf(183, 0x40_0000, 5000), elf(62, 0, 9000));
        let image = [&b"head"[..], &one, b"\x7fELF is no file", &other, b"tail"].concat();
        let found = files(&image);
        let second = 4 + 5000 + 15;
        let segment = |offset, address, len| vec![Segment { offset, address, len }];
        assert_eq!(
            found,
            [
                ElfFile {
                    start: 4,
                    len: 5000,
                    architecture: Architecture::Arm64,
                    wide: true,
                    segments: segment(4, 0x40_0000, 5000),
                },
                ElfFile {
                    start: second,
                    len: 9000,
                    architecture: Architecture::X86,
                    wide: true,
                    segments: segment(u32::try_from(second).unwrap(), 0, 9000),
                },
            ]
        );
    }

    #[test]
    fn headers_that_lead_nowhere_are_no_file() {
        let good = elf(183, 0x1000, 6000);
        for at in 0..120 {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            for cut in [0, at, 64, 100, 4096, bad.len()] {
                assert!(files(&bad[..cut]).len() <= 1);
            }
        }
        assert!(files(&good[..5000]).is_empty());
        assert_eq!(files(&good).len(), 1);
    }

    #[test]
    fn a_range_is_laid_over_the_pieces_of_its_file() {
        let piece = Piece { in_file: 4096, in_image: 50_000, len: 8192 };
        let segment = |offset, address, len| Some(Segment { offset, address, len });
        assert_eq!(part(&piece, 0, 0x1000, 20_000), segment(50_000, 0x2000, 8192));
        assert_eq!(part(&piece, 6000, 0x1000, 100), segment(51_904, 0x1000, 100));
        assert_eq!(part(&piece, 0, 0x1000, 4096), None);
        assert_eq!(part(&piece, 20_000, 0x1000, 100), None);
    }
}
