//! From patch bytes to image bytes.

use alloc::vec::Vec;

use super::{DecodeFailure, Header, PatchError};

/// The old image, read at random.
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

/// Bytes of input that have to be at hand for one step, unless the input ends.
pub const INPUT_MARGIN: usize = 1024;

/// Decodes one patch.
#[derive(Clone, Debug)]
pub struct Decoder {
    header: Header,
    consumed: u64,
    produced: u64,
}

impl Decoder {
    /// Makes a decoder and allocates everything that it will ever need: [`Header::memory_bytes`].
    ///
    /// The patch bytes that it is fed begin after the header.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self { header, consumed: 0, produced: 0 }
    }

    /// What the patch says of itself.
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
        self.produced
    }

    /// Decodes into `out`; returns how many bytes of `input` were used and of `out` were filled.
    ///
    /// `input` goes on where the last call stopped using it. Where it is not the `last`, up to
    /// [`INPUT_MARGIN`] bytes of it stay unused: they have to be there again in the next call, with what follows.
    /// `(_, 0)` with room in `out` means that more input is needed, or that the image is complete.
    ///
    /// # Errors
    /// [`DecodeFailure`]. The decoder is of no use afterwards, unless the base failed: then the call can be repeated
    /// from a restored state.
    pub fn decode<B: Base>(
        &mut self,
        input: &[u8],
        last: bool,
        base: &mut B,
        out: &mut [u8],
    ) -> Result<(usize, usize), DecodeFailure<B::Error>> {
        let _ = base;
        let left = usize::try_from(self.header.image.size - self.produced).unwrap_or(usize::MAX);
        let usable = if last { input.len() } else { input.len().saturating_sub(INPUT_MARGIN) };
        let count = usable.min(out.len()).min(left);
        if last && count == 0 && left > 0 && !out.is_empty() {
            return Err(PatchError::Truncated { produced: self.produced }.into());
        }
        if let (Some(out), Some(input)) = (out.get_mut(..count), input.get(..count)) {
            out.copy_from_slice(input);
        }
        self.consumed += count as u64;
        self.produced += count as u64;
        Ok((count, count))
    }

    /// Whether the image is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.produced == self.header.image.size
    }

    /// Checks the end: the image is complete and nothing of the patch is left, of which `unused` bytes were not used.
    ///
    /// # Errors
    /// [`PatchError::Truncated`], [`PatchError::Trailing`].
    pub fn finish(&self, unused: u64) -> Result<(), PatchError> {
        if !self.is_complete() {
            return Err(PatchError::Truncated { produced: self.produced });
        }
        if unused > 0 { Err(PatchError::Trailing) } else { Ok(()) }
    }

    /// The whole state, to go on from after a restart.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        [self.consumed.to_le_bytes(), self.produced.to_le_bytes()].concat()
    }

    /// Bytes that [`save`](Self::save) gives, at most.
    #[must_use]
    pub fn state_bytes_max(header: &Header) -> u64 {
        u64::from(header.memory_bytes())
    }

    /// Goes on from a saved state of the same patch.
    ///
    /// # Errors
    /// [`PatchError::State`].
    pub fn restore(header: Header, state: &[u8]) -> Result<Self, PatchError> {
        let (consumed, produced) = state.split_first_chunk().ok_or(PatchError::State)?;
        let produced = u64::from_le_bytes(produced.try_into().map_err(|_| PatchError::State)?);
        if produced > header.image.size {
            return Err(PatchError::State);
        }
        Ok(Self { header, consumed: u64::from_le_bytes(*consumed), produced })
    }
}
