//! Saves the decoder's state as bytes, and goes on from it after a restart.
//!
//! A state has everything that decides what comes next, field after field. Numbers are little-endian, and lists stand
//! behind their length. The same walk over the fields writes and reads them, so that neither can forget one.

use alloc::vec::Vec;

use super::decoder::Decoder;
use super::engine::{Copying, Engine, Phase};
use super::map::Entry;
use super::predict::Mode;
use super::range::RangeState;
use super::region::{SEGMENTS_MAX, Segment};
use super::{Architecture, Header, PatchError};

/// First byte of a state. Every format has a first byte of its own.
const FORMAT: u8 = 1;

/// Visits each field of the state, to write it or to read it.
trait Visitor {
    /// Visits bytes that are saved as they are.
    fn bytes(&mut self, bytes: &mut [u8]) -> Option<()>;

    fn number(&mut self, number: &mut u64) -> Option<()> {
        let mut bytes = number.to_le_bytes();
        self.bytes(&mut bytes)?;
        *number = u64::from_le_bytes(bytes);
        Some(())
    }

    fn small(&mut self, number: &mut u32) -> Option<()> {
        let mut bytes = number.to_le_bytes();
        self.bytes(&mut bytes)?;
        *number = u32::from_le_bytes(bytes);
        Some(())
    }

    fn byte(&mut self, byte: &mut u8) -> Option<()> {
        self.bytes(core::slice::from_mut(byte))
    }

    fn signed(&mut self, number: &mut i64) -> Option<()> {
        let mut bits = number.cast_unsigned();
        self.number(&mut bits)?;
        *number = bits.cast_signed();
        Some(())
    }

    fn smalls(&mut self, numbers: &mut [u32]) -> Option<()> {
        numbers.iter_mut().try_for_each(|number| self.small(number))
    }

    fn halves(&mut self, numbers: &mut [u16]) -> Option<()> {
        numbers.iter_mut().try_for_each(|number| {
            let mut bytes = number.to_le_bytes();
            self.bytes(&mut bytes)?;
            *number = u16::from_le_bytes(bytes);
            Some(())
        })
    }

    /// Visits a list of at most `most` items. When reading, it makes as many as the state has.
    fn list<T: Default + Clone>(
        &mut self,
        list: &mut Vec<T>,
        most: usize,
        mut item: impl FnMut(&mut Self, &mut T) -> Option<()>,
    ) -> Option<()> {
        let mut len = u32::try_from(list.len()).ok()?;
        self.small(&mut len)?;
        let len = usize::try_from(len).ok().filter(|len| *len <= most)?;
        list.resize(len, T::default());
        list.iter_mut().try_for_each(|place| item(self, place))
    }
}

/// Writes.
struct Save(Vec<u8>);

impl Visitor for Save {
    fn bytes(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.0.extend_from_slice(bytes);
        Some(())
    }
}

/// Reads.
struct Load<'s>(&'s [u8]);

impl Visitor for Load<'_> {
    fn bytes(&mut self, bytes: &mut [u8]) -> Option<()> {
        let (first, rest) = self.0.split_at_checked(bytes.len())?;
        bytes.copy_from_slice(first);
        self.0 = rest;
        Some(())
    }
}

impl Decoder {
    /// The whole state, to go on from after a restart; at most [`Self::state_bytes_max`].
    #[must_use]
    pub fn save(&mut self) -> Vec<u8> {
        let mut save = Save(Vec::from([FORMAT]));
        walk(self, &mut save).expect("writing to memory does not fail");
        save.0
    }

    /// Bytes that [`save`](Self::save) gives, at most.
    #[must_use]
    pub fn state_bytes_max(header: &Header) -> u64 {
        u64::from(header.memory_bytes())
    }

    /// Goes on from a saved state of the same patch.
    ///
    /// The host has to check that the state is whole. One that is not may give another image, and does
    /// nothing worse.
    ///
    /// # Errors
    /// [`PatchError::State`].
    pub fn restore(header: Header, state: &[u8]) -> Result<Self, PatchError> {
        let (format, parts) = state.split_first().ok_or(PatchError::State)?;
        if *format != FORMAT {
            return Err(PatchError::State);
        }
        let mut decoder = Self::new(header);
        let mut load = Load(parts);
        walk(&mut decoder, &mut load).ok_or(PatchError::State)?;
        let sound = load.0.is_empty() && is_sound(&decoder.engine);
        if sound { Ok(decoder) } else { Err(PatchError::State) }
    }
}

