//! Power goes during every operation of an update by patch, and again during the recovery: with replay, with saved state,
//! and applied as it arrives through a ring of four chunks.
//!
//! What is checked is what `power_cut_device` checks, and besides: what runs is never written to, the image as it is
//! is never fetched, and where all of the patch was durable not a byte is fetched again.

use alloc::sync::Arc;

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{PatchMode, PatchOptions};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::disk::Area;
use whimbrel_protocol::testing::{DiskFault, DiskStep, Fixture, SimDisk, Survival};

use crate::power_cut::{Floor, WithoutFlush, check};
use crate::power_cut_device::{End, Violation, World};
use crate::power_cut_faults::fail_at_every;
use crate::power_cut_points::{Cuttable, FirstCut, exhaust};
use crate::power_cut_service::Service;
use crate::storage_support::{FRESH, MEDIUM, Pair};

/// Progress is noted after every block, and streaming keeps four chunks.
fn options(mode: PatchMode) -> PatchOptions {
    PatchOptions { mode, buffer_bytes: 4 * 1024, flush_bytes: Some(16 * 1024) }
}

/// A device that runs the pair's old image, and a release of its new one rolled out to it.
fn world<D: Cuttable>(mode: PatchMode, pair: &Pair) -> World<D> {
    let fixture = Arc::new(Fixture { release_key: SigningKey::ed25519(&[7; 32]), ..Fixture::new() });
    let release = Arc::new(pair.release(&fixture));
    let mut disk = D::default();
    disk.sim().install(Area::SlotA, pair.old);
    let mut world = World::new(disk, EnvironmentBoot::new, Service::new(fixture, vec![release]), pair.old);
    world.patch = options(mode);
    world
}

/// Points that the scenarios have at least, and what of the recovery's operations is cut: one in so many.
const STORED: Floor = Floor { points: 1_500, every: 31 };
const STREAMED: Floor = Floor { points: 1_500, every: 499 };
const KILLED: Floor = Floor { points: 190, every: 101 };

/// A small patch that is stored, a longer one that is applied as it arrives.
fn pair_for(mode: PatchMode) -> Pair {
    if mode == PatchMode::Stream { FRESH } else { MEDIUM }
}

fn cut_everywhere(mode: PatchMode, pair: &Pair, floor: Floor) {
    let points = check(&format!("patch, {}", mode.name()), &world(mode, pair), FirstCut::Power, floor);
    assert!(points.with_payload > 0);
}

#[test]
fn an_update_by_patch_with_replay_survives_power_cuts_at_every_operation() {
    cut_everywhere(PatchMode::Replay, &MEDIUM, STORED);
}

#[test]
fn an_update_by_patch_with_saved_state_survives_power_cuts_at_every_operation() {
    cut_everywhere(PatchMode::State, &MEDIUM, STORED);
}

#[test]
fn an_update_by_patch_as_it_arrives_survives_power_cuts_at_every_operation() {
    cut_everywhere(PatchMode::Stream, &FRESH, STREAMED);
}

#[test]
fn power_cuts_after_the_process_was_killed_lose_nothing_of_a_patch() {
    for (mode, pair) in PatchMode::ALL.map(|mode| (mode, pair_for(mode))) {
        let scenario = format!("patch, {}, killed before", mode.name());
        check(&scenario, &world(mode, &pair), FirstCut::Process, KILLED);
    }
}

/// What runs is the only thing that a device cannot get back.
#[test]
fn an_update_by_patch_never_writes_to_what_runs() {
    for mode in PatchMode::ALL {
        let mut world = world::<SimDisk>(mode, &FRESH);
        world.disk.start_trace();
        assert_eq!(world.run(), Ok(End::Confirmed));
        let touches = |step: &&DiskStep| match step {
            DiskStep::Reserve(area) | DiskStep::Release(area) | DiskStep::Write { area, .. } => {
                *area == Area::SlotA
            }
            DiskStep::Flush(_) | DiskStep::DropCache(_) => false,
        };
        assert_eq!(world.disk.trace().iter().find(touches), None, "{}", mode.name());
        assert!(world.disk.durable_content(Area::SlotA) == FRESH.old);
    }
}

