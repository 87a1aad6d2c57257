//! The script that the encoder follows: all that it has decided to write of a new image.

use alloc::collections::VecDeque;

use whimbrel_protocol::patch::{Entry, Mode, Op, Region, Script, Segment};

/// A complete script: the regions, the entries and the operations of a new image. The modes are chosen on the
/// way.
#[derive(Clone, Debug)]
pub(super) struct Plan<'n> {
    new: &'n [u8],
    regions: VecDeque<Region>,
    /// The region that has begun.
    current: Region,
    entries: VecDeque<Entry>,
    /// Operations other than literals.
    ops: VecDeque<(u32, Op)>,
    copied: [u64; Mode::ALL.len()],
}

impl<'n> Plan<'n> {
    pub(super) fn new(new: &'n [u8], regions: Vec<Region>, entries: Vec<Entry>, ops: Vec<(u32, Op)>) -> Self {
        Self {
            new,
            regions: regions.into(),
            current: Region::default(),
            entries: entries.into(),
            ops: ops.into(),
            copied: [0; Mode::ALL.len()],
        }
    }

    /// Bytes of the image by the way they were coded: copied in each mode, and new.
    pub(super) fn modes(&self) -> Vec<(&'static str, u64)> {
        let new = self.new.len() as u64 - self.copied.iter().sum::<u64>();
        let copied = Mode::ALL.into_iter().zip(&self.copied).map(|(mode, bytes)| (mode.name(), *bytes));
        copied.chain([("new", new)]).collect()
    }
}

impl Script for Plan<'_> {
    const CHOOSES: bool = true;

    fn region(&mut self, _: u32) -> Region {
        self.current = self.regions.pop_front().expect("regions cover the image");
        self.current.clone()
    }

    fn segment(&mut self, of_new: bool, at: usize) -> Segment {
        let segments = if of_new { &self.current.new } else { &self.current.old };
        segments.get(at).copied().unwrap_or_default()
    }

    fn entry(&mut self) -> Entry {
        self.entries.pop_front().expect("as many as the region says")
    }

    fn op(&mut self, at: u32, _: u32) -> Op {
        match self.ops.front() {
            Some((place, op)) if *place == at => {
                let op = *op;
                self.ops.pop_front();
                op
            }
            _ => Op::Literal,
        }
    }

    fn mode(&mut self, len: u32, last: Mode, wrong: [u32; Mode::ALL.len()]) -> Mode {
        let wrong_of = |mode: Mode| wrong.get(mode as usize).copied().unwrap_or(0);
        let best = Mode::ALL.into_iter().min_by_key(|mode| wrong_of(*mode)).unwrap_or_default();
        let mode = if wrong_of(last) <= wrong_of(best) { last } else { best };
        if let Some(bytes) = self.copied.get_mut(mode as usize) {
            *bytes += u64::from(len);
        }
        mode
    }

    fn byte(&self, at: u32) -> u8 {
        self.new.get(at as usize).copied().unwrap_or(0)
    }
}
