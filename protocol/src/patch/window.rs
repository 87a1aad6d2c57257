//! The dictionary: the most recent output.

use alloc::vec;
use alloc::vec::Vec;

/// A ring of as many bytes as a power of two.
#[derive(Clone, Debug)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// Bytes written so far.
    written: u32,
}

impl Window {
    /// Empty, of `1 << log2` bytes.
    pub(super) fn new(log2: u8) -> Self {
        Self { bytes: vec![0; 1 << log2], written: 0 }
    }

    pub(super) fn push(&mut self, byte: u8) {
        let mask = self.bytes.len() - 1;
        if let Some(place) = self.bytes.get_mut(self.written as usize & mask) {
            *place = byte;
        }
        self.written = self.written.wrapping_add(1);
    }

    /// The byte that was written `distance` before the next one; 1 is the last one. It is zero if there is
    /// none.
    pub(super) fn back(&self, distance: u32) -> u8 {
        let mask = self.bytes.len() - 1;
        self.bytes.get(self.written.wrapping_sub(distance) as usize & mask).copied().unwrap_or(0)
    }

    /// Whether there is a byte at this distance.
    pub(super) fn reaches(&self, distance: u32) -> bool {
        distance >= 1 && distance <= self.written && distance as usize <= self.bytes.len()
    }

    /// The last eight bytes, the last one in the lowest bits.
    pub(super) fn last_eight(&self) -> u64 {
        (1..=8).rev().fold(0, |value, distance| value << 8 | u64::from(self.back(distance)))
    }

    pub(super) fn parts_mut(&mut self) -> (&mut [u8], &mut u32) {
        (&mut self.bytes, &mut self.written)
    }
}
