//! Adaptive probabilities, and mixers that combine several of them into one.
//!
//! A probability is that of a decision being true. Mixing is logistic (Mahoney, "Adaptive Weighing of Context
//! Models for Lossless Data Compression", 2005): each model's probability becomes ln(p / (1 - p)), and these
//! are summed with weights that are corrected by the error. All arithmetic is in integers, so that every
//! device gets the same result.

use alloc::vec;
use alloc::vec::Vec;

use super::range::Coder;

/// Fixed point of the logistic domain: 256 is 1.0.
const STRETCH_MAX: i32 = 3071;
/// One knot of the logistic function each 64 / 256.
const KNOT_STEP: i32 = 64;
const KNOTS: usize = 97;

/// 65,536 / (1 + e^-x) at x = -12 .. 12 in steps of a quarter.
static SQUASH: [u16; KNOTS] = squash_knots();
/// The inverse, for probabilities of 12 bits.
static STRETCH: [i16; 4096] = stretch_table();

/// e^x for x of at most 12, by its series: runs at compile time only.
const fn exp(x: f64) -> f64 {
    let (mut sum, mut term, mut n) = (1.0, 1.0, 1.0);
    while n < 80.0 {
        term *= x / n;
        sum += term;
        n += 1.0;
    }
    sum
}

#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "checked at compile time")]
const fn squash_knots() -> [u16; KNOTS] {
    let mut knots = [0; KNOTS];
    let mut at = 0;
    while at < KNOTS {
        let x = at as f64 * 0.25 - 12.0;
        let value = if x < 0.0 { 1.0 - 1.0 / (1.0 + exp(x)) } else { 1.0 / (1.0 + 1.0 / exp(x)) };
        knots[at] = (value * 65_536.0) as u16;
        at += 1;
    }
    knots
}

#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "checked at compile time")]
const fn stretch_table() -> [i16; 4096] {
    let mut table = [0; 4096];
    let knots = squash_knots();
    let mut x = -STRETCH_MAX;
    let mut at = 0;
    while at < 4096 {
        while x < STRETCH_MAX && squash_by(&knots, x) < at as u32 * 16 + 8 {
            x += 1;
        }
        table[at] = x as i16;
        at += 1;
    }
    table
}

#[expect(
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    reason = "the index is within the knots for every x in range"
)]
const fn squash_by(knots: &[u16; KNOTS], x: i32) -> u32 {
    let from_start = (x + 3072) as u32;
    let (knot, rest) = ((from_start / KNOT_STEP as u32) as usize, from_start % KNOT_STEP as u32);
    let (low, high) = (knots[knot] as u32, knots[knot + 1] as u32);
    low + (high - low) * rest / KNOT_STEP as u32
}

/// The probability at `x` in the logistic domain, of 16 bits and never 0 or 1.
fn squash(x: i32) -> u32 {
    squash_by(&SQUASH, x.clamp(-STRETCH_MAX, STRETCH_MAX)).clamp(P_MIN, 65_536 - P_MIN)
}

/// Smallest probability that a decision is coded with.
const P_MIN: u32 = 24;

fn stretch(p: u32) -> i32 {
    STRETCH.get((p >> 4) as usize).copied().unwrap_or(0).into()
}

/// 65,536 / (n + 1.6): how far the n-th observation moves a probability.
static RATES: [u16; 256] = rates();

#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "checked at compile time")]
const fn rates() -> [u16; 256] {
    let mut rates = [0; 256];
    let mut n = 0;
    while n < 256 {
        rates[n] = (655_360 / (n as u32 * 10 + 16)) as u16;
        n += 1;
    }
    rates
}

/// A probability that learns from decisions (a slot of SPEC section 5.5): fast at first, then ever more
/// slowly, down to a limit.
pub(super) trait Probability: Copy {
    /// One half, nothing seen yet.
    const NEW: Self;

    /// The probability, of 16 bits.
    fn p(self) -> u32;

    /// Learns a decision; `limit` is how many observations count at most.
    fn learn(&mut self, bit: bool, limit: u32);
}

/// 22 bits of probability, 10 of observations: for what is nearly certain.
impl Probability for u32 {
    const NEW: Self = 1 << 31;

    fn p(self) -> u32 {
        self >> 16
    }

