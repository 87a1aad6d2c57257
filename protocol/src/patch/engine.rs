//! What encoder and decoder have in common: they code the image step by step. A step is a few decisions and a few
//! bytes.
//!
//! The image is a row of regions. A region begins with what predictions need, and with its match map. Then the bytes
//! of each entry of the map are copied, predicted and corrected. The bytes between entries are coded as literals, as
//! matches in the dictionary, and as copies that were not worth an entry.

use alloc::vec::Vec;
use core::mem::take;

use super::correction::Corrections;
use super::decoder::Decoder;
use super::literal::{Literals, Surroundings};
use super::map::{Entry, Map};
use super::model::Slots;
use super::numbers::{Number, Numbers};
use super::predict::{CHUNK, CHUNK_BYTES, Mode, Prediction};
use super::range::Coder;
use super::region::{Region, SEGMENTS_MAX, Segment};
use super::script::{MATCH_BYTES_MAX, Op, Script};
use super::table::Table;
use super::window::Window;
use super::{Architecture, Base, DecodeFailure, Header, PatchError};

/// The part of a region that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Region,
    Segments,
    Entries,
    Body,
}

impl Phase {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Region, Self::Segments, Self::Entries, Self::Body]
            .into_iter()
            .find(|phase| *phase as u8 == number)
    }
}

/// A copy under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copying {
    pub(super) old: u32,
    pub(super) done: u32,
    pub(super) left: u32,
    /// The place in the old image at which the next instruction begins.
    pub(super) walk: u32,
}

/// The whole state of an encoder or decoder, except for that of the range coder.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) base_len: u32,
    pub(super) image_len: u32,
    pub(super) map_room: u32,
    pub(super) phase: Phase,
    pub(super) produced: u32,
    pub(super) region: Region,
    /// Segments that the region has, in the old and the new image; they come one by one.
    pub(super) segments: [u8; 2],
    pub(super) region_end: u32,
    pub(super) map: Map,
    pub(super) next_entry: u32,
    pub(super) copying: Copying,
    pub(super) mode: Mode,
    /// Place in the old image minus place in the new one, in the last copy.
    pub(super) shift: i64,
    /// How many of the last literals, at most three, were the byte of the old image that the last copy would
    /// go on with.
    pub(super) right: u8,
    /// The last three operations, 2 bits each.
    pub(super) ops: u8,
    pub(super) last_distance: u32,
    pub(super) window: Window,
    pub(super) table: Table,
    pub(super) numbers: Numbers,
    pub(super) choices: Slots<u32>,
    pub(super) corrections: Corrections,
    pub(super) literals: Literals,
    pub(super) prediction: Prediction,
    /// The bytes of the old image that were read last for literals.
    nearby: Nearby,
    /// Bytes of the image that nobody has taken yet.
    pub(super) ready: Vec<u8>,
}

/// A few bytes of the old image.
#[derive(Clone, Debug)]
struct Nearby {
    start: u32,
    len: u32,
    bytes: [u8; CHUNK],
}

/// Slots for choices among operations and modes.
const CHOICES_LOG2: u8 = 10;
pub(super) const MODE_CHOICES: usize = 768;
pub(super) const CHOICE_LIMIT: u32 = 60;

/// Most bytes that one step produces.
pub(super) const STEP_BYTES_MAX: usize = MATCH_BYTES_MAX as usize;

