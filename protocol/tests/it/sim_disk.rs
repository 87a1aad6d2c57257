//! The simulated disk keeps what was flushed, and of the rest what it says.

use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::testing::{DiskFault, DiskStep, SimDisk, Survival};

const AREA: Area = Area::SlotB;
const SECTORS: usize = 64;
const BYTES: usize = SECTORS * 512;

fn disk(fill: u8) -> SimDisk {
    let mut disk = SimDisk::new();
    disk.install(AREA, &[fill; BYTES]);
    disk
}

fn read(disk: &mut SimDisk) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    disk.read(AREA, 0, &mut bytes).unwrap();
    bytes
}

/// How many sectors are old, new, and a mixture.
fn sectors(bytes: &[u8]) -> [usize; 3] {
    let mut counts = [0; 3];
    for sector in bytes.chunks(512) {
        let old = sector.iter().filter(|byte| **byte == 1).count();
        let which = match old {
            512 => 0,
            0 => 1,
            _ => 2,
        };
        counts[which] += 1;
    }
    counts
}

#[test]
fn what_was_flushed_survives_and_what_was_not_does_not() {
    let mut disk = disk(1);
    disk.write(AREA, 0, &[2; 700]).unwrap();
    disk.flush(AREA).unwrap();
    disk.write(AREA, 5000, &[3; 700]).unwrap();
    assert_eq!(read(&mut disk)[5000..5700], [3; 700], "reads see the cache");
    assert!(disk.unsynced() > 0);
    disk.power_cut(Survival::None, 1);
    let after = read(&mut disk);
    assert_eq!(after[..700], [2; 700]);
    assert!(after[700..].iter().all(|byte| *byte == 1));
}

#[test]
fn a_flush_is_for_its_area_alone() {
    let mut disk = disk(1);
    disk.install(Area::SlotA, &[1; 512]);
    disk.write(AREA, 0, &[2; 512]).unwrap();
    disk.write(Area::SlotA, 0, &[2; 512]).unwrap();
    disk.flush(AREA).unwrap();
    disk.power_cut(Survival::None, 1);
    assert_eq!(disk.content(Area::SlotA), [1; 512]);
    assert_eq!(disk.content(AREA)[..512], [2; 512]);
}

