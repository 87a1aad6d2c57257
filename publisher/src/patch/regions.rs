//! Divides the new image into regions: parts of it that are predicted with one architecture and one set of
//! addresses.

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

use whimbrel_protocol::patch::{Architecture, Entry, Region, Segment};

use super::elf::{self, ElfFile};
use super::flat;

/// What is known of the images before they are divided.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) architecture: Option<Architecture>,
    pub(super) load_address: Option<u64>,
}

/// Possible divisions of the new image into regions, without their entries. All are tried; the smallest patch
/// wins.
pub(super) fn candidates(old: &[u8], new: &[u8], found: &[Entry], known: Known) -> Vec<Vec<Region>> {
    let (old_files, new_files) = (elf::files(old), elf::files(new));
    if !new_files.is_empty() && !old_files.is_empty() {
        let regions = of_files(old, new, found, &old_files, &new_files, known);
        if regions.iter().any(|region| region.architecture != Architecture::None) {
            return thumb_or_arm(regions, known);
        }
    }
    let architectures = match known.architecture {
        Some(architecture) => vec![architecture],
        None => flat::architectures(new),
    };
    architectures.into_iter().map(|architecture| vec![flat_region(old, new, architecture, known)]).collect()
}

fn small(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn flat_region(old: &[u8], new: &[u8], architecture: Architecture, known: Known) -> Region {
    let (before, after) = (flat::look(old, architecture), flat::look(new, architecture));
    let segment = |image: &[u8], found: u64| Segment {
        offset: 0,
        address: known.load_address.unwrap_or(found),
        len: small(image.len()),
    };
    Region {
        len: small(new.len()),
        architecture,
        wide: after.wide,
        old: vec![segment(old, before.load_address)],
        new: vec![segment(new, after.load_address)],
        memory: after.memory,
        entries: 0,
    }
}

/// An ELF file of ARM may hold either kind of instructions. If nobody says which, both are tried.
fn thumb_or_arm(regions: Vec<Region>, known: Known) -> Vec<Vec<Region>> {
    let is_arm = |region: &Region| matches!(region.architecture, Architecture::Thumb | Architecture::Arm);
    if known.architecture.is_some() || !regions.iter().any(is_arm) || regions.len() > 1 {
        return vec![regions];
    }
    let as_one = |architecture| {
        let one = |region: &Region| {
            let architecture = if is_arm(region) { architecture } else { region.architecture };
            Region { architecture, ..region.clone() }
        };
        regions.iter().map(one).collect()
    };
    vec![as_one(Architecture::Thumb), as_one(Architecture::Arm)]
}

/// Makes a region for each file that has changed and has a predecessor, and regions without prediction
/// between them.
fn of_files(
    old: &[u8],
    new: &[u8],
    found: &[Entry],
    old_files: &[ElfFile],
    new_files: &[ElfFile],
    known: Known,
) -> Vec<Region> {
    let mut regions = Vec::new();
    let mut end = 0;
    let plain = |len: usize| Region { len: small(len), ..Region::default() };
    for file in new_files {
        let Some(before) = predecessor(old, new, found, old_files, file) else {
            continue;
        };
        // If one file is the whole image, the bytes around it belong to it too.
        let alone = new_files.len() == 1 && file.start == 0;
        let len = if alone { new.len() } else { file.len };
        if file.start > end {
            regions.push(plain(file.start - end));
        }
        end = file.start + len;
        regions.push(Region {
            len: small(len),
            architecture: known.architecture.unwrap_or(file.architecture),
            wide: file.wide,
            old: before.segments.clone(),
            new: file.segments.clone(),
            memory: [0; 2],
            entries: 0,
        });
    }
    if end < new.len() {
        regions.push(plain(new.len() - end));
    }
    regions
}

/// The file of the old image that most of `file` is made from; `None` if nothing of `file` has changed.
fn predecessor<'f>(
    old: &[u8],
    new: &[u8],
    found: &[Entry],
    old_files: &'f [ElfFile],
    file: &ElfFile,
) -> Option<&'f ElfFile> {
    let (start, end) = (file.start, file.start + file.len);
    let from = found.partition_point(|entry| entry.new as usize + entry.len as usize <= start);
    let within = || found[from..].iter().take_while(|entry| (entry.new as usize) < end);
    let (mut same, mut bytes) = (0, vec![0_usize; old_files.len()]);
    for entry in within() {
        let skip = start.saturating_sub(entry.new as usize);
        let len = (entry.len as usize - skip).min(end - entry.new as usize - skip);
        let (at, to) = (entry.old as usize + skip, entry.new as usize + skip);
        if old[at..at + len] == new[to..to + len] {
            same += len;
        }
        let file = old_files.partition_point(|other| other.start + other.len <= at);
        if let (Some(count), Some(other)) = (bytes.get_mut(file), old_files.get(file))
            && other.start <= at
        {
            *count += len;
        }
    }
    if same == file.len {
        return None;
    }
    let (best, count) = bytes.iter().enumerate().max_by_key(|(_, count)| **count)?;
    (*count > 0).then(|| &old_files[best])
}

/// Gives each region its entries. An entry that goes over the end of a region is cut there.
pub(super) fn assign(regions: &mut [Region], found: &[Entry]) -> Vec<Entry> {
    let mut assigned = Vec::with_capacity(found.len());
    let (mut start, mut waiting) = (0_u32, found.iter().copied().peekable());
    let mut rest: Option<Entry> = None;
    for region in regions {
        let end = start + region.len;
        let before = assigned.len();
        while let Some(entry) = rest.take().or_else(|| waiting.next_if(|entry| entry.new < end)) {
            if entry.new >= end {
                rest = Some(entry);
                break;
            }
            let len = entry.len.min(end - entry.new);
            assigned.push(Entry { len, ..entry });
            if len < entry.len {
                rest = Some(Entry { old: entry.old + len, new: end, len: entry.len - len });
                break;
            }
        }
        region.entries = small(assigned.len() - before);
        start = end;
    }
    assigned
}
