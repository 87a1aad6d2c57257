//! Counting the operations of an update and cutting the power at each of them.
//!
//! A *point* is a pair of an operation that changes the medium and a way in which what was not flushed
//! survives. First cuts: every operation of the whole update, in every way. Second cuts: from each medium that
//! a first cut left, every k-th operation of what the device then does, in every way; where the counting begins
//! differs from medium to medium, so that all operations have their turn. The seed of a cut follows from the
//! operation and the way: no point is counted twice with another seed.

use whimbrel_protocol::testing::{SimDisk, Survival};

use crate::power_cut_device::{Control, End, Medium, Violation, World};

/// A disk whose power can be cut.
pub(crate) trait Cuttable: Medium + Clone + Default {
    /// The disk that does it.
    fn sim(&mut self) -> &mut SimDisk;
}

impl Cuttable for SimDisk {
    fn sim(&mut self) -> &mut SimDisk {
        self
    }
}

/// What the first cut takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstCut {
    /// Power.
    Power,
    /// The agent's process: everything written stays in the cache, the machine goes on.
    Process,
}

/// What became of the points of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Points {
    /// Operations of the update when nothing is cut.
    pub(crate) operations: u64,
    /// First cuts by way of survival.
    pub(crate) first: [u64; Survival::ALL.len()],
    /// Second cuts by way of survival of the second.
    pub(crate) second: [u64; Survival::ALL.len()],
    /// Points after which all of the payload was durable: its image was being made, tried or confirmed.
    pub(crate) with_payload: u64,
    /// Bytes that were fetched again after those.
    pub(crate) refetched: u64,
    /// What must not happen and did, with the point.
    pub(crate) violations: Vec<(String, Violation)>,
}

impl Points {
    pub(crate) fn total(&self) -> u64 {
        self.first.iter().chain(&self.second).sum()
    }

    /// Prints the scenario's row of the table.
    pub(crate) fn print(&self, scenario: &str) {
        let ways = |counts: &[u64]| {
            let ways = Survival::ALL.iter().zip(counts);
            ways.map(|(way, count)| format!("{} {count:>5}", way.name())).collect::<Vec<_>>().join("  ")
        };
        println!(
            "{scenario:<24} {:>4} operations | first {} | second {} | {:>6} points, {} bad; {} with all of the payload, \
             {} bytes fetched again after those",
            self.operations,
            ways(&self.first),
            ways(&self.second),
            self.total(),
            self.violations.len(),
            self.with_payload,
            self.refetched,
        );
    }
}

/// Cuts at every operation, and again at every `every`th operation of the recovery (0: not again).
pub(crate) fn exhaust<D: Cuttable, B: Control>(base: &World<D, B>, first: FirstCut, every: usize) -> Points {
    let mut whole = base.clone();
    whole.disk.sim().kill();
    assert_eq!(whole.run(), Ok(End::Confirmed), "the update works when nothing is cut");
    let mut points = Points { operations: whole.disk.sim().operations(), ..Points::default() };
    for operation in 1..=points.operations {
        let place = format!("{first:?} at operation {operation}");
        let Some(cut) = cut_at(base, operation, first, &mut points, &place) else {
            continue;
        };
        let ways = if first == FirstCut::Power { &Survival::ALL[..] } else { &Survival::ALL[..1] };
        for (way, survival) in ways.iter().enumerate() {
            let mut after = cut.clone();
            let place = match first {
                FirstCut::Power => {
                    power_cut(&mut after, operation, way);
                    points.first[way] += 1;
                    format!("{place}, {}", survival.name())
                }
                // The machine goes on with what runs; the agent starts anew on the same cache.
                FirstCut::Process => {
                    after.disk.sim().kill();
                    place.clone()
                }
            };
            let recovery = finish(&after, &mut points, &place);
            if every > 0 {
                let start = (usize::try_from(operation).unwrap() * ways.len() + way) % every;
                (1..=recovery).skip(start).step_by(every).for_each(|operation| {
                    cut_again(&after, operation, &mut points, &place);
                });
            }
        }
    }
    points
}

fn cut_again<D: Cuttable, B: Control>(base: &World<D, B>, operation: u64, points: &mut Points, place: &str) {
    let place = format!("{place}; power at operation {operation}");
    let Some(cut) = cut_at(base, operation, FirstCut::Power, points, &place) else {
        return;
    };
    for (way, survival) in Survival::ALL.into_iter().enumerate() {
        let mut after = cut.clone();
        power_cut(&mut after, operation, way);
        points.second[way] += 1;
        finish(&after, points, &format!("{place}, {}", survival.name()));
    }
}

fn power_cut<D: Cuttable, B>(world: &mut World<D, B>, operation: u64, way: usize) {
    world.running = None;
    world.disk.sim().power_cut(Survival::ALL[way], operation * 4 + way as u64);
}

/// Runs up to this operation, during which power goes or the process is killed. `None` where something went wrong
/// before.
fn cut_at<D: Cuttable, B: Control>(
    base: &World<D, B>,
    operation: u64,
    what: FirstCut,
    points: &mut Points,
    place: &str,
) -> Option<World<D, B>> {
    let mut world = base.clone();
    world.disk.sim().kill();
    world.disk.sim().crash_at(operation);
    let result = match world.run() {
        Ok(End::Dead) if what == FirstCut::Power => world.account_for_cut(),
        Ok(End::Dead) => {
            world.account_for_kill();
            Ok(())
        }
        Ok(End::Confirmed | End::Reverted) => panic!("{place}: there is no such operation"),
        Err(violation) => Err(violation),
    };
    world.boots = 0;
    match result {
        Ok(()) => Some(world),
        Err(violation) => {
            points.violations.push((place.to_owned(), violation));
            None
        }
    }
}

/// Runs to the end, and returns how many operations that took.
fn finish<D: Cuttable, B: Control>(after: &World<D, B>, points: &mut Points, place: &str) -> u64 {
    let mut world = after.clone();
    let (had_payload, served) = (after.has_payload, after.service.served + after.service.served_full);
    if let Err(violation) = world.run() {
        points.violations.push((place.to_owned(), violation));
    }
    if had_payload {
        points.with_payload += 1;
        points.refetched += world.service.served + world.service.served_full - served;
    }
    world.disk.sim().operations()
}
