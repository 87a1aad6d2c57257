//! Power goes during every operation of an update, and again during the recovery from that.
//!
//! Each scenario is one whole update: download, journal, staging, slot, boot control, restart, health check,
//! confirmation, report. `power_cut_points` says what a point is and how cuts are chosen, `power_cut_device`
//! what is checked. Every scenario prints its row of the table and asserts how many points it has at least.

use alloc::sync::Arc;

use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::{Fixture, SimDisk};

use crate::power_cut_device::{Control, End, Medium, Violation, World};
use crate::power_cut_points::{Cuttable, FirstCut, Points, exhaust};
use crate::power_cut_service::{Release, Service};

/// An image that compresses by about half, different for every seed.
pub(crate) fn image(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    (0..len)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if at % 64 < 32 { (state >> 24) as u8 } else { (at / 64) as u8 ^ seed }
        })
        .collect()
}

/// A device that runs a factory image, and the first of these releases rolled out to it.
pub(crate) fn world<D: Cuttable>(codecs: &[Codec], len: usize) -> World<D> {
    world_with(EnvironmentBoot::new, codecs, len)
}

/// The same with another boot control.
pub(crate) fn world_with<D: Cuttable, B: Control>(
    make_boot: fn() -> B,
    codecs: &[Codec],
    len: usize,
) -> World<D, B> {
    // Ed25519 takes a fifth of the time, and there are many signatures to verify.
    let fixture = Arc::new(Fixture { release_key: SigningKey::ed25519(&[7; 32]), ..Fixture::new() });
    let release = |(number, codec): (u8, &Codec)| {
        Arc::new(Release::new(&fixture, *codec, image(number, len), u64::from(number)))
    };
    let releases = (1..).zip(codecs).map(release).collect();
    let factory = image(0, len);
    let mut disk = D::default();
    disk.sim().install(Area::SlotA, &factory);
    World::new(disk, make_boot, Service::new(fixture, releases), &factory)
}

/// Bytes of the images: three flush groups raw.
const IMAGE_BYTES: usize = 40 * 1024;

/// Points that the scenarios have at least, and what of the recovery's operations is cut: one in so many.
const RAW: Floor = Floor { points: 18_000, every: 5 };
const LZMA: Floor = Floor { points: 14_000, every: 5 };
const REVERT: Floor = Floor { points: 6_000, every: 19 };
const CRASH: Floor = Floor { points: 6_000, every: 19 };
const CHANGE: Floor = Floor { points: 5_000, every: 23 };
const NEXT: Floor = Floor { points: 4_000, every: 13 };
const FIRST: Floor = Floor { points: 1_000, every: 97 };
const KILLED: Floor = Floor { points: 2_000, every: 7 };
const _: () = assert!(RAW.points + LZMA.points + REVERT.points + CRASH.points + CHANGE.points >= 20_000);

#[derive(Clone, Copy)]
pub(crate) struct Floor {
    pub(crate) points: u64,
    pub(crate) every: usize,
}

/// Runs a scenario. `POWER_CUT_EVERY=1` in the environment cuts at every operation of the recoveries as well.
pub(crate) fn check<B: Control>(
    scenario: &str,
    world: &World<SimDisk, B>,
    first: FirstCut,
    floor: Floor,
) -> Points {
    let asked = std::env::var("POWER_CUT_EVERY").ok().and_then(|every| every.parse().ok());
    let every = asked.unwrap_or(floor.every);
    let points = exhaust(world, first, every);
    points.print(scenario);
    let some: Vec<_> = points.violations.iter().take(5).collect();
    assert!(some.is_empty(), "{} bad points, the first ones: {some:#?}", points.violations.len());
    assert!(points.total() >= floor.points || every > floor.every, "{} points are too few", points.total());
    assert_eq!(points.refetched, 0, "where all of the payload was durable, none is fetched again");
    points
}

