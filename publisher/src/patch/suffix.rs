//! Finds the longest piece of some bytes in the old image.

#![expect(
    clippy::indexing_slicing,
    reason = "indices of the search itself, on images that a person gave: a wrong one is a bug"
)]

/// The old image with its suffixes in order.
#[derive(Debug)]
pub(super) struct Suffixes<'o> {
    old: &'o [u8],
    sorted: Vec<i32>,
}

impl<'o> Suffixes<'o> {
    /// Sorts the suffixes of `old`: 4 bytes of memory for each of its bytes.
    pub(super) fn of(old: &'o [u8]) -> Self {
        let (_, sorted) = divsufsort::sort(old).into_parts();
        Self { old, sorted }
    }

    /// Place and length of the longest piece in the old image that is a prefix of `wanted`.
    pub(super) fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        let (mut low, mut high) = (0, self.sorted.len());
        let (mut low_common, mut high_common) = (0, 0);
        let mut best = (0, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.at(middle);
            let suffix = self.old.get(at..).unwrap_or_default();
            let known = low_common.min(high_common);
            let common =
                known + common(&suffix[known.min(suffix.len())..], &wanted[known.min(wanted.len())..]);
            if common > best.1 {
                best = (at, common);
            }
            if common == wanted.len() {
                return best;
            }
            if suffix.get(common) < wanted.get(common) {
                (low, low_common) = (middle + 1, common);
            } else {
                (high, high_common) = (middle, common);
            }
        }
        best
    }

    fn at(&self, rank: usize) -> usize {
        self.sorted.get(rank).and_then(|at| usize::try_from(*at).ok()).unwrap_or(0)
    }
}

/// How many bytes are the same at the start.
pub(super) fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
