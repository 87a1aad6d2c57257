//! Codes copies of the old image. Each block has a mode; each chunk is predicted and corrected, and then
//! learned from.

use super::correction::Chunk;
use super::engine::{CHOICE_LIMIT, Copying, Engine, MODE_CHOICES};
use super::predict::{self, CHUNK, CHUNK_BYTES, MARGIN, Mode, Prediction, Resolver, Span, View};
use super::range::Coder;
use super::script::{BLOCK_BYTES, Script};
use super::{Architecture, Base, DecodeFailure};

impl Engine {
    /// Codes a chunk of a copy.
    pub(super) fn copy<C: Coder, S: Script, B: Base>(
        &mut self,
        coder: &mut C,
        script: &mut S,
        base: &mut B,
    ) -> Result<(), DecodeFailure<B::Error>> {
        let Copying { old, done, left, mut walk } = self.copying;
        let at = self.produced;
        if done == 0 || at.is_multiple_of(BLOCK_BYTES) {
            let len = (BLOCK_BYTES - at % BLOCK_BYTES).min(left);
            self.choose_mode(coder, script, base, Span { old, new: at, len }, walk)
                .map_err(DecodeFailure::Base)?;
        }
        let len = (CHUNK_BYTES - at % CHUNK_BYTES).min(left);
        let span = Span { old, new: at, len };
        let (bytes, start) = self.around(base, span).map_err(DecodeFailure::Base)?;
        let view = View { bytes: bytes.get(..span_bytes(self.base_len, span)).unwrap_or_default(), start };
        let resolver = Resolver { region: &self.region, map: &self.map, table: &self.table, old: view };
        predict::predict(&resolver, self.mode, span, &mut walk, &mut self.prediction);
        let mut plain = [0; CHUNK];
        for (place, offset) in plain.iter_mut().zip(0..len) {
            *place = view.byte(old + offset).unwrap_or(0);
        }
        let mut actual = [0; CHUNK];
        for (place, offset) in actual.iter_mut().zip(0..len) {
            *place = script.byte(at + offset);
        }
        let unit = match (self.mode, self.region.architecture) {
            (Mode::Code, Architecture::Thumb | Architecture::RiscV) => 2,
            _ => 4,
        };
        let chunk = Chunk {
            len: len as usize,
            at,
            predicted: &self.prediction.bytes,
            kinds: &self.prediction.kinds,
            old: &plain,
            unit,
            mode: self.mode as u8,
            from_start: done,
            to_end: left,
            before: self.window.last_eight(),
        };
        self.corrections.code(coder, &chunk, &mut actual);
        let mut recent = [0; RECENT + CHUNK];
        for (place, distance) in recent.iter_mut().zip((1..=MARGIN).rev()) {
            *place = self.window.back(distance);
        }
        for (place, byte) in recent.iter_mut().skip(RECENT).zip(actual) {
            *place = byte;
        }
        for byte in actual.into_iter().take(len as usize) {
            self.emit(byte);
        }
        // Places before the image's first byte wrap around and are never looked at.
        let bytes = recent.get(..RECENT + len as usize).unwrap_or_default();
        let before = MARGIN.min(at);
        let recent =
            View { bytes: bytes.get(RECENT - before as usize..).unwrap_or_default(), start: at - before };
        predict::learn(&self.region, self.mode, span, &self.prediction, view, recent, &mut self.table);
        self.copying = Copying { old: old + len, done: done.saturating_add(len), left: left - len, walk };
        if self.copying.left == 0 {
            self.right = 0;
        }
        Ok(())
    }

    /// The old image around a span.
    fn around<B: Base>(&self, base: &mut B, span: Span) -> Result<([u8; AROUND], u32), B::Error> {
        let mut bytes = [0; AROUND];
        let len = span_bytes(self.base_len, span);
        let start = span.old.saturating_sub(MARGIN);
        if let Some(bytes) = bytes.get_mut(..len) {
            base.read(start.into(), bytes)?;
        }
        Ok((bytes, start))
    }

