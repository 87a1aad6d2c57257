//! Address prediction: computes what copied bytes become when the code and data around them move.
//!
//! Code and data are full of addresses of other code and data. The match map says where these went. So each
//! instruction or word that refers to a place is rewritten to refer to the new address of that place. The patch then
//! only has to say which of these predictions are wrong.

mod arm;
mod arm64;
mod data;
mod reference;
mod resolver;
mod riscv;
mod thumb;
mod view;
mod x86;

pub(super) use resolver::{Certainty, Resolver};
pub(super) use view::View;

use alloc::vec::Vec;

use super::Architecture;
use super::region::Region;
use super::table::Table;
use reference::{Reference, ReferenceKind, constant};
use view::low;

/// How the bytes of a block are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// As the bytes of the old image, unchanged.
    #[default]
    Raw = 0,
    /// As machine code.
    Code = 1,
    /// As pointers.
    Pointers = 2,
    /// As distances of 32 bits from their own place.
    Relative = 3,
    /// As words that change as words with near values did.
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

/// Bytes that are predicted at once.
pub(super) const CHUNK_BYTES: u32 = 64;
pub(super) const CHUNK: usize = CHUNK_BYTES as usize;
/// Bytes of the old image before and behind a chunk that predictions look at.
pub(super) const MARGIN: u32 = 40;

/// The prediction of a chunk.
#[derive(Clone, Debug)]
pub(super) struct Prediction {
    pub(super) bytes: [u8; CHUNK],
    /// For each byte the kind (5 bits) and certainty (2 bits) of what it is part of.
    pub(super) kinds: [u8; CHUNK],
    /// The references whose bytes all lie in the chunk.
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
    /// The address to which it was predicted to lead.
    new: u64,
}

impl Prediction {
    /// Bytes of memory of the notes.
    pub(super) const NOTES_BYTES: usize = size_of::<Note>() * NOTES_MAX;

    pub(super) fn new() -> Self {
        Self { bytes: [0; CHUNK], kinds: [0; CHUNK], notes: Vec::with_capacity(NOTES_MAX) }
    }

    /// Puts `bytes` at a place that may be partly outside the chunk.
    fn put(&mut self, at: i64, bytes: &[u8], kind: ReferenceKind, certainty: Certainty) {
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

/// Predicts a span. `walk` is the place in the old image at which the next instruction begins; this moves it on.
pub(super) fn predict(
    resolver: &Resolver<'_>,
    mode: Mode,
    span: Span,
    walk: &mut u32,
    into: &mut Prediction,
) {
    into.notes.clear();
    into.kinds.fill(0);
    for (place, at) in into.bytes.iter_mut().zip(0..span.len) {
        *place = resolver.old.byte(span.old.wrapping_add(at)).unwrap_or(0);
    }
    if mode == Mode::Code {
        code(resolver, span, walk, into);
    } else {
        data::predict(resolver, mode, span, into);
        *walk = span.old.wrapping_add(span.len);
    }
}

fn code(resolver: &Resolver<'_>, span: Span, walk: &mut u32, into: &mut Prediction) {
    let architecture = resolver.region.architecture;
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
        at = at.wrapping_add(step(resolver, architecture, at, span, into).max(align));
    }
    // An instruction that goes over the end is predicted once more in the next chunk, which takes the rest of it.
    *walk = if at > end { last } else { at };
}

/// Predicts the instruction or word at `at`, and returns its length in bytes.
fn step(
    resolver: &Resolver<'_>,
    architecture: Architecture,
    at: u32,
    span: Span,
    into: &mut Prediction,
) -> u32 {
    if matches!(architecture, Architecture::Thumb | Architecture::Arm)
        && let Some(len) = data::literal(resolver, at, span, into)
    {
        return len;
    }
    let natural = match architecture {
        Architecture::Thumb => resolver.old.half(at).map_or(2, thumb::len),
        Architecture::RiscV => resolver.old.half(at).map_or(2, riscv::len),
        Architecture::X86 => 1,
        _ => 4,
    };
    let place = i64::from(at) - i64::from(span.old);
    let Some(new_at) = u32::try_from(place + i64::from(span.new)).ok() else {
        return natural;
    };
    let (Some(old_address), Some(new_address)) =
        (resolver.region.old_address(at), resolver.region.new_address(new_at))
    else {
        return natural;
    };
    let Some(old) = parse(architecture, resolver.old, at, old_address) else {
        return natural;
    };
    let resolved = match old.kind {
        // An absolute address may be of anything. One that lies in no image is not changed.
        ReferenceKind::Low | ReferenceKind::High => resolve_absolute(resolver, old.target),
        ReferenceKind::Constant => {
            let key = low(old.target.cast_signed());
            let known = resolver.table.exact(key);
            let certainty = known.map_or(Certainty::Near, |_| Certainty::Seen);
            Some((known.unwrap_or_else(|| resolver.table.like_latest(key)).into(), certainty))
        }
        _ => resolver.resolve(old.target),
    };
    let Some((new, certainty)) = resolved else {
        return natural;
    };
    let mut bytes = [0; 8];
    for (offset, byte) in (0..u32::from(old.len)).zip(&mut bytes) {
        *byte = resolver.old.byte(at.wrapping_add(offset)).unwrap_or(0);
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

fn resolve_absolute(resolver: &Resolver<'_>, target: u64) -> Option<(u64, Certainty)> {
    let word = low(target.cast_signed());
    if resolver.is_memory(word) {
        return Some((data::moved_word(resolver.table, word).into(), Certainty::Near));
    }
    resolver.resolve(target)
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

/// Makes the instruction in `bytes` refer to `target`; `None` if its field cannot hold that.
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

/// Learns from a chunk that is complete. `recent` has the chunk at its end, and the bytes before it.
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
        if matches!(note.old.kind, ReferenceKind::Memory | ReferenceKind::Pointer) {
            if let Some(new) = recent.word(at)
                && (note.old.kind == ReferenceKind::Memory || !same)
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
            .filter(|actual| actual.kind == note.old.kind && actual.kind != ReferenceKind::Page);
        // A page's full address is not known before its low part has come.
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

    /// Random bytes, in which all instructions are equally likely.
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

    /// Every reference that random bytes have for an architecture: the bytes around it, its place among them,
    /// and itself.
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
                // A page whose low part was found behind it is rewritten without that part, and keeps its page.
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
                // An instruction with one part of an address refers to something only together with the other part.
                if matches!(
                    reference.kind,
                    ReferenceKind::Page | ReferenceKind::PageLow | ReferenceKind::Low | ReferenceKind::High
                ) {
                    continue;
                }
                let target = match reference.kind {
                    ReferenceKind::Constant => reference.target ^ 5,
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
