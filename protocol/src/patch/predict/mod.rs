//! Address prediction: what the bytes of an old range become when everything around them moves.
//!
//! Code and data are full of addresses of other code and data. The match map says where these went; so for each
//! instruction and word of an old range that refers to a place, the reference is made to lead to that place's new
//! address. What the patch then has to say is only where this prediction is wrong.

mod arm;
mod arm64;
mod data;
mod riscv;
mod scene;
mod thumb;
mod view;
mod x86;

pub(super) use scene::{Certainty, Scene};
pub(super) use view::View;

use alloc::vec::Vec;

use super::Architecture;
use super::region::Region;
use super::table::Table;
use view::low;

/// How the bytes of a block are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// As they were.
    #[default]
    Raw = 0,
    /// As machine code.
    Code = 1,
    /// As pointers.
    Pointers = 2,
    /// As distances of 32 bits from where they stand.
    Relative = 3,
    /// As words that change like others that were near them.
    Words = 4,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Code, Self::Pointers, Self::Relative, Self::Words];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Code => "code",
            Self::Pointers => "pointers",
            Self::Relative => "relative",
            Self::Words => "words",
        }
    }
}

/// What an instruction or a word is, as far as references go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    // 0 is what refers to nothing.
    Call = 1,
    Branch,
    ShortBranch,
    LongBranch,
    ZeroBranch,
    ShortJump,
    Literal,
    LongLiteral,
    /// An address not far away.
    Near,
    /// The page of an address, relative to the instruction, and what is added to it.
    Page,
    PageLow,
    /// The two parts of an absolute address.
    Low,
    High,
    Pointer,
    /// An address outside the image.
    Memory,
    Distance,
    Word,
    /// A number in an instruction, with its register.
    Constant,
}

/// A reference as an instruction has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    /// Where it leads.
    pub(super) target: u64,
    pub(super) kind: Kind,
    /// Bytes of the instruction.
    pub(super) len: u8,
    /// Bytes from its other part to it.
    pub(super) behind: u32,
}

/// A number of 16 bits in a register, as the target of a reference: like numbers in like registers are near.
const fn constant(register: u32, value: u32) -> u64 {
    CONSTANTS | (register as u64) << 17 | value as u64
}

/// Numbers in instructions are kept apart from addresses.
const CONSTANTS: u64 = 0xc700_0000;

impl Reference {
    pub(super) const fn new(target: u64, kind: Kind, len: u8) -> Self {
        Self { target, kind, len, behind: 0 }
    }
}

/// Bytes that are predicted at once.
pub(super) const CHUNK_BYTES: u32 = 64;
pub(super) const CHUNK: usize = CHUNK_BYTES as usize;
/// Bytes of the old image before and behind a chunk that predictions look at.
pub(super) const MARGIN: u32 = 40;

/// A chunk as it is predicted.
#[derive(Clone, Debug)]
pub(super) struct Prediction {
    pub(super) bytes: [u8; CHUNK],
    /// For each byte the kind (5 bits) and certainty (2 bits) of what it is part of.
    pub(super) kinds: [u8; CHUNK],
    /// The references whose bytes are all here.
    notes: Vec<Note>,
}

/// Most references of a chunk: instructions have 2 bytes at least.
const NOTES_MAX: usize = CHUNK / 2;

/// A reference that was predicted.
#[derive(Clone, Copy, Debug)]
struct Note {
    /// Its place in the chunk.
    at: u32,
    old: Reference,
    /// Where it was taken to lead.
    new: u64,
}

impl Prediction {
    /// Bytes of memory of the notes.
    pub(super) const NOTES_BYTES: usize = size_of::<Note>() * NOTES_MAX;

    pub(super) fn new() -> Self {
        Self { bytes: [0; CHUNK], kinds: [0; CHUNK], notes: Vec::with_capacity(NOTES_MAX) }
    }

    /// Puts `bytes` at a place that may be partly outside the chunk.
    fn put(&mut self, at: i64, bytes: &[u8], kind: Kind, certainty: Certainty) {
        for (offset, byte) in (at..).zip(bytes) {
            let Ok(offset) = usize::try_from(offset) else {
                continue;
            };
            if let (Some(place), Some(label)) = (self.bytes.get_mut(offset), self.kinds.get_mut(offset)) {
                *place = *byte;
                *label = kind as u8 | (certainty as u8) << 5;
            }
        }
    }
}

/// A range that is copied: `len` bytes, at most [`CHUNK`], from `old` to `new`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) old: u32,
    pub(super) new: u32,
    pub(super) len: u32,
}