    /// Codes the mode in which the block that begins here is predicted.
    fn choose_mode<C: Coder, S: Script, B: Base>(
        &mut self,
        coder: &mut C,
        script: &mut S,
        base: &mut B,
        span: Span,
        walk: u32,
    ) -> Result<(), B::Error> {
        let last = self.mode;
        let mut wanted = Mode::Raw;
        if S::CHOOSES {
            wanted = script.mode(span.len, last, self.all_wrong(script, base, span, walk)?);
        }
        let context = MODE_CHOICES + (last as usize) * 16;
        let choices = &mut self.choices;
        if choices.bit(coder, context, CHOICE_LIMIT, wanted == last) {
            return Ok(());
        }
        let mut node = 1;
        for at in (0..3).rev() {
            let bit = choices.bit(coder, context + node, CHOICE_LIMIT, wanted as usize >> at & 1 != 0);
            node = node << 1 | usize::from(bit);
        }
        self.mode = Mode::ALL.get(node & 7).copied().unwrap_or_default();
        Ok(())
    }

    /// Counts the bytes of a block that each mode would get wrong, the last mode first. Once a mode gets none
    /// wrong, the others are not tried; neither is one gone on with that gets more wrong than another.
    fn all_wrong<S: Script, B: Base>(
        &self,
        script: &S,
        base: &mut B,
        block: Span,
        walk: u32,
    ) -> Result<[u32; Mode::ALL.len()], B::Error> {
        let mut wrong = [u32::MAX; Mode::ALL.len()];
        let mut least = u32::MAX;
        let others = Mode::ALL.into_iter().filter(|mode| *mode != self.mode);
        for mode in core::iter::once(self.mode).chain(others) {
            if least == 0 {
                break;
            }
            let count = self.wrong(script, base, mode, block, walk, least)?;
            least = least.min(count);
            if let Some(place) = wrong.get_mut(mode as usize) {
                *place = count;
            }
        }
        Ok(wrong)
    }

    /// Counts the bytes of a block that a mode would get wrong, up to the first chunk with which they are more
    /// than `most`.
    fn wrong<S: Script, B: Base>(
        &self,
        script: &S,
        base: &mut B,
        mode: Mode,
        block: Span,
        mut walk: u32,
        most: u32,
    ) -> Result<u32, B::Error> {
        let (mut prediction, mut count, mut done) = (Prediction::new(), 0, 0);
        while done < block.len && count <= most {
            let (old, new) = (block.old + done, block.new + done);
            let len = (CHUNK_BYTES - new % CHUNK_BYTES).min(block.len - done);
            let span = Span { old, new, len };
            let (bytes, start) = self.around(base, span)?;
            let view =
                View { bytes: bytes.get(..span_bytes(self.base_len, span)).unwrap_or_default(), start };
            let resolver = Resolver { region: &self.region, map: &self.map, table: &self.table, old: view };
            predict::predict(&resolver, mode, span, &mut walk, &mut prediction);
            let predicted = prediction.bytes.iter().zip(0..len);
            count += predicted.map(|(byte, at)| u32::from(*byte != script.byte(new + at))).sum::<u32>();
            done += len;
        }
        Ok(count)
    }
}

/// Bytes before a chunk that learning looks at.
const RECENT: usize = MARGIN as usize;
/// Most bytes of the old image that a chunk needs.
const AROUND: usize = CHUNK + 2 * MARGIN as usize;

/// Bytes of the old image around a span, as far as there are any.
fn span_bytes(base_len: u32, span: Span) -> usize {
    let start = span.old.saturating_sub(MARGIN);
    let end = (span.old.saturating_add(span.len).saturating_add(MARGIN)).min(base_len);
    (end.saturating_sub(start) as usize).min(AROUND)
}
