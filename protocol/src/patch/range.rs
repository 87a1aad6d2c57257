//! The decoding half of the range coder, and what encoder and decoder have in common.
//!
//! The coder is that of LZMA (carry-less on this side: 32 bits of range, bytes shifted in below 2^24), with
//! probabilities of 16 bits.

/// Codes one decision after the other: a decoder reads it from the patch, an encoder writes the one that it is given.
///
/// All code that models the format uses this trait, so that encoder and decoder cannot differ.
pub trait Coder {
    /// Codes one decision, which is true with a probability of `p` / 65,536 (1 to 65,535). A decoder ignores `bit`.
    fn bit(&mut self, p: u32, bit: bool) -> bool;
}

/// The decoder's state between two pieces of input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeState {
    range: u32,
    /// The value that was read, minus the start of the range.
    code: u32,
    /// The start of the range, as the encoder has it.
    low: u32,
}

/// Bytes that the encoder may leave out at the end because they would be zero.
pub const TAIL_BYTES_MAX: usize = 4;
/// Bytes that fill the decoder before the first decision.
pub(super) const START_BYTES: usize = 4;

impl RangeState {
    /// Starts with the first [`START_BYTES`] bytes of the coded stream.
    pub(super) fn start(bytes: [u8; START_BYTES]) -> Self {
        Self { range: u32::MAX, code: u32::from_be_bytes(bytes), low: 0 }
    }

    /// Whether the stream ends here as an encoder ends it: with [`last_value`].
    pub(super) fn is_end(self) -> bool {
        let low = u64::from(self.low);
        last_value(low, self.range).wrapping_sub(low) == u64::from(self.code)
    }

    pub(super) fn parts(self) -> [u32; 3] {
        [self.range, self.code, self.low]
    }

    pub(super) fn from_parts([range, code, low]: [u32; 3]) -> Self {
        Self { range, code, low }
    }
}

/// The value that ends a stream: of those in the last range, the one with the most zero bits at its end.
#[must_use]
pub fn last_value(low: u64, range: u32) -> u64 {
    let end = low + u64::from(range) - 1;
    let values = (0..=32).rev().map(|zeros| end >> zeros << zeros);
    values.into_iter().find(|value| *value >= low).unwrap_or(end)
}

/// Decodes from a piece of input. Reading beyond its end gives zeros and is counted.
#[derive(Debug)]
pub(super) struct RangeDecoder<'i> {
    state: RangeState,
    input: &'i [u8],
    used: usize,
}

impl<'i> RangeDecoder<'i> {
    pub(super) fn new(state: RangeState, input: &'i [u8]) -> Self {
        Self { state, input, used: 0 }
    }

    pub(super) fn state(&self) -> RangeState {
        self.state
    }

    /// Bytes used, with those beyond the end.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

impl Coder for RangeDecoder<'_> {
    fn bit(&mut self, p: u32, _: bool) -> bool {
        let state = &mut self.state;
        let bound = (state.range >> 16) * p;
        let bit = state.code < bound;
        if bit {
            state.range = bound;
        } else {
            state.code = state.code.wrapping_sub(bound);
            state.range -= bound;
            state.low = state.low.wrapping_add(bound);
        }
        while state.range < 1 << 24 {
            let byte = self.input.get(self.used).copied().unwrap_or(0);
            self.used += 1;
            state.range <<= 8;
            state.low <<= 8;
            state.code = state.code << 8 | u32::from(byte);
        }
        bit
    }
}
