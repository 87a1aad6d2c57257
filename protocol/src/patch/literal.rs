//! Codes literals: bytes that nothing predicts. Each is eight decisions, whose probabilities come from
//! several contexts.

use super::model::{Mixer, Slots};
use super::range::Coder;

/// The contexts by which a literal is coded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Surroundings {
    /// The eight bytes before, the nearest in the lowest 8 bits.
    pub(super) before: u64,
    /// Place in the new image.
    pub(super) at: u32,
    /// The expected byte, and how many of the last expected bytes were right.
    pub(super) expected: u8,
    pub(super) right: u8,
}

const INPUTS: usize = 7;

/// The models of literals.
#[derive(Clone, Debug)]
pub(super) struct Literals {
    slots: Slots<u16>,
    mixer: Mixer<INPUTS>,
}

/// Limit of the number of observations that count (SPEC section 5.5).
const LIMIT: u32 = 14;
/// log2 of the number of sets of weights.
const SETS_LOG2: u8 = 7;

impl Literals {
    /// Bytes of memory besides the slots.
    pub(super) const FIXED_BYTES: usize = size_of::<[i32; INPUTS]>() << SETS_LOG2;

    pub(super) fn new(slots_log2: u8) -> Self {
        Self { slots: Slots::new(slots_log2), mixer: Mixer::new(SETS_LOG2, 6, 22_000) }
    }

    pub(super) fn state(&mut self) -> (&mut [u16], impl Iterator<Item = &mut i32>) {
        (self.slots.all_mut(), self.mixer.all_mut())
    }

    /// Codes a byte.
    pub(super) fn code(&mut self, coder: &mut impl Coder, around: &Surroundings, byte: u8) -> u8 {
        let before = |count: u32| around.before & ((1 << (8 * count)) - 1);
        let place = u64::from(around.at & 3);
        let expected = u64::from(around.expected) << 2 | u64::from(around.right.min(3));
        let contexts = [
            hash(0, place),
            hash(1, before(1) << 2 | place),
            hash(2, before(2)),
            hash(3, before(3)),
            hash(4, (around.before >> 24 & 0xff) << 10 | before(1) << 2 | place),
            hash(5, expected),
            hash(6, before(4)),
        ];
        let mut node = 1_usize;
        for at in (0..8).rev() {
            let spread = spread(node);
            let indices = contexts.map(|context| context ^ spread);
            let set = (around.at as usize & 3) << 5 | usize::from(around.right.min(3)) << 3 | at;
            let bit = self.mixer.bit(coder, &mut self.slots, indices, set, LIMIT, byte >> at & 1 != 0);
            node = node << 1 | usize::from(bit);
        }
        u8::try_from(node & 0xff).unwrap_or(0)
    }
}

/// The number that a node in the tree of a byte's bits adds to a context. It has 32 bits on every device.
pub(super) fn spread(node: usize) -> usize {
    let wide = u32::try_from(node).unwrap_or(0).wrapping_mul(0x9e35_79b1);
    (wide.wrapping_mul(0x1_0001) ^ wide >> 15) as usize
}

/// Hashes a context into a number whose low bits depend on all of its bits.
pub(super) fn hash(which: u64, value: u64) -> usize {
    let mixed = (value ^ which << 56).wrapping_add(which).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((mixed ^ mixed >> 29) >> 20 & 0xffff_ffff).unwrap_or(0)
}
