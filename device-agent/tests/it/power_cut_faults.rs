//! Every call to the medium fails once, or from there on for a quarter of an hour, with no room or with an
//! error: no wrong image is started, and the update goes on when the fault is over. Bits rot.

use whimbrel_protocol::disk::Area;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::{DiskFault, SimDisk, Survival};
use whimbrel_protocol::time::Instant;

use crate::power_cut::world;
use crate::power_cut_device::{Control, End, World};

const IMAGE_BYTES: usize = 24 * 1024;

fn fail_everywhere(scenario: &str, base: &World<SimDisk>) {
    fail_at_every(scenario, base, 1);
}

/// A fault at one call in `step`.
pub(crate) fn fail_at_every<B: Control>(scenario: &str, base: &World<SimDisk, B>, step: usize) {
    for fault in [DiskFault::Full, DiskFault::Failed] {
        for sticky in [false, true] {
            let mut whole = base.clone();
            whole.disk.kill();
            assert_eq!(whole.run(), Ok(End::Confirmed));
            let calls = whole.disk.calls(fault);
            let mut bad = Vec::new();
            for call in (1..=calls).step_by(step) {
                let mut world = base.clone();
                world.disk.kill();
                world.disk.fail_at(fault, call, sticky);
                world.check_refetched = false;
                match world.run() {
                    Ok(End::Confirmed) if world.disk.faults() > 0 => {}
                    other => bad.push((call, other)),
                }
            }
            let times = if sticky { "for a while" } else { "once" };
            println!("{scenario}: {fault:?} {times} at one in {step} of {calls} calls, {} bad", bad.len());
            assert_eq!(bad, Vec::new(), "{scenario}, {fault:?} {times}");
        }
    }
}

#[test]
fn a_raw_update_goes_on_after_a_fault_at_any_call() {
    fail_everywhere("raw", &world(&[Codec::Raw], IMAGE_BYTES));
}

#[test]
fn an_lzma_update_goes_on_after_a_fault_at_any_call() {
    fail_everywhere("lzma", &world(&[Codec::Lzma], IMAGE_BYTES));
}

#[test]
fn a_revert_goes_on_after_a_fault_at_any_call() {
    let mut world = world::<SimDisk>(&[Codec::Raw], IMAGE_BYTES);
    world.unhealthy_attempts = 1;
    fail_everywhere("raw, unhealthy first", &world);
}

/// A fault, then a power cut while the device copes with it.
#[test]
fn a_power_cut_after_a_fault_does_no_harm() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let base = world::<SimDisk>(&[codec], IMAGE_BYTES);
        let mut whole = base.clone();
        assert_eq!(whole.run(), Ok(End::Confirmed));
        let mut points = 0;
        for call in 1..=whole.disk.calls(DiskFault::Failed) {
            for (way, survival) in Survival::ALL.into_iter().enumerate() {
                let mut world = base.clone();
                world.check_refetched = false;
                world.disk.fail_at(DiskFault::Failed, call, false);
                // Soon after the fault, each time a little later.
                world.disk.crash_after_fault(1 + (call * 4 + way as u64) % 9);
                match world.run() {
                    Ok(End::Dead) => {
                        world.disk.power_cut(survival, call);
                        world.running = None;
                        world.boots = 0;
                        assert_eq!(world.run(), Ok(End::Confirmed), "call {call}, {}", survival.name());
                        points += 1;
                    }
                    // So near the end that nothing came after it.
                    other => assert_eq!(other, Ok(End::Confirmed), "call {call}"),
                }
            }
        }
        println!("{}: {points} pairs of a fault and a cut", codec.name());
        assert!(points > 500);
    }
}

/// One bit of any area but the running slot is another after a power cut: it is fetched again, made again or
/// not believed, and never started. (What is started is not hashed: a bit of an armed slot is the image's own
/// affair, and its health check's.)
#[test]
fn a_bit_that_rots_is_repaired_or_refused() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let base = world::<SimDisk>(&[codec], IMAGE_BYTES);
        let mut whole = base.clone();
        assert_eq!(whole.run(), Ok(End::Confirmed));
        let mut flips = 0;
        for operation in (1..=whole.disk.operations()).step_by(2) {
            let mut cut = base.clone();
            cut.check_refetched = false;
            cut.disk.crash_at(operation);
            assert_eq!(cut.run(), Ok(End::Dead));
            cut.disk.power_cut(Survival::Most, operation);
            cut.running = None;
            let areas = Area::ALL.into_iter().filter(|area| match area {
                Area::SlotA => false,
                Area::SlotB => !cut.activating,
                _ => true,
            });
            for area in areas {
                let blocks = cut.disk.durable_content(area).len().div_ceil(4096) as u64;
                for block in 0..blocks {
                    let mut world = cut.clone();
                    // Copies of small things use the start of their block.
                    let range = if matches!(area, Area::SlotB | Area::Staging) { 4096 * 8 } else { 64 * 8 };
                    world.disk.flip(area, block * 4096 * 8 + operation * 7919 % range);
                    let end = world.run();
                    assert_eq!(end, Ok(End::Confirmed), "operation {operation}, {area:?}, block {block}");
                    flips += 1;
                }
            }
        }
        println!("{}: {flips} bits flipped", codec.name());
        assert!(flips > 500);
    }
}

/// Without room no chunk is asked for; when there is some, it goes on.
#[test]
fn an_update_without_room_is_refused_before_the_first_chunk_and_goes_on_when_there_is_some() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let mut world = world::<SimDisk>(&[codec], IMAGE_BYTES);
        // Room for the factory's image, the small areas, and half of the new image.
        world.disk.set_capacity(Some(IMAGE_BYTES as u64 * 3 / 2 + 150 * 1024));
        let room_at = Instant::from_millis(3 * 3600 * 1000);
        world.room_at = Some(room_at);
        assert_eq!(world.run(), Ok(End::Confirmed), "{}", codec.name());
        assert!(world.now > room_at);
        assert_eq!(world.served_without_room, 0);
    }
}