    fn learn(&mut self, bit: bool, limit: u32) {
        let (p, n) = (i64::from(*self >> 10), *self & 0x3ff);
        let rate = i64::from(RATES.get(n.min(255) as usize).copied().unwrap_or(0));
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let p = p + (((target - p) * rate) >> 16);
        let n = if n < limit { n + 1 } else { n };
        *self = Self::try_from(p << 10).unwrap_or(0) | n;
    }
}

/// 12 bits of probability, 4 of observations: for the many contexts of literals.
impl Probability for u16 {
    const NEW: Self = 1 << 15;

    fn p(self) -> u32 {
        u32::from(self & 0xfff0) + 8
    }

    fn learn(&mut self, bit: bool, limit: u32) {
        let (p, n) = (i32::from(*self >> 4), u32::from(*self & 0xf));
        let rate = i32::from(RATES.get(n as usize).copied().unwrap_or(0));
        let target = if bit { 4095 } else { 0 };
        let p = p + (((target - p) * rate + 0x8000) >> 16);
        let n = if n < limit { n + 1 } else { n };
        *self = Self::try_from(p << 4).unwrap_or(0) | Self::try_from(n).unwrap_or(15);
    }
}

/// A set of slots. Their number is a power of two, and any number can be used as an index.
#[derive(Clone, Debug)]
pub(super) struct Slots<S> {
    slots: Vec<S>,
}

impl<S: Probability> Slots<S> {
    pub(super) fn new(log2: u8) -> Self {
        Self { slots: vec![S::NEW; 1 << log2] }
    }

    #[expect(clippy::indexing_slicing, reason = "the length is a power of two and the index masked by it")]
    pub(super) fn at(&mut self, index: usize) -> &mut S {
        let mask = self.slots.len() - 1;
        &mut self.slots[index & mask]
    }

    pub(super) fn all_mut(&mut self) -> &mut [S] {
        &mut self.slots
    }

    /// Codes a decision by one slot alone.
    pub(super) fn bit(&mut self, coder: &mut impl Coder, index: usize, limit: u32, bit: bool) -> bool {
        let slot = self.at(index);
        let bit = coder.bit(slot.p().clamp(P_MIN, 65_536 - P_MIN), bit);
        slot.learn(bit, limit);
        bit
    }
}

/// Weights for `N` models, a set for each of some contexts.
#[derive(Clone, Debug)]
pub(super) struct Mixer<const N: usize> {
    sets: Vec<[i32; N]>,
    rate: i32,
}

impl<const N: usize> Mixer<N> {
    /// `log2` of the number of sets; `rate` is how fast weights move; all begin with `weight` / 65,536.
    pub(super) fn new(log2: u8, rate: i32, weight: i32) -> Self {
        Self { sets: vec![[weight; N]; 1 << log2], rate }
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut i32> {
        self.sets.iter_mut().flatten()
    }

    /// Codes a decision by the slots at `indices`, mixed with the set of weights of `context`.
    #[expect(
        clippy::indexing_slicing,
        reason = "the number of sets is a power of two and the index masked by it"
    )]
    pub(super) fn bit<S: Probability>(
        &mut self,
        coder: &mut impl Coder,
        slots: &mut Slots<S>,
        indices: [usize; N],
        context: usize,
        limit: u32,
        bit: bool,
    ) -> bool {
        let mask = self.sets.len() - 1;
        let weights = &mut self.sets[context & mask];
        let inputs = indices.map(|index| stretch(slots.at(index).p()));
        let sum: i64 = inputs.iter().zip(&*weights).map(|(x, w)| i64::from(*x) * i64::from(*w)).sum();
        let x = i32::try_from(sum >> 16).unwrap_or(if sum < 0 { -STRETCH_MAX } else { STRETCH_MAX });
        let p = squash(x);
        let bit = coder.bit(p, bit);
        // 16 bits of error, times 12 bits of input: the rate brings it to 16 bits of weight.
        let target = if bit { 65_535 } else { 0 };
        let error = (target - i32::try_from(p).unwrap_or(0)) * self.rate;
        for (weight, input) in weights.iter_mut().zip(inputs) {
            let step = (i64::from(input) * i64::from(error) + 0x8_0000) >> 20;
            *weight = weight.saturating_add(i32::try_from(step).unwrap_or(0)).clamp(-(1 << 20), 1 << 20);
        }
        for index in indices {
            slots.at(index).learn(bit, limit);
        }
        bit
    }
}
