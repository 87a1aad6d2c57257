//! The range coder's encoding half, and a coder that only counts.

use whimbrel_protocol::patch::{Coder, TAIL_BYTES_MAX, last_value};

/// Writes decisions (as LZMA does).
#[derive(Debug)]
pub(super) struct RangeEncoder {
    low: u64,
    range: u32,
    /// A byte that a carry may still increase, and the number of 0xff bytes that follow it.
    held: Option<u8>,
    full: u64,
    out: Vec<u8>,
}

impl RangeEncoder {
    pub(super) fn new(out: Vec<u8>) -> Self {
        Self { low: 0, range: u32::MAX, held: None, full: 0, out }
    }

    fn shift(&mut self) {
        let carry = u8::from(self.low >> 32 != 0);
        let top = (self.low >> 24 & 0xff) as u8;
        if carry != 0 || top != 0xff {
            if let Some(held) = self.held {
                self.out.push(held.wrapping_add(carry));
            }
            self.out.extend(core::iter::repeat_n(
                0xff_u8.wrapping_add(carry),
                usize::try_from(self.full).unwrap_or(0),
            ));
            self.full = 0;
            self.held = Some(top);
        } else {
            self.full += 1;
        }
        self.low = self.low << 8 & 0xffff_ffff;
    }

    /// Ends the stream. Zeros at its end are left out: a decoder reads them anyway.
    pub(super) fn finish(mut self, head: usize) -> Vec<u8> {
        self.low = last_value(self.low, self.range);
        for _ in 0..5 {
            self.shift();
        }
        for _ in 0..TAIL_BYTES_MAX {
            if self.out.len() > head && self.out.last() == Some(&0) {
                self.out.pop();
            }
        }
        self.out
    }
}

impl Coder for RangeEncoder {
    fn bit(&mut self, p: u32, bit: bool) -> bool {
        let bound = (self.range >> 16) * p;
        if bit {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
        bit
    }
}

/// Counts the bits that decisions would take.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) bits: f64,
}

impl Coder for Counter {
    fn bit(&mut self, p: u32, bit: bool) -> bool {
        let p = f64::from(if bit { p } else { 65_536 - p }) / 65_536.0;
        self.bits -= p.log2();
        bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A decoder reads 4 bytes at its start and one at each shift, and no more than 4 zeros beyond the end.
    #[test]
    fn of_a_stream_that_ends_in_many_zeros_four_are_left_out() {
        // All decisions are likely and true, so that the low end of the range stays at zero.
        let mut encoder = RangeEncoder::new(vec![7]);
        let (mut range, mut shifts) = (u32::MAX, 0);
        for _ in 0..5000 {
            encoder.bit(60_000, true);
            range = (range >> 16) * 60_000;
            while range < 1 << 24 {
                range <<= 8;
                shifts += 1;
            }
        }
        assert!(shifts > 50);
        let stream = encoder.finish(1);
        assert_eq!(stream.len(), 1 + 4 + shifts - TAIL_BYTES_MAX);
        assert!(stream[1..].iter().all(|byte| *byte == 0));
    }
}
