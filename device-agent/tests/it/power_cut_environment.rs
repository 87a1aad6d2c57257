//! The boot environment is lost, zeroed, deleted or rots, after power went at any operation: what is started is
//! the confirmed slot, and the update goes on.

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::slot::Slot;
use whimbrel_engine::storage::{Storage, StorageOptions};
use whimbrel_protocol::disk::Area;
use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::{SimDisk, Survival};

use crate::power_cut::world;
use crate::power_cut_device::{End, World};

/// What happens to the boot control's two areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// The whole area is zeros.
    Zero(Area),
    /// The file is gone.
    Remove(Area),
    /// One bit of this copy is another.
    Rot(Area, u64),
    /// Zeros in the environment, and one copy of the default rots.
    Both(u64),
}

impl Damage {
    const ALL: [Self; 10] = [
        Self::Zero(Area::BootEnvironment),
        Self::Remove(Area::BootEnvironment),
        Self::Rot(Area::BootEnvironment, 0),
        Self::Rot(Area::BootEnvironment, 1),
        Self::Zero(Area::BootDefault),
        Self::Remove(Area::BootDefault),
        Self::Rot(Area::BootDefault, 0),
        Self::Rot(Area::BootDefault, 1),
        Self::Both(0),
        Self::Both(1),
    ];

    /// `bit` chooses one bit of what a copy of the area uses.
    fn apply(self, disk: &mut SimDisk, bit: u64) {
        let rot = |disk: &mut SimDisk, area, copy| {
            let used = if area == Area::BootDefault { 49 } else { 88 } * 8;
            disk.flip(area, copy * 4096 * 8 + bit % used);
        };
        match self {
            Self::Zero(area) => disk.zero(area),
            Self::Remove(area) => disk.remove(area),
            Self::Rot(area, copy) => rot(disk, area, copy),
            Self::Both(copy) => {
                disk.zero(Area::BootEnvironment);
                rot(disk, Area::BootDefault, copy);
            }
        }
    }

    /// Whether the environment is gone altogether, so that the default decides.
    fn loses_environment(self) -> bool {
        matches!(
            self,
            Self::Zero(Area::BootEnvironment) | Self::Remove(Area::BootEnvironment) | Self::Both(_)
        )
    }
}

/// What every valid copy of the boot control says of `slot`: whether it is to be started, tried or fallen back to.
pub(crate) fn is_named(disk: &SimDisk, slot: Slot) -> bool {
    let number = slot.number();
    let copies = |area: Area, magic: &'static [u8]| {
        let content = disk.durable_content(area);
        let copies: Vec<_> = content.chunks(4096).map(<[u8]>::to_vec).collect();
        copies.into_iter().filter(move |copy| copy.starts_with(magic) && is_whole(copy))
    };
    let environment = copies(Area::BootEnvironment, b"WB01").any(|copy| {
        let [confirmed, trial, _, _, bootable, ..] = copy[48..] else { panic!("a short copy") };
        confirmed == number || trial == number || bootable >> number & 1 == 1
    });
    environment || copies(Area::BootDefault, b"WD01").any(|copy| copy[48] == number)
}

/// SPEC section 8.7: the check covers the first 16 bytes and the content.
fn is_whole(copy: &[u8]) -> bool {
    let len = u32::from_le_bytes(copy[4..8].try_into().unwrap()) as usize;
    let checked = [&copy[..16], &copy[48..48 + len]].concat();
    copy[16..48] == Digest::of(&checked).0
}