/// Predicts a span. `walk` is where the next instruction begins in the old image; it moves on.
pub(super) fn predict(scene: &Scene<'_>, mode: Mode, span: Span, walk: &mut u32, into: &mut Prediction) {
    into.notes.clear();
    into.kinds.fill(0);
    for (place, at) in into.bytes.iter_mut().zip(0..span.len) {
        *place = scene.old.byte(span.old.wrapping_add(at)).unwrap_or(0);
    }
    if mode == Mode::Code {
        code(scene, span, walk, into);
    } else {
        data::predict(scene, mode, span, into);
        *walk = span.old.wrapping_add(span.len);
    }
}

fn code(scene: &Scene<'_>, span: Span, walk: &mut u32, into: &mut Prediction) {
    let architecture = scene.region.architecture;
    let end = span.old.wrapping_add(span.len);
    let align = match architecture {
        Architecture::None => 0,
        Architecture::Arm64 | Architecture::Arm => 4,
        Architecture::Thumb | Architecture::RiscV => 2,
        Architecture::X86 => 1,
    };
    if align == 0 || (span.old ^ span.new) & (align - 1) != 0 {
        *walk = end;
        return;
    }
    // An instruction may have begun in the chunk before this one.
    let mut at = (*walk).clamp(span.old.saturating_sub(8), span.old).next_multiple_of(align);
    let mut last = at;
    while at < end {
        last = at;
        at = at.wrapping_add(step(scene, architecture, at, span, into).max(align));
    }
    // One that goes over the end is predicted once more in the next chunk, for its rest.
    *walk = if at > end { last } else { at };
}

/// Predicts what begins at `at`; its bytes.
fn step(scene: &Scene<'_>, architecture: Architecture, at: u32, span: Span, into: &mut Prediction) -> u32 {
    if matches!(architecture, Architecture::Thumb | Architecture::Arm)
        && let Some(len) = data::literal(scene, at, span, into)
    {
        return len;
    }
    let natural = match architecture {
        Architecture::Thumb => scene.old.half(at).map_or(2, thumb::len),
        Architecture::RiscV => scene.old.half(at).map_or(2, riscv::len),
        Architecture::X86 => 1,
        _ => 4,
    };
    let place = i64::from(at) - i64::from(span.old);
    let Some(new_at) = u32::try_from(place + i64::from(span.new)).ok() else {
        return natural;
    };
    let (Some(old_address), Some(new_address)) =
        (scene.region.old_address(at), scene.region.new_address(new_at))
    else {
        return natural;
    };
    let Some(old) = parse(architecture, scene.old, at, old_address) else {
        return natural;
    };
    let resolved = match old.kind {
        // Absolute addresses may be of anything; those in no image are left alone.
        Kind::Low | Kind::High => resolve_absolute(scene, old.target),
        Kind::Constant => {
            let key = low(old.target.cast_signed());
            let known = scene.table.exact(key);
            let certainty = known.map_or(Certainty::Near, |_| Certainty::Seen);
            Some((known.unwrap_or_else(|| scene.table.like_latest(key)).into(), certainty))
        }
        _ => scene.resolve(old.target),
    };
    let Some((new, certainty)) = resolved else {
        return natural;
    };
    let mut bytes = [0; 8];
    for (offset, byte) in (0..u32::from(old.len)).zip(&mut bytes) {
        *byte = scene.old.byte(at.wrapping_add(offset)).unwrap_or(0);
    }
    if rewrite(architecture, &mut bytes, &old, new, new_address).is_none() {
        return natural;
    }
    let len = usize::from(old.len);
    into.put(place, bytes.get(..len).unwrap_or_default(), old.kind, certainty);
    if let Ok(at) = u32::try_from(place)
        && at + u32::from(old.len) <= span.len
    {
        into.notes.push(Note { at, old, new });
    }
    old.len.into()
}

fn resolve_absolute(scene: &Scene<'_>, target: u64) -> Option<(u64, Certainty)> {
    let word = low(target.cast_signed());
    if scene.is_memory(word) {
        return Some((data::moved_word(scene.table, word).into(), Certainty::Near));
    }
    scene.resolve(target)
}

fn parse(architecture: Architecture, view: View<'_>, at: u32, address: u64) -> Option<Reference> {
    match architecture {
        Architecture::None => None,
        Architecture::Arm64 => arm64::parse(view, at, address),
        Architecture::Thumb => thumb::parse(view, at, address),
        Architecture::Arm => arm::parse(view, at, address),
        Architecture::RiscV => riscv::parse(view, at, address),
        Architecture::X86 => x86::parse(view, at, address),
    }
}