/// Whether the state fulfils everything that a step relies on.
fn is_sound(engine: &Engine) -> bool {
    let Copying { old, left, .. } = engine.copying;
    let ends_in = |start: u32, len: u32, end: u32| start.checked_add(len).is_some_and(|at| at <= end);
    let output = engine.produced <= engine.region_end
        && engine.region_end <= engine.image_len
        && engine.ready.len() <= engine.produced as usize;
    let copying = ends_in(old, left, engine.base_len) && ends_in(engine.produced, left, engine.region_end);
    let entries = &engine.map.entries;
    let in_order = entries.windows(2).all(|pair| match pair {
        [one, other] => ends_in(one.new, one.len, other.new),
        _ => true,
    });
    let in_images = entries.iter().all(|entry| {
        ends_in(entry.old, entry.len, engine.base_len) && ends_in(entry.new, entry.len, engine.region_end)
    });
    let next = entries.get(engine.next_entry as usize);
    let to_come = next.is_none_or(|entry| ends_in(engine.produced, left, entry.new));
    let (has, wants) = (entries.len(), engine.region.entries as usize);
    let [old, new] = engine.segments.map(usize::from);
    let all_segments = engine.region.old.len() == old && engine.region.new.len() == new;
    let counted = match engine.phase {
        Phase::Region | Phase::Body => has == wants && all_segments,
        Phase::Entries => has < wants && all_segments,
        Phase::Segments => has == 0 && engine.region.old.len() + engine.region.new.len() < old + new,
    };
    output && copying && in_order && in_images && to_come && counted
}

/// Visits all fields.
fn walk<P: Visitor>(decoder: &mut Decoder, visitor: &mut P) -> Option<()> {
    visitor.number(&mut decoder.consumed)?;
    let mut beyond = decoder.beyond as u64;
    visitor.number(&mut beyond)?;
    decoder.beyond = usize::try_from(beyond).ok()?;
    visitor.byte(&mut decoder.last_byte)?;
    let mut has_range = u8::from(decoder.range.is_some());
    visitor.byte(&mut has_range)?;
    let mut range = decoder.range.unwrap_or_default().parts();
    visitor.smalls(&mut range)?;
    decoder.range = (has_range != 0).then(|| RangeState::from_parts(range));
    // Bytes that were given out are not needed any more.
    decoder.engine.ready.drain(..decoder.given);
    decoder.given = 0;
    let engine = &mut decoder.engine;
    visitor.list(&mut engine.ready, super::engine::STEP_BYTES_MAX, |visitor, byte| visitor.byte(byte))?;
    let mut phase = engine.phase as u8;
    visitor.byte(&mut phase)?;
    engine.phase = Phase::from_number(phase)?;
    for number in
        [&mut engine.produced, &mut engine.region_end, &mut engine.next_entry, &mut engine.last_distance]
    {
        visitor.small(number)?;
    }
    let Copying { old, done, left, walk } = &mut engine.copying;
    for number in [old, done, left, walk] {
        visitor.small(number)?;
    }
    let mut mode = engine.mode as u8;
    visitor.byte(&mut mode)?;
    engine.mode = Mode::ALL.get(usize::from(mode)).copied()?;
    visitor.signed(&mut engine.shift)?;
    visitor.byte(&mut engine.right)?;
    visitor.byte(&mut engine.ops)?;
    region(engine, visitor)?;
    visitor.list(&mut engine.map.entries, engine.map_room as usize, |visitor, entry: &mut Entry| {
        [&mut entry.old, &mut entry.new, &mut entry.len]
            .into_iter()
            .try_for_each(|number| visitor.small(number))
    })?;
    if engine.phase == Phase::Body {
        engine.map.sort();
    }
    let (bytes, written) = engine.window.parts_mut();
    visitor.bytes(bytes)?;
    visitor.small(written)?;
    let (sorted, recent, oldest, room) = engine.table.parts_mut();
    visitor.list(sorted, room as usize, |visitor, (old, new)| {
        visitor.small(old)?;
        visitor.small(new)
    })?;
    visitor.list(recent, room as usize, |visitor, old| visitor.small(old))?;
    visitor.small(oldest)?;
    visitor.halves(engine.numbers.all_mut())?;
    visitor.smalls(engine.choices.all_mut())?;
    let (flags, bytes) = engine.corrections.slots_mut();
    visitor.smalls(flags)?;
    visitor.halves(bytes)?;
    let (history, run, deltas) = engine.corrections.scalars_mut();
    visitor.small(history)?;
    visitor.small(run)?;
    visitor.bytes(deltas)?;
    weights(engine.corrections.weights_mut(), visitor)?;
    let (slots, mixer) = engine.literals.state();
    visitor.halves(slots)?;
    weights(mixer, visitor)
}

fn region<P: Visitor>(engine: &mut Engine, visitor: &mut P) -> Option<()> {
    let region = &mut engine.region;
    visitor.small(&mut region.len)?;
    visitor.small(&mut region.entries)?;
    let mut architecture = region.architecture as u32;
    visitor.small(&mut architecture)?;
    region.architecture = Architecture::from_number(architecture)?;
    let mut wide = u8::from(region.wide);
    visitor.byte(&mut wide)?;
    region.wide = wide != 0;
    visitor.bytes(&mut region.memory)?;
    visitor.bytes(&mut engine.segments)?;
    for segments in [&mut region.old, &mut region.new] {
        visitor.list(segments, SEGMENTS_MAX, |visitor, segment: &mut Segment| {
            visitor.small(&mut segment.offset)?;
            visitor.number(&mut segment.address)?;
            visitor.small(&mut segment.len)
        })?;
    }
    Some(())
}

fn weights<'w, P: Visitor>(weights: impl Iterator<Item = &'w mut i32>, visitor: &mut P) -> Option<()> {
    for weight in weights {
        let mut bits = weight.cast_unsigned();
        visitor.small(&mut bits)?;
        *weight = bits.cast_signed();
    }
    Some(())
}