impl Engine {
    /// Allocates everything that `header` asks for.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        let tuning = &header.tuning;
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            base_len: size(header.base.size),
            image_len: size(header.image.size),
            map_room: tuning.map_entries,
            phase: Phase::Region,
            produced: 0,
            region: Region {
                old: Vec::with_capacity(SEGMENTS_MAX),
                new: Vec::with_capacity(SEGMENTS_MAX),
                ..Region::default()
            },
            segments: [0; 2],
            region_end: 0,
            map: Map::with_room(tuning.map_entries),
            next_entry: 0,
            copying: Copying::default(),
            mode: Mode::Raw,
            shift: 0,
            right: 0,
            ops: 0,
            last_distance: 1,
            window: Window::new(tuning.dictionary_log2),
            table: Table::with_room(tuning.table_entries),
            numbers: Numbers::new(),
            choices: Slots::new(CHOICES_LOG2),
            corrections: Corrections::new(tuning.flags_log2, tuning.bytes_log2),
            literals: Literals::new(tuning.literals_log2),
            prediction: Prediction::new(),
            nearby: Nearby { start: 0, len: 0, bytes: [0; CHUNK] },
            ready: Vec::with_capacity(STEP_BYTES_MAX),
        }
    }

    /// Bytes of memory that do not depend on the header: the decoder itself, numbers, choices, mixers, buffers.
    pub(super) const FIXED_BYTES: usize = Numbers::BYTES
        + (size_of::<u32>() << CHOICES_LOG2)
        + Literals::FIXED_BYTES
        + Corrections::FIXED_BYTES
        + size_of::<Decoder>()
        + STEP_BYTES_MAX
        + Prediction::NOTES_BYTES
        + 2 * SEGMENTS_MAX * size_of::<Segment>();

    /// Bytes of the image that are coded.
    #[must_use]
    pub fn produced(&self) -> u32 {
        self.produced
    }

    /// Whether the image is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        // A region has at least one byte, so that no segments and entries follow when the image is complete.
        self.produced == self.image_len
    }

    /// Does one step; what it adds to the image is in `ready`.
    ///
    /// # Errors
    /// [`DecodeFailure`] if the patch asks for something that is out of range, or if the old image cannot be read.
    pub fn step<C: Coder, S: Script, B: Base>(
        &mut self,
        coder: &mut C,
        script: &mut S,
        base: &mut B,
    ) -> Result<(), DecodeFailure<B::Error>> {
        self.ready.clear();
        match self.phase {
            Phase::Region => Ok(self.begin_region(coder, script)?),
            Phase::Segments => {
                self.load_segment(coder, script);
                Ok(())
            }
            Phase::Entries => Ok(self.load_entry(coder, script)?),
            Phase::Body if self.copying.left > 0 => self.copy(coder, script, base),
            Phase::Body => self.between(coder, script, base),
        }
    }

    fn range(&self, what: &'static str) -> PatchError {
        PatchError::Range { what, produced: self.produced.into() }
    }

    fn begin_region(&mut self, coder: &mut impl Coder, script: &mut impl Script) -> Result<(), PatchError> {
        let (region, counts) = script.region(self.produced).code_head(coder, &mut self.numbers);
        if region.len == 0 || region.len > self.image_len - self.produced {
            return Err(self.range("region"));
        }
        if region.entries > self.map_room {
            return Err(self.range("match map"));
        }
        if counts.iter().any(|count| usize::from(*count) > SEGMENTS_MAX) {
            return Err(self.range("segments"));
        }
        self.region_end = self.produced + region.len;
        self.mode = if region.architecture == Architecture::None { Mode::Raw } else { Mode::Code };
        // The lists keep their memory.
        let (mut old, mut new) = (take(&mut self.region.old), take(&mut self.region.new));
        old.clear();
        new.clear();
        self.region = Region { old, new, ..region };
        self.segments = counts;
        self.map.clear();
        self.next_entry = 0;
        self.phase = Phase::Segments;
        self.end_of_segments();
        Ok(())
    }

    /// Codes the next segment. Those of the old image come before those of the new one.
    fn load_segment(&mut self, coder: &mut impl Coder, script: &mut impl Script) {
        let Region { old, new, .. } = &mut self.region;
        let of_new = old.len() >= usize::from(self.segments[0]);
        let list: &[Segment] = if of_new { new } else { old };
        let like = |at: usize| old.get(at).copied().filter(|_| of_new).unwrap_or_default();
        let at = list.len();
        let last = at.checked_sub(1).and_then(|last| Some((*list.get(last)?, like(last))));
        let segment = script.segment(of_new, at);
        let coded = segment.code(like(at), last.unwrap_or_default(), coder, &mut self.numbers);
        if of_new {
            new.push(coded)
        } else {
            old.push(coded)
        }
        self.end_of_segments();
    }

    fn end_of_segments(&mut self) {
        let [old, new] = self.segments.map(usize::from);
        if self.region.old.len() >= old && self.region.new.len() >= new {
            self.phase = Phase::Entries;
            self.end_of_entries();
        }
    }

    fn end_of_entries(&mut self) {
        if self.map.entries.len() == self.region.entries as usize {
            self.map.sort();
            self.phase = Phase::Body;
        }
    }

    /// Codes an entry as differences to the end of the entry before.
    fn load_entry(&mut self, coder: &mut impl Coder, script: &mut impl Script) -> Result<(), PatchError> {
        let entry = script.entry();
        let before = self.map.entries.last().copied();
        let before = before.unwrap_or(Entry { old: 0, new: self.produced, len: 0 });
        let (new_end, old_end) = (before.new + before.len, i64::from(before.old) + i64::from(before.len));
        let numbers = &mut self.numbers;
        let gap = numbers.code(coder, Number::Gap, entry.new.wrapping_sub(new_end));
        let wanted = i64::from(entry.old) - old_end;
        // The bytes between two entries have often replaced as many bytes of the old image.
        let straight = numbers.flag(coder, Number::OldSkip, 0, wanted == i64::from(gap));
        let skip =
            if straight { i64::from(gap) } else { numbers.code_signed(coder, Number::OldSkip, wanted) };
        let len = numbers.code(coder, Number::EntryBytes, entry.len);
        let old = u32::try_from(old_end + skip).map_err(|_| self.range("entry"))?;
        let new = new_end.checked_add(gap).ok_or(self.range("entry"))?;
        let in_new = len > 0 && new.checked_add(len).is_some_and(|end| end <= self.region_end);
        let in_old = old.checked_add(len).is_some_and(|end| end <= self.base_len);
        if !in_new || !in_old {
            return Err(self.range("entry"));
        }
        self.map.entries.push(Entry { old, new, len });
        self.end_of_entries();
        Ok(())
    }

    /// Codes an operation between two entries, or begins the next entry or the next region.
    fn between<C: Coder, S: Script, B: Base>(
        &mut self,
        coder: &mut C,
        script: &mut S,
        base: &mut B,
    ) -> Result<(), DecodeFailure<B::Error>> {
        let next = self.map.entries.get(self.next_entry as usize).copied();
        if let Some(entry) = next.filter(|entry| entry.new == self.produced) {
            self.next_entry += 1;
            self.begin_copy(entry.old, entry.len);
            return Ok(());
        }
        if self.produced == self.region_end {
            self.phase = Phase::Region;
            return Ok(());
        }
        let room = next.map_or(self.region_end, |entry| entry.new) - self.produced;
        let op = self.code_op(coder, script.op(self.produced, room));
        match op {
            Op::Literal => self.literal(coder, script, base)?,
            Op::Match { distance, len } => {
                self.last_distance = distance;
                self.repeat(len, room)?;
            }
            Op::Repeat { len } => self.repeat(len, room)?,
            Op::Copy { old, len } => {
                let in_old = old.checked_add(len).is_some_and(|end| end <= self.base_len);
                if len == 0 || len > room || !in_old {
                    return Err(self.range("copy").into());
                }
                self.begin_copy(old, len);
            }
        }
        Ok(())
    }

    /// Goes to the end of the copy under way with the bytes of `script`, and codes nothing of it. What comes after it
    /// is coded as if the copy had been coded too, because literals and operations do not depend on modes and
    /// corrections: an encoder learns in this way what literals take.
    pub fn pass_copy(&mut self, script: &impl Script) {
        for _ in 0..take(&mut self.copying.left) {
            self.ready.clear();
            self.emit(script.byte(self.produced));
            self.right = 0;
        }
    }

    fn begin_copy(&mut self, old: u32, len: u32) {
        self.copying = Copying { old, done: 0, left: len, walk: old };
        self.shift = i64::from(old) - i64::from(self.produced);
        self.right = 3;
    }

    fn code_op(&mut self, coder: &mut impl Coder, op: Op) -> Op {
        let context = usize::from(self.ops & 63) << 2 | usize::from(self.right.min(3));
        let choices = &mut self.choices;
        let mut choose =
            |coder: &mut _, which: usize, bit| choices.bit(coder, which << 8 | context, CHOICE_LIMIT, bit);
        let numbers = &mut self.numbers;
        let (code, op) = if choose(coder, 0, op == Op::Literal) {
            (0, Op::Literal)
        } else if choose(coder, 1, matches!(op, Op::Copy { .. })) {
            let (old, len) = if let Op::Copy { old, len } = op { (old, len) } else { (0, 0) };
            let expected = i64::from(self.produced) + self.shift;
            let skip = numbers.code_signed(coder, Number::CopySkip, i64::from(old) - expected);
            let len = numbers.code(coder, Number::CopyBytes, len);
            // A value that is out of range fails later, when it is used.
            (3, Op::Copy { old: u32::try_from(expected + skip).unwrap_or(u32::MAX), len })
        } else if choose(coder, 2, matches!(op, Op::Repeat { .. })) {
            let len = if let Op::Repeat { len } = op { len } else { 1 };
            (
                2,
                Op::Repeat {
                    len: numbers.code(coder, Number::RepeatBytes, len.wrapping_sub(1)).saturating_add(1),
                },
            )
        } else {
            let (distance, len) = if let Op::Match { distance, len } = op { (distance, len) } else { (1, 2) };
            let len = numbers.code(coder, Number::MatchBytes, len.wrapping_sub(2)).saturating_add(2);
            let kind = if len < 4 { Number::ShortDistance } else { Number::LongDistance };
            let distance = numbers.code(coder, kind, distance.wrapping_sub(1)).saturating_add(1);
            (1, Op::Match { distance, len })
        };
        self.ops = self.ops << 2 | code;
        op
    }

    pub(super) fn emit(&mut self, byte: u8) {
        self.window.push(byte);
        self.ready.push(byte);
        self.produced += 1;
    }

    /// Codes a match: bytes from the dictionary.
    fn repeat(&mut self, len: u32, room: u32) -> Result<(), PatchError> {
        if len > room || len > MATCH_BYTES_MAX || !self.window.reaches(self.last_distance) {
            return Err(self.range("match"));
        }
        for _ in 0..len {
            let byte = self.window.back(self.last_distance);
            self.emit(byte);
        }
        self.right = 0;
        Ok(())
    }

    fn literal<C: Coder, S: Script, B: Base>(
        &mut self,
        coder: &mut C,
        script: &mut S,
        base: &mut B,
    ) -> Result<(), DecodeFailure<B::Error>> {
        let expected = self.expected(base).map_err(DecodeFailure::Base)?;
        let around = Surroundings {
            before: self.window.last_eight(),
            at: self.produced,
            expected: expected.unwrap_or(0),
            right: expected.map_or(0, |_| self.right),
        };
        let byte = self.literals.code(coder, &around, script.byte(self.produced));
        self.right = if expected == Some(byte) {
            (self.right + 1).min(3)
        } else {
            self.right.saturating_sub(1).min(1)
        };
        self.emit(byte);
        Ok(())
    }

    /// The expected byte: the one of the old image that would come here if the last copy went on.
    fn expected<B: Base>(&mut self, base: &mut B) -> Result<Option<u8>, B::Error> {
        let Some(at) =
            u32::try_from(i64::from(self.produced) + self.shift).ok().filter(|at| *at < self.base_len)
        else {
            return Ok(None);
        };
        let nearby = &mut self.nearby;
        if !(nearby.start..nearby.start.saturating_add(nearby.len)).contains(&at) {
            let len = (self.base_len - at).min(CHUNK_BYTES);
            nearby.len = 0;
            if let Some(bytes) = nearby.bytes.get_mut(..len as usize) {
                base.read(at.into(), bytes)?;
            }
            (nearby.start, nearby.len) = (at, len);
        }
        Ok(nearby.bytes.get((at - nearby.start) as usize).copied())
    }
}