/// Makes the instruction in `bytes` lead to `target`; nothing where it cannot.
fn rewrite(
    architecture: Architecture,
    bytes: &mut [u8; 8],
    old: &Reference,
    target: u64,
    address: u64,
) -> Option<()> {
    let [a, b, c, d, e, f, ..] = *bytes;
    let word = u32::from_le_bytes([a, b, c, d]);
    let word = match architecture {
        Architecture::None => return None,
        Architecture::Arm64 => arm64::rewrite(word, old.kind, target, address)?,
        Architecture::Arm => arm::rewrite(word, old.kind, target, address)?,
        Architecture::RiscV => riscv::rewrite(word, old, target, address)?,
        Architecture::Thumb => {
            let (first, second) = thumb::rewrite(word & 0xffff, word >> 16, old.kind, target, address)?;
            first | second << 16
        }
        Architecture::X86 => {
            let distance = x86::rewrite(old.len, target, address)?.to_le_bytes();
            let [w, x, y, z] = distance;
            *bytes = if old.len == 5 { [a, w, x, y, z, f, 0, 0] } else { [a, b, w, x, y, z, 0, 0] };
            return Some(());
        }
    };
    let [a, b, c, d] = word.to_le_bytes();
    *bytes = [a, b, c, d, e, f, 0, 0];
    Some(())
}

/// Learns from a chunk that is complete: `recent` ends with it and has what stands before it.
pub(super) fn learn(
    region: &Region,
    mode: Mode,
    span: Span,
    prediction: &Prediction,
    old: View<'_>,
    recent: View<'_>,
    table: &mut Table,
) {
    if mode != Mode::Code {
        return data::learn(region, mode, span, old, recent, table);
    }
    for note in &prediction.notes {
        let at = span.new.wrapping_add(note.at);
        let same = (0..u32::from(note.old.len)).all(|offset| {
            recent.byte(at.wrapping_add(offset)) == prediction.bytes.get((note.at + offset) as usize).copied()
        });
        let key = low(note.old.target.cast_signed());
        if matches!(note.old.kind, Kind::Memory | Kind::Pointer) {
            if let Some(new) = recent.word(at)
                && (note.old.kind == Kind::Memory || !same)
            {
                table.learn(key, new);
            }
            continue;
        }
        if same {
            continue;
        }
        let actual = region
            .new_address(at)
            .and_then(|address| parse(region.architecture, recent, at, address))
            .filter(|actual| actual.kind == note.old.kind && actual.kind != Kind::Page);
        // A page cannot be told apart from its low part before that has come.
        if let Some(actual) = actual
            && actual.target != note.new
        {
            table.learn(key, low(actual.target.cast_signed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0x0800_0000;

    /// Bytes that are as likely to be one instruction as another.
    fn noise(seed: u64) -> [u8; 64] {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        core::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32).to_le_bytes()[0]
        })
    }

    fn bytes_at(bytes: &[u8], at: usize) -> [u8; 8] {
        core::array::from_fn(|offset| bytes.get(at + offset).copied().unwrap_or(0))
    }

    /// Every reference that noise has for an architecture: the bytes around, its place among them, itself.
    fn references(architecture: Architecture) -> Vec<([u8; 64], usize, Reference)> {
        let find = |seed| {
            let bytes = noise(seed);
            let view = View { bytes: &bytes, start: 0 };
            let parsed = parse(architecture, view, 24, ADDRESS + 24)?;
            Some((bytes, 24, parsed))
        };
        (0..60_000).filter_map(find).collect()
    }

    const CODE: [Architecture; 5] =
        [Architecture::Arm64, Architecture::Thumb, Architecture::Arm, Architecture::RiscV, Architecture::X86];

    #[test]
    fn a_reference_that_leads_where_it_led_has_the_same_bytes() {
        for architecture in CODE {
            let found = references(architecture);
            assert!(found.len() > 500, "{architecture:?}: {}", found.len());
            for (bytes, at, reference) in found {
                let len = usize::from(reference.len);
                let mut made = bytes_at(&bytes, at);
                // A page alone, whose low part was found behind it, keeps its page.
                rewrite(architecture, &mut made, &reference, reference.target, ADDRESS + at as u64).unwrap();
                assert_eq!(made[..len], bytes[at..at + len], "{architecture:?} {reference:?}");
            }
        }
    }

    #[test]
    fn a_reference_that_was_moved_leads_to_its_new_target() {
        for architecture in CODE {
            let mut moved = 0;
            for (bytes, at, reference) in references(architecture) {
                // What has its other part elsewhere leads somewhere together with that part only.
                if matches!(reference.kind, Kind::Page | Kind::PageLow | Kind::Low | Kind::High) {
                    continue;
                }
                let target = match reference.kind {
                    Kind::Constant => reference.target ^ 5,
                    _ => reference.target.wrapping_add(16),
                };
                let mut made = bytes_at(&bytes, at);
                let address = ADDRESS + at as u64;
                if rewrite(architecture, &mut made, &reference, target, address).is_none() {
                    continue;
                }
                let mut other = bytes;
                other[at..at + 8].copy_from_slice(&made);
                let view = View { bytes: &other, start: 0 };
                let parsed = parse(architecture, view, 24, address).unwrap();
                assert_eq!((parsed.target, parsed.kind), (target, reference.kind), "{architecture:?}");
                moved += 1;
            }
            assert!(moved > 300, "{architecture:?}: {moved}");
        }
    }
}
