//! Decodes patch bytes into image bytes.

use super::engine::Engine;
use super::range::{RangeDecoder, RangeState, START_BYTES, TAIL_BYTES_MAX};
use super::script::Nothing;
use super::{DecodeFailure, Header, PatchError};

/// The old image, which can be read in any order.
pub trait Base {
    /// Why it could not be read.
    type Error;

    /// Fills `into` with the bytes from `at`; the decoder asks for nothing beyond the size in the header.
    ///
    /// # Errors
    /// The host's own.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// The old image in memory.
impl Base for &[u8] {
    type Error = PatchError;

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), PatchError> {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let end = start.saturating_add(into.len());
        let bytes =
            self.get(start..end).ok_or(PatchError::Range { what: "read of the old image", produced: 0 })?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}

/// Bytes of input that have to be there for one step, unless the input ends.
///
/// A chunk of 64 bytes takes at most 64 x 9 + 32 decisions of at most 12 bits each; every other step takes
/// fewer.
pub const INPUT_MARGIN: usize = 1024;

/// Decodes one patch.
#[derive(Clone, Debug)]
pub struct Decoder {
    header: Header,
    pub(super) engine: Engine,
    /// None before the first bytes have come.
    pub(super) range: Option<RangeState>,
    pub(super) consumed: u64,
    /// Bytes of `engine.ready` that were given out.
    pub(super) given: usize,
    /// Zeros that were read beyond the end.
    pub(super) beyond: usize,
    /// The last byte that was used.
    pub(super) last_byte: u8,
}

impl Decoder {
    /// Makes a decoder and allocates everything that it will ever need: [`Header::memory_bytes`].
    ///
    /// The patch bytes that it is fed begin after the header.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            header,
            engine: Engine::new(&header),
            range: None,
            consumed: 0,
            given: 0,
            beyond: 0,
            last_byte: 1,
        }
    }

    /// The header of the patch.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the patch that were used, the header not included.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Bytes of the image that came out.
    #[must_use]
    pub fn produced(&self) -> u64 {
        u64::from(self.engine.produced()) - (self.engine.ready.len() - self.given) as u64
    }

    /// Decodes into `out`; returns how many bytes of `input` were used and of `out` were filled.
    ///
    /// `input` has to begin with the first byte that the last call did not use. If it is not the `last` one, up to
    /// [`INPUT_MARGIN`] bytes of it stay unused; they have to be there again in the next call, with the bytes that
    /// follow. `(_, 0)` with room in `out` means that more input is needed, or that the image is complete.
    ///
    /// # Errors
    /// [`DecodeFailure`]. The decoder cannot be used afterwards. If the old image could not be read, decoding
    /// can go on from a saved state.
    pub fn decode<B: Base>(
        &mut self,
        input: &[u8],
        last: bool,
        base: &mut B,
        out: &mut [u8],
    ) -> Result<(usize, usize), DecodeFailure<B::Error>> {
        let (mut used, mut filled) = (0, 0);
        loop {
            filled += self.give(out.get_mut(filled..).unwrap_or_default());
            let at_hand = input.len() - used;
            if filled == out.len() || self.is_complete() || (!last && at_hand < INPUT_MARGIN) {
                return Ok((used, filled));
            }
            let rest = input.get(used..).unwrap_or_default();
            let Some(range) = self.range else {
                // An encoder leaves out zeros at the end, which may be these.
                let mut start = [0; START_BYTES];
                for (place, byte) in start.iter_mut().zip(rest) {
                    *place = *byte;
                }
                self.range = Some(RangeState::start(start));
                self.beyond = START_BYTES.saturating_sub(rest.len());
                used += self.consume(rest, START_BYTES);
                continue;
            };
            let mut coder = RangeDecoder::new(range, rest);
            self.given = 0;
            self.engine.step(&mut coder, &mut Nothing, base)?;
            let step = coder.used();
            self.range = Some(coder.state());
            self.beyond += step.saturating_sub(rest.len());
            if self.beyond > TAIL_BYTES_MAX {
                return Err(PatchError::Truncated { produced: self.produced() }.into());
            }
            used += self.consume(rest, step);
        }
    }

    /// Notes that `count` bytes of `rest` were used, as far as there are so many.
    fn consume(&mut self, rest: &[u8], count: usize) -> usize {
        let count = count.min(rest.len());
        if let Some(byte) = count.checked_sub(1).and_then(|at| rest.get(at)) {
            self.last_byte = *byte;
        }
        self.consumed += count as u64;
        count
    }

    /// Hands out what is ready.
    fn give(&mut self, out: &mut [u8]) -> usize {
        let ready = self.engine.ready.get(self.given..).unwrap_or_default();
        let count = ready.len().min(out.len());
        for (place, byte) in out.iter_mut().zip(ready) {
            *place = *byte;
        }
        self.given += count;
        count
    }

    /// Whether the image is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.engine.is_complete() && self.given == self.engine.ready.len()
    }

    /// Checks the end: the image is complete and nothing of the patch is left, of which `unused` bytes were not used.
    ///
    /// There is only one way to end a patch, so that bytes added to it are found, even zeros.
    ///
    /// # Errors
    /// [`PatchError::Truncated`], [`PatchError::Trailing`].
    pub fn finish(&self, unused: u64) -> Result<(), PatchError> {
        if !self.is_complete() {
            return Err(PatchError::Truncated { produced: self.produced() });
        }
        // The encoder left out as many zeros as it may.
        let trimmed = self.last_byte != 0 || self.beyond == TAIL_BYTES_MAX;
        let ends = trimmed && self.range.is_some_and(|range| range.is_end());
        if unused > 0 || !ends { Err(PatchError::Trailing) } else { Ok(()) }
    }
}
