//! What literals take: a run of the engine in which every byte between the entries of the map is coded as a literal.

use core::ops::Range;

use whimbrel_protocol::patch::{Engine, Entry, Header, Region};

use super::plan::Plan;
use super::range::Counter;

/// The run, as far as it was needed.
pub(super) struct LiteralRun<'i> {
    engine: Engine,
    plan: Plan<'i>,
    counter: Counter,
    old: &'i [u8],
}

impl<'i> LiteralRun<'i> {
    pub(super) fn new(
        header: &Header,
        old: &'i [u8],
        new: &'i [u8],
        regions: Vec<Region>,
        entries: Vec<Entry>,
    ) -> Self {
        let plan = Plan::new(new, regions, entries, Vec::new());
        Self { engine: Engine::new(header), plan, counter: Counter::default(), old }
    }

    /// The bits of all of the image, copies included.
    pub(super) fn total(mut self) -> f64 {
        while !self.engine.is_complete() {
            self.step();
        }
        self.counter.bits
    }

    /// Goes on to the end of `range`, which lies between two entries, and says what each byte of it takes. The copies
    /// on the way are not coded.
    #[expect(clippy::cast_possible_truncation, reason = "an estimate")]
    pub(super) fn bits(&mut self, range: &Range<usize>, into: &mut Vec<f32>) {
        into.clear();
        while (self.engine.produced() as usize) < range.end {
            let (before, bits) = (self.engine.produced(), self.counter.bits);
            self.step();
            self.engine.pass_copy(&self.plan);
            let after = self.engine.produced();
            if after == before + 1 && range.contains(&(before as usize)) {
                into.push((self.counter.bits - bits) as f32);
            }
        }
    }

    fn step(&mut self) {
        let Self { engine, plan, counter, old } = self;
        engine.step(counter, plan, old).expect("the plan keeps to the images");
    }
}
