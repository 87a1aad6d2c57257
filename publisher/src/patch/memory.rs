//! Divides the memory of a decoder between its dictionary, its models, its map and its table.

use whimbrel_protocol::patch::{Entry, Header, Tuning};

/// Divisions of `memory_bytes` to try, the most promising first. Each gives the rest of the memory to the
/// match map, up to `entries`.
pub(super) fn divisions(header: &Header, memory_bytes: u32, entries: u32) -> Vec<Tuning> {
    let image = u32::try_from(header.image.size).unwrap_or(u32::MAX).max(256);
    let enough = u8::try_from(image.next_power_of_two().ilog2()).unwrap_or(31);
    let mut found = Vec::new();
    for (dictionary, literals, flags, bytes, table) in SHAPES {
        let tuning = Tuning {
            dictionary_log2: dictionary.min(enough).max(8),
            literals_log2: literals,
            flags_log2: flags,
            bytes_log2: bytes,
            map_entries: 0,
            table_entries: table,
        };
        let rest = memory_bytes.checked_sub(Header { tuning, ..*header }.memory_bytes());
        let Some(rest) = rest else { continue };
        let room = u16::try_from(rest as usize / Header::MAP_ENTRY_BYTES).unwrap_or(u16::MAX);
        found.push(Tuning { map_entries: entries.min(room.into()), ..tuning });
    }
    found
}

/// The smallest possible sizes.
pub(super) const SMALLEST: Tuning = Tuning {
    dictionary_log2: 8,
    literals_log2: 8,
    flags_log2: 8,
    bytes_log2: 8,
    map_entries: 0,
    table_entries: 0,
};

/// Least memory that a decoder can be made for.
pub const MEMORY_BYTES_MIN: u32 = 24 * 1024;

/// Sizes as logarithms: dictionary, models of literals, of flags and of bytes; then entries of the table.
const SHAPES: [(u8, u8, u8, u8, u32); 14] = [
    (20, 19, 14, 16, 2048),
    (18, 17, 13, 14, 1024),
    (16, 15, 12, 13, 512),
    (15, 16, 12, 13, 512),
    (16, 15, 11, 12, 256),
    (14, 15, 12, 13, 512),
    (14, 14, 12, 12, 512),
    (13, 13, 11, 12, 256),
    (12, 11, 10, 11, 128),
    (11, 11, 10, 11, 128),
    (11, 12, 9, 10, 64),
    (10, 11, 9, 10, 64),
    (10, 10, 9, 9, 64),
    (8, 8, 8, 8, 16),
];

/// Separates the longest entries, at most `room`, from the others. Both keep their order.
pub(super) fn prune(entries: &[Entry], room: u32) -> (Vec<Entry>, Vec<Entry>) {
    let mut lens: Vec<u32> = entries.iter().map(|entry| entry.len).collect();
    lens.sort_unstable_by(|a, b| b.cmp(a));
    let least = lens.get(room as usize).map_or(0, |len| len + 1).max(MAP_BYTES_MIN);
    entries.iter().partition(|entry| entry.len >= least)
}

/// Shorter pieces say little about where the bytes around them went.
const MAP_BYTES_MIN: u32 = 16;
