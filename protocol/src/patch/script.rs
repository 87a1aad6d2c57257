//! Edit scripts. An encoder follows one step by step; a decoder follows the patch and has an empty one.

use super::map::Entry;
use super::predict::Mode;
use super::region::{Region, Segment};

/// An operation: a step between two entries of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// One byte.
    Literal,
    /// Bytes that were written before, `distance` bytes back.
    Match {
        /// 1 or more, at most the dictionary and what was written.
        distance: u32,
        /// 2 to [`MATCH_BYTES_MAX`].
        len: u32,
    },
    /// The same distance as the last match.
    Repeat {
        /// 1 to [`MATCH_BYTES_MAX`].
        len: u32,
    },
    /// Bytes of the old image, predicted and corrected like those of an entry.
    Copy {
        /// The first of them.
        old: u32,
        /// 1 or more.
        len: u32,
    },
}

/// Most bytes of a match.
pub const MATCH_BYTES_MAX: u32 = 256;
/// Bytes of the new image that are predicted in one mode.
pub const BLOCK_BYTES: u32 = 256;

/// The edit script: the regions, entries, operations and modes that an encoder has chosen.
/// [`Engine`](super::Engine) asks for them in order and codes them. In a decoder the answers do not matter,
/// because the patch decides.
pub trait Script {
    /// Whether this is an encoder's script, which chooses something.
    const CHOOSES: bool;

    /// The region that begins at byte `at` of the image.
    fn region(&mut self, at: u32) -> Region;

    /// Segment `at` of the region that has begun, of the new image or of the old one.
    fn segment(&mut self, of_new: bool, at: usize) -> Segment;

    /// The next entry of the region's map.
    fn entry(&mut self) -> Entry;

    /// What comes at byte `at`, with at most `room` bytes before the next entry or the end of the region.
    fn op(&mut self, at: u32, room: u32) -> Op;

    /// How to predict the block of `len` bytes that comes; `wrong` are the bytes that each mode gets wrong. What is
    /// said of a mode that gets more wrong than another is only that: it is no count, and `u32::MAX` if the mode was
    /// not tried.
    fn mode(&mut self, len: u32, last: Mode, wrong: [u32; Mode::ALL.len()]) -> Mode;

    /// The byte at `at`.
    fn byte(&self, at: u32) -> u8;
}

/// The empty script of a decoder.
pub(super) struct Nothing;

impl Script for Nothing {
    const CHOOSES: bool = false;

    fn region(&mut self, _: u32) -> Region {
        Region::default()
    }

    fn segment(&mut self, _: bool, _: usize) -> Segment {
        Segment::default()
    }

    fn entry(&mut self) -> Entry {
        Entry::default()
    }

    fn op(&mut self, _: u32, _: u32) -> Op {
        Op::Literal
    }

    fn mode(&mut self, _: u32, _: Mode, _: [u32; Mode::ALL.len()]) -> Mode {
        Mode::Raw
    }

    fn byte(&self, _: u32) -> u8 {
        0
    }
}
