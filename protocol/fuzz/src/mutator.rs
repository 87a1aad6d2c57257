//! Damage to patches, the same for the same seed: for where no fuzzer is at hand.

/// Makes damaged patches of whole ones.
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed ^ 0x9e37_79b9_7f4a_7c15 }
    }

    fn next(&mut self) -> u64 {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("less than the bound")
    }

    /// One of `patches`, damaged in 1 to 4 places, after 8 bytes that decide how it is cut.
    ///
    /// Most damage is past the header, where decoders get to.
    pub fn data(&mut self, patches: &[&[u8]]) -> Vec<u8> {
        let chosen = self.below(patches.len());
        let mut patch = patches.get(chosen).copied().unwrap_or_default().to_vec();
        for _ in 0..=self.below(4) {
            self.damage(&mut patch);
        }
        [&self.next().to_le_bytes()[..], &patch].concat()
    }

    fn damage(&mut self, patch: &mut Vec<u8>) {
        if patch.is_empty() {
            return;
        }
        // Early bytes steer all that follow: half of the places are among the first 256.
        let reach = if self.below(2) == 0 { patch.len() } else { patch.len().min(256) };
        let at = self.below(reach);
        let any = self.next().to_le_bytes()[0];
        match self.below(8) {
            0..=2 => patch.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (any % 8)),
            3 => patch.iter_mut().skip(at).take(1).for_each(|byte| *byte = any),
            4 => patch.insert(at, any),
            5 => drop(patch.remove(at)),
            6 => patch.truncate(at),
            _ => {
                let count = 1 + self.below(64);
                let from = self.below(patch.len());
                let copied: Vec<u8> = patch.iter().skip(from).take(count).copied().collect();
                patch.iter_mut().skip(at).zip(copied).for_each(|(byte, copied)| *byte = copied);
            }
        }
    }
}
