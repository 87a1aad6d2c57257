//! The decoder's state as bytes, to go on from after a restart.
//!
//! Everything that decides what comes next, part after part: numbers little-endian, lists behind their length. One
//! walk over the parts writes and reads, so that neither can forget one.

use alloc::vec::Vec;

use super::decoder::Decoder;
use super::engine::{Copying, Engine, Phase};
use super::map::Entry;
use super::predict::Mode;
use super::range::RangeState;
use super::region::{SEGMENTS_MAX, Segment};
use super::{Architecture, Header, PatchError};

/// First byte of a state; another format has another.
const FORMAT: u8 = 1;

/// What is done with each part.
trait Part {
    /// Bytes that stand for as many bytes of the decoder.
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

    /// A list of at most `most` items; reading makes as many as there are to be.
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

impl Part for Save {
    fn bytes(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.0.extend_from_slice(bytes);
        Some(())
    }
}

/// Reads.
struct Load<'s>(&'s [u8]);

impl Part for Load<'_> {
    fn bytes(&mut self, bytes: &mut [u8]) -> Option<()> {
        let (part, rest) = self.0.split_at_checked(bytes.len())?;
        bytes.copy_from_slice(part);
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
    /// Whether the state is whole, is the host's to check; one that is not may give another image, and nothing worse.
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

/// Whether everything that a step relies on holds.
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

/// Goes over everything.
fn walk<P: Part>(decoder: &mut Decoder, part: &mut P) -> Option<()> {
    part.number(&mut decoder.consumed)?;
    let mut beyond = decoder.beyond as u64;
    part.number(&mut beyond)?;
    decoder.beyond = usize::try_from(beyond).ok()?;
    part.byte(&mut decoder.last_byte)?;
    let mut has_range = u8::from(decoder.range.is_some());
    part.byte(&mut has_range)?;
    let mut range = decoder.range.unwrap_or_default().parts();
    part.smalls(&mut range)?;
    decoder.range = (has_range != 0).then(|| RangeState::from_parts(range));
    // What was given out is not needed any more.
    decoder.engine.ready.drain(..decoder.given);
    decoder.given = 0;
    let engine = &mut decoder.engine;
    part.list(&mut engine.ready, super::engine::STEP_BYTES_MAX, |part, byte| part.byte(byte))?;
    let mut phase = engine.phase as u8;
    part.byte(&mut phase)?;
    engine.phase = Phase::from_number(phase)?;
    for number in
        [&mut engine.produced, &mut engine.region_end, &mut engine.next_entry, &mut engine.last_distance]
    {
        part.small(number)?;
    }
    let Copying { old, done, left, walk } = &mut engine.copying;
    for number in [old, done, left, walk] {
        part.small(number)?;
    }
    let mut mode = engine.mode as u8;
    part.byte(&mut mode)?;
    engine.mode = Mode::ALL.get(usize::from(mode)).copied()?;
    part.signed(&mut engine.shift)?;
    part.byte(&mut engine.right)?;
    part.byte(&mut engine.ops)?;
    region(engine, part)?;
    part.list(&mut engine.map.entries, engine.map_room as usize, |part, entry: &mut Entry| {
        [&mut entry.old, &mut entry.new, &mut entry.len].into_iter().try_for_each(|number| part.small(number))
    })?;
    if engine.phase == Phase::Body {
        engine.map.sort();
    }
    let (bytes, written) = engine.window.parts_mut();
    part.bytes(bytes)?;
    part.small(written)?;
    let (sorted, recent, oldest, room) = engine.table.parts_mut();
    part.list(sorted, room as usize, |part, (old, new)| {
        part.small(old)?;
        part.small(new)
    })?;
    part.list(recent, room as usize, |part, old| part.small(old))?;
    part.small(oldest)?;
    part.halves(engine.numbers.all_mut())?;
    part.smalls(engine.choices.all_mut())?;
    let (flags, bytes) = engine.corrections.slots_mut();
    part.smalls(flags)?;
    part.halves(bytes)?;
    let (history, run, deltas) = engine.corrections.scalars_mut();
    part.small(history)?;
    part.small(run)?;
    part.bytes(deltas)?;
    weights(engine.corrections.weights_mut(), part)?;
    let (slots, mixer) = engine.literals.state();
    part.halves(slots)?;
    weights(mixer, part)
}

fn region<P: Part>(engine: &mut Engine, part: &mut P) -> Option<()> {
    let region = &mut engine.region;
    part.small(&mut region.len)?;
    part.small(&mut region.entries)?;
    let mut architecture = region.architecture as u32;
    part.small(&mut architecture)?;
    region.architecture = Architecture::from_number(architecture)?;
    let mut wide = u8::from(region.wide);
    part.byte(&mut wide)?;
    region.wide = wide != 0;
    part.bytes(&mut region.memory)?;
    part.bytes(&mut engine.segments)?;
    for segments in [&mut region.old, &mut region.new] {
        part.list(segments, SEGMENTS_MAX, |part, segment: &mut Segment| {
            part.small(&mut segment.offset)?;
            part.number(&mut segment.address)?;
            part.small(&mut segment.len)
        })?;
    }
    Some(())
}

fn weights<'w, P: Part>(weights: impl Iterator<Item = &'w mut i32>, part: &mut P) -> Option<()> {
    for weight in weights {
        let mut bits = weight.cast_unsigned();
        part.small(&mut bits)?;
        *weight = bits.cast_signed();
    }
    Some(())
}
