//! A view of a few bytes of an image, around the place that is looked at.

/// Bytes of an image from `start` on.
#[derive(Clone, Copy, Debug)]
pub(in crate::patch) struct View<'v> {
    pub(in crate::patch) bytes: &'v [u8],
    pub(in crate::patch) start: u32,
}

impl View<'_> {
    fn array<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..)?.first_chunk().copied()
    }

    pub(in crate::patch) fn byte(&self, at: u32) -> Option<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub(in crate::patch) fn half(&self, at: u32) -> Option<u32> {
        self.array(at).map(|bytes| u16::from_le_bytes(bytes).into())
    }

    pub(in crate::patch) fn word(&self, at: u32) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(in crate::patch) fn wide(&self, at: u32) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// The low `bits` of `value` as a number with a sign.
pub(super) fn signed(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)).cast_signed() >> (32 - bits))
}

/// The low `bits` of `value`; `None` if they do not hold it.
pub(super) fn field(value: i64, bits: u32) -> Option<u32> {
    let half = 1_i64 << (bits - 1);
    (-half..half).contains(&value).then(|| low(value) & (u32::MAX >> (32 - bits)))
}

/// The low 32 bits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low bits are what is asked for"
)]
pub(super) fn low(value: i64) -> u32 {
    value as u32
}

/// From `from` to `to`, which may wrap around.
pub(super) fn distance(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}