/// The same with a disk that says it has flushed, and has not.
#[test]
fn the_power_cut_test_of_patches_fails_without_flushes() {
    for (mode, pair) in PatchMode::ALL.map(|mode| (mode, pair_for(mode))) {
        let points = exhaust(&world::<WithoutFlush>(mode, &pair), FirstCut::Power, 0);
        points.print(&format!("patch, {}, without flushes", mode.name()));
        let count =
            |is: fn(&Violation) -> bool| points.violations.iter().filter(|(_, what)| is(what)).count();
        let wrong = count(|what| matches!(what, Violation::WrongImage(_)));
        let refetched =
            count(|what| matches!(what, Violation::Refetched { .. } | Violation::FullPayload { .. }));
        println!("started something incomplete: {wrong}; fetched what it had: {refetched}");
        assert!(wrong > 0, "{:?}", points.violations);
    }
}

#[test]
fn an_update_by_patch_goes_on_after_faults() {
    for (mode, pair) in PatchMode::ALL.map(|mode| (mode, pair_for(mode))) {
        let base = world::<SimDisk>(mode, &pair);
        fail_at_every(&format!("patch, {}", mode.name()), &base, 3);
    }
}

/// A fault, then a power cut while the device copes with it.
#[test]
fn a_power_cut_after_a_fault_does_a_patch_no_harm() {
    for (mode, pair) in [(PatchMode::State, MEDIUM), (PatchMode::Stream, FRESH)] {
        let base = world::<SimDisk>(mode, &pair);
        let mut whole = base.clone();
        assert_eq!(whole.run(), Ok(End::Confirmed));
        let mut points = 0;
        for call in (1..=whole.disk.calls(DiskFault::Failed)).step_by(3) {
            let survival = Survival::ALL[call as usize % 4];
            let mut world = base.clone();
            world.check_refetched = false;
            world.disk.fail_at(DiskFault::Failed, call, false);
            world.disk.crash_after_fault(1 + call % 9);
            match world.run() {
                Ok(End::Dead) => {
                    world.disk.power_cut(survival, call);
                    world.running = None;
                    world.boots = 0;
                    assert_eq!(world.run(), Ok(End::Confirmed), "call {call}, {}", survival.name());
                    points += 1;
                }
                other => assert_eq!(other, Ok(End::Confirmed), "call {call}"),
            }
        }
        println!("patch, {}: {points} pairs of a fault and a cut", mode.name());
        assert!(points > 50);
    }
}

/// Chunks come late and out of order, and never beyond what the ring takes.
#[test]
fn a_lossy_link_never_brings_a_stream_more_than_its_ring_takes() {
    for lose in [20, 100, 250] {
        let mut world = world::<SimDisk>(PatchMode::Stream, &FRESH);
        (world.lose, world.check_refetched) = (lose, false);
        assert_eq!(world.run(), Ok(End::Confirmed), "{lose} of a thousand lost");
        assert_eq!(world.store_failures, 0, "{lose} of a thousand lost");
        assert_eq!(world.service.served_full, 0, "{lose} of a thousand lost");
    }
}

/// The base was compared and was right; then a bit of it rotted. The digest decides, and the image as it is is
/// fetched once.
#[test]
fn a_base_that_rots_while_the_patch_comes_leads_to_the_full_payload() {
    for mode in PatchMode::ALL {
        let mut full = 0;
        for bit in (0..FRESH.old.len() as u64 * 8).step_by(32_003) {
            let mut world = world::<SimDisk>(mode, &FRESH);
            world.check_refetched = false;
            world.rots = Some(bit);
            assert_eq!(world.run(), Ok(End::Confirmed), "{}, bit {bit}", mode.name());
            let served = world.service.served_full;
            assert!([0, FRESH.new.len() as u64].contains(&served), "{}, bit {bit}: {served}", mode.name());
            assert_eq!(world.service.served, FRESH.patch.len() as u64, "the patch is fetched once");
            full += u64::from(served > 0);
        }
        println!(
            "{}: {full} of {} bits lead to the full payload",
            mode.name(),
            FRESH.old.len() * 8 / 32_003 + 1
        );
        assert!(full > 0 || mode == PatchMode::Stream);
    }
}