#[test]
fn each_way_of_survival_keeps_what_it_says() {
    let mut kept = [[0; 3]; Survival::ALL.len()];
    for seed in 0..200 {
        for (way, survival) in Survival::ALL.into_iter().enumerate() {
            let mut disk = disk(1);
            disk.write(AREA, 0, &[2; BYTES]).unwrap();
            disk.power_cut(survival, seed);
            let counts = sectors(&read(&mut disk));
            let [old, _, mixed] = counts;
            match survival {
                Survival::None => assert_eq!(old, SECTORS),
                Survival::Some => assert!(mixed == 0),
                Survival::Most => assert!(mixed == 0 && old > 0, "never all"),
                Survival::Torn => assert_eq!(mixed, 1),
            }
            kept[way].iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    let share = |way: usize| kept[way][1] * 100 / (200 * SECTORS);
    assert!((28..=38).contains(&share(1)), "some: {} %", share(1));
    assert!((80..=92).contains(&share(2)), "most: {} %", share(2));
    assert!((42..=58).contains(&share(3)), "torn: {} %", share(3));
}

#[test]
fn a_torn_sector_is_torn_between_words_of_eight_bytes() {
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..2000 {
        let mut disk = disk(1);
        disk.write(AREA, 0, &[2; 512]).unwrap();
        disk.power_cut(Survival::Torn, seed);
        let sector = &read(&mut disk)[..512];
        let at = sector.iter().position(|byte| *byte != sector[0]).expect("torn");
        assert!(at % 8 == 0 && sector[at..].iter().all(|byte| *byte == sector[at]));
        places.insert((at, sector[0]));
    }
    assert_eq!(places.len(), 2 * 63, "at every word, in both directions");
}

#[test]
fn the_same_seed_is_the_same_cut() {
    let run = |seed| {
        let mut disk = disk(1);
        disk.write(AREA, 0, &[2; BYTES]).unwrap();
        disk.power_cut(Survival::Torn, seed);
        disk.content(AREA)
    };
    assert!(run(7) == run(7));
    assert!(run(7) != run(8));
}

#[test]
fn power_goes_during_the_operation_with_the_number() {
    for crash_at in 1..=3 {
        let mut disk = disk(1);
        disk.crash_at(crash_at);
        let done = [
            disk.write(AREA, 0, &[2; 512]),
            disk.flush(AREA),
            disk.write(AREA, 512, &[2; 512]),
            disk.flush(AREA),
        ];
        assert_eq!(done.iter().filter(|result| result.is_ok()).count() as u64, crash_at - 1);
        assert!(disk.is_dead());
        assert_eq!(disk.read(AREA, 0, &mut [0]), Err(DiskError::Failed { area: AREA }));
        disk.power_cut(Survival::None, 1);
        assert_eq!(disk.content(AREA)[0] == 2, crash_at > 2, "a flush that is cut has flushed nothing");
        assert_eq!(disk.operations(), 0);
        assert!(read(&mut disk)[512..].iter().all(|byte| *byte == 1));
    }
}

#[test]
fn a_killed_process_leaves_the_cache() {
    let mut disk = disk(1);
    disk.crash_at(1);
    assert!(disk.write(AREA, 0, &[2; 512]).is_err());
    disk.kill();
    assert_eq!(read(&mut disk)[..512], [2; 512]);
    disk.power_cut(Survival::None, 1);
    assert_eq!(read(&mut disk)[..512], [1; 512]);
}

/// A file's length is lost with the power where it was not made durable, and what was written there with it.
#[test]
fn room_that_was_being_made_is_there_or_not() {
    let area = Area::Staging;
    for (crash_at, survival, len) in
        [(1, Survival::None, 0), (2, Survival::None, 0), (3, Survival::None, 3000), (9, Survival::None, 3000)]
    {
        let mut disk = SimDisk::new();
        disk.crash_at(crash_at);
        let _ = disk.reserve(area, 3000);
        let _ = disk.write(area, 0, &[2; 3000]);
        disk.power_cut(survival, 1);
        assert_eq!(disk.len(area), Ok(len), "cut at {crash_at}");
    }
    let mut disk = SimDisk::new();
    disk.reserve(area, 3000).unwrap();
    assert_eq!(disk.operations(), 2);
    disk.reserve(area, 2000).unwrap();
    assert_eq!(disk.operations(), 2, "there is room already");
    assert_eq!(disk.write(area, 2999, &[0; 2]), Err(DiskError::Range { area, len: 3000, end: 3001 }));
}

#[test]
fn an_area_has_no_more_room_than_the_disk() {
    let mut disk = SimDisk::with_capacity(10_000);
    disk.reserve(Area::SlotA, 6000).unwrap();
    assert_eq!(disk.reserve(Area::SlotB, 4001), Err(DiskError::Full { area: Area::SlotB }));
    assert_eq!(disk.len(Area::SlotB), Ok(0));
    disk.reserve(Area::SlotB, 4000).unwrap();
    disk.release(Area::SlotB, 0).unwrap();
    disk.reserve(Area::Staging, 4000).unwrap();
}

#[test]
fn a_fault_hits_the_call_with_the_number_once_or_from_there_on() {
    for sticky in [false, true] {
        let mut disk = disk(1);
        disk.fail_at(DiskFault::Failed, 3, sticky);
        let results: Vec<bool> = (0..5).map(|at| disk.write(AREA, at * 512, &[2; 512]).is_ok()).collect();
        assert_eq!(results, [true, true, false, !sticky, !sticky]);
        assert_eq!(disk.faults(), if sticky { 3 } else { 1 });
        disk.heal();
        assert!(disk.flush(AREA).is_ok());
    }
    let mut disk = disk(1);
    disk.fail_at(DiskFault::Full, 1, true);
    assert!(disk.read(AREA, 0, &mut [0]).is_ok() && disk.flush(AREA).is_ok());
    assert_eq!(disk.write(AREA, 0, &[2]), Err(DiskError::Full { area: AREA }));
    assert_eq!(disk.reserve(AREA, 1 << 20), Err(DiskError::Full { area: AREA }));
}

#[test]
fn a_write_that_fails_is_a_short_one() {
    let mut disk = disk(1);
    disk.fail_at(DiskFault::Failed, 1, false);
    assert!(disk.write(AREA, 0, &[2; 2048]).is_err());
    let bytes = read(&mut disk);
    assert_eq!((bytes[1023], bytes[1024]), (2, 1));
}

/// As Linux does it: what a failed flush leaves in the cache reads as written and will never be written.
#[test]
fn after_a_failed_flush_the_next_one_succeeds_and_saves_nothing() {
    let mut disk = disk(1);
    disk.write(AREA, 0, &[2; BYTES]).unwrap();
    disk.fail_at(DiskFault::Failed, 2, false);
    assert!(disk.flush(AREA).is_err());
    assert_eq!(sectors(&read(&mut disk)), [0, SECTORS, 0], "reads see what was written");
    disk.flush(AREA).unwrap();
    let [old, new, _] = sectors(&disk.durable_content(AREA));
    assert!(old > 0 && new > 0, "{old} sectors are old and {new} new");
    disk.drop_cache(AREA).unwrap();
    assert_eq!(sectors(&read(&mut disk)), [old, new, 0]);
}

#[test]
fn dropping_the_cache_keeps_what_is_to_be_flushed() {
    let mut disk = disk(1);
    disk.write(AREA, 100, &[2; 1000]).unwrap();
    disk.drop_cache(AREA).unwrap();
    assert_eq!(read(&mut disk)[100..1100], [2; 1000]);
    disk.flush(AREA).unwrap();
    assert_eq!(disk.durable_content(AREA)[100..1100], [2; 1000]);
}

#[test]
fn the_trace_is_what_was_done() {
    let mut disk = SimDisk::new();
    disk.start_trace();
    disk.reserve(AREA, 1000).unwrap();
    disk.write(AREA, 10, &[1; 20]).unwrap();
    disk.flush(AREA).unwrap();
    disk.drop_cache(AREA).unwrap();
    disk.release(AREA, 500).unwrap();
    let write = DiskStep::Write { area: AREA, offset: 10, len: 20 };
    let done = [
        DiskStep::Reserve(AREA),
        write,
        DiskStep::Flush(AREA),
        DiskStep::DropCache(AREA),
        DiskStep::Release(AREA),
    ];
    assert_eq!(disk.trace(), done);
}

#[test]
fn a_bit_that_rots_rots_on_the_medium() {
    let mut disk = disk(1);
    disk.flip(AREA, 8 * 700 + 1);
    assert_eq!(disk.durable_content(AREA)[700], 3);
    disk.flip(AREA, 8 * BYTES as u64);
    disk.zero(AREA);
    assert_eq!(disk.content(AREA), vec![0; BYTES]);
    disk.remove(AREA);
    assert_eq!(disk.len(AREA), Ok(0));
}