/// Before the first byte of a slot is written, nothing on the medium names it any more, in any copy; and nothing
/// does until the last byte of the new image is durable.
#[test]
fn a_slot_that_holds_no_whole_image_is_named_nowhere() {
    let mut next = world::<SimDisk>(&[Codec::Lzma, Codec::Raw], 20 * 1024);
    assert_eq!(next.run(), Ok(End::Confirmed));
    next.next_release();
    next.disk.kill();
    let mut reverted = world::<SimDisk>(&[Codec::Lzma, Codec::Raw], 20 * 1024);
    reverted.unhealthy_attempts = u64::MAX;
    reverted.reverts_are_ends = true;
    assert_eq!(reverted.run(), Ok(End::Reverted));
    (reverted.unhealthy_attempts, reverted.reverts_are_ends) = (0, false);
    reverted.next_release();
    reverted.disk.kill();
    for (base, target) in [(next, Slot::A), (reverted, Slot::B)] {
        let mut whole = base.clone();
        assert_eq!(whole.run(), Ok(End::Confirmed));
        let mut half = 0;
        for operation in 1..=whole.disk.operations() {
            for survival in Survival::ALL {
                let mut world = base.clone();
                world.disk.crash_at(operation);
                assert_eq!(world.run(), Ok(End::Dead));
                world.disk.power_cut(survival, operation);
                if world.check_image(&world.disk, target).is_err() {
                    half += 1;
                    assert!(!is_named(&world.disk, target), "operation {operation}, {}", survival.name());
                }
            }
        }
        println!("{half} media with a slot that holds no whole image");
        assert!(half > 50);
    }
}

/// Runs the update until power goes at `operation`, damages the boot control, and starts again.
fn check(base: &World<SimDisk>, confirmed: Slot, operation: u64, damage: Damage) {
    let place = format!("operation {operation}, {damage:?}");
    let mut world = base.clone();
    world.disk.crash_at(operation);
    assert_eq!(world.run(), Ok(End::Dead), "{place}");
    world.account_for_cut().unwrap();
    world.disk.power_cut(Survival::ALL[operation as usize % 4], operation);
    damage.apply(&mut world.disk, operation * 37);
    world.running = None;
    world.boots = 0;

    let mut loader =
        Storage::start(world.disk.clone(), EnvironmentBoot::new(), StorageOptions::default()).unwrap();
    let slot = loader.boot().unwrap();
    world.check_image(&world.disk, slot).unwrap();
    if damage.loses_environment() {
        let new = confirmed.other();
        let may = match (world.confirming, world.confirmed) {
            (false, _) => vec![confirmed],
            (true, false) => vec![confirmed, new],
            (true, true) => vec![new],
        };
        assert!(may.contains(&slot), "{place}: {slot:?} was started, confirmed are {may:?}");
    }
    assert_eq!(world.run(), Ok(End::Confirmed), "{place}");
}

fn check_all(base: &World<SimDisk>, confirmed: Slot) {
    let mut base = base.clone();
    base.disk.kill();
    let mut whole = base.clone();
    assert_eq!(whole.run(), Ok(End::Confirmed));
    let operations = whole.disk.operations();
    for operation in 1..=operations {
        for damage in Damage::ALL {
            check(&base, confirmed, operation, damage);
        }
    }
    println!("{operations} operations x {} ways to damage the boot control", Damage::ALL.len());
}

#[test]
fn losing_the_boot_environment_at_any_instant_gives_the_confirmed_slot() {
    check_all(&world(&[Codec::Raw], 20 * 1024), Slot::A);
}

#[test]
fn losing_the_boot_environment_at_any_instant_of_the_next_update_gives_the_confirmed_slot() {
    let mut world = world::<SimDisk>(&[Codec::Lzma, Codec::Lzma], 20 * 1024);
    assert_eq!(world.run(), Ok(End::Confirmed));
    world.next_release();
    check_all(&world, Slot::B);
}

/// After a trial that was reverted the older copy of the environment still says that the slot is to be tried. It
/// must not come back to life when the newer copy rots while that slot is being overwritten.
#[test]
fn losing_the_boot_environment_at_any_instant_after_a_revert_gives_the_confirmed_slot() {
    let mut world = world::<SimDisk>(&[Codec::Raw, Codec::Raw], 20 * 1024);
    world.unhealthy_attempts = u64::MAX;
    world.reverts_are_ends = true;
    assert_eq!(world.run(), Ok(End::Reverted));
    world.unhealthy_attempts = 0;
    world.reverts_are_ends = false;
    world.next_release();
    check_all(&world, Slot::A);
}