/// What happens to a device while power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The image as it is.
    Raw,
    /// Compressed.
    Lzma,
    /// The new image is unhealthy; the second attempt is not.
    Revert,
    /// The new image never comes up; at the second attempt it does.
    Crash,
    /// Another release is rolled out half way.
    Change,
    /// The second update, into the other slot.
    Next,
    /// A device that is started for the first time, and has no trust anchor yet.
    First,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Lzma => "lzma",
            Self::Revert => "raw, unhealthy first",
            Self::Crash => "lzma, crashing first",
            Self::Change => "raw, then another lzma",
            Self::Next => "raw, after an update",
            Self::First => "raw, first start",
        }
    }

    /// A device at the beginning of it, with the boot controls that `make_boot` makes.
    pub(crate) fn world<B: Control>(self, make_boot: fn() -> B) -> World<SimDisk, B> {
        let (codecs, len): (&[Codec], usize) = match self {
            Self::Raw => (&[Codec::Raw], IMAGE_BYTES),
            Self::Lzma => (&[Codec::Lzma], IMAGE_BYTES),
            Self::Revert | Self::First => (&[Codec::Raw], IMAGE_BYTES / 2),
            Self::Crash => (&[Codec::Lzma], IMAGE_BYTES / 2),
            Self::Change => (&[Codec::Raw, Codec::Lzma], IMAGE_BYTES),
            Self::Next => (&[Codec::Lzma, Codec::Raw], IMAGE_BYTES),
        };
        let mut world = world_with(make_boot, codecs, len);
        match self {
            Self::Raw | Self::Lzma => {}
            Self::Revert => world.unhealthy_attempts = 1,
            Self::Crash => world.crashing_attempts = 1,
            Self::First => world.pins = true,
            Self::Change => world.service.next_release_after = Some(IMAGE_BYTES as u64 / 2),
            Self::Next => {
                assert_eq!(world.run(), Ok(End::Confirmed));
                world.next_release();
            }
        }
        world
    }

    fn check(self, floor: Floor) {
        check(self.name(), &self.world(EnvironmentBoot::new), FirstCut::Power, floor);
    }
}

#[test]
fn a_raw_update_survives_power_cuts_at_every_operation() {
    Scenario::Raw.check(RAW);
}

#[test]
fn an_lzma_update_survives_power_cuts_at_every_operation() {
    Scenario::Lzma.check(LZMA);
}

#[test]
fn a_revert_survives_power_cuts_at_every_operation() {
    Scenario::Revert.check(REVERT);
}

#[test]
fn an_image_that_never_comes_up_is_left_whatever_the_power_does() {
    Scenario::Crash.check(CRASH);
}

#[test]
fn a_change_of_release_half_way_survives_power_cuts_at_every_operation() {
    Scenario::Change.check(CHANGE);
}

#[test]
fn a_first_start_and_its_update_survive_power_cuts_at_every_operation() {
    Scenario::First.check(FIRST);
}

#[test]
fn the_next_update_into_the_other_slot_survives_power_cuts_at_every_operation() {
    Scenario::Next.check(NEXT);
}

/// What a killed process has written is in the cache, where the next one reads it, and not on the medium.
#[test]
fn power_cuts_after_the_process_was_killed_lose_nothing_that_counts() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let world = world::<SimDisk>(&[codec], IMAGE_BYTES);
        check(&format!("{}, killed before", codec.name()), &world, FirstCut::Process, KILLED);
    }
}

/// A disk that says it has flushed, and has not.
#[derive(Clone, Debug, Default)]
pub(crate) struct WithoutFlush(SimDisk);

impl Disk for WithoutFlush {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        self.0.len(area)
    }

    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        self.0.reserve(area, len)
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        self.0.release(area, len)
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.0.read(area, offset, into)
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.write(area, offset, bytes)
    }

    fn flush(&mut self, _area: Area) -> Result<(), DiskError> {
        Ok(())
    }

    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        self.0.drop_cache(area)
    }
}

impl Medium for WithoutFlush {
    fn is_dead(&self) -> bool {
        self.0.is_dead()
    }

    fn content(&self, area: Area) -> Vec<u8> {
        self.0.content(area)
    }
}

impl Cuttable for WithoutFlush {
    fn sim(&mut self) -> &mut SimDisk {
        &mut self.0
    }
}

#[test]
fn the_power_cut_test_fails_without_flushes() {
    for codec in [Codec::Raw, Codec::Lzma] {
        let world = world::<WithoutFlush>(&[codec], IMAGE_BYTES);
        let points = exhaust(&world, FirstCut::Power, 0);
        points.print(&format!("{}, without flushes", codec.name()));
        let started_wrong =
            |(_, violation): &&(String, Violation)| matches!(violation, Violation::WrongImage(_));
        let wrong = points.violations.iter().filter(started_wrong).count();
        println!("started something incomplete: {wrong}; first: {:?}", points.violations.first());
        assert!(wrong > 0, "{:?}", points.violations);
    }
}
