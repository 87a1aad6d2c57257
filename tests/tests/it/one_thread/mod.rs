//! The whole of Whimbrel as machines without I/O: a fleet, two servings and a hundred devices in one thread, with a
//! virtual clock and without a runtime.

mod device;
mod service;
mod world;

use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::message::State;
use whimbrel_protocol::retry::Jitter;
use whimbrel_service::fleet::registry::ImportLine;

use world::{Line, World};

const LINKS: usize = 2;
const DEVICES: usize = 100;
const IMAGE_BYTES: usize = 40_000;
const SPREAD_S: u64 = 60;
/// How long everything goes on after the last device has ended.
const QUIET_MS: u64 = 1800 * 1000;
/// Lines of the trace that a device may cause in this time.
const QUIET_LINES_MAX: usize = 10;

fn image(seed: u64) -> Vec<u8> {
    let mut jitter = Jitter::new(seed);
    (0..IMAGE_BYTES).map(|_| jitter.next_u64() as u8).collect()
}

/// A campaign from the first device that connects to half an hour after the last one has ended. Gives what happened.
fn campaign(seed: u64) -> Vec<Line> {
    println!("seed {seed}");
    let (old, new) = (image(1), image(2));
    let mut world = World::new(seed, LINKS, DEVICES, &old);
    let (fixture, group) = (world.service.fixture.clone(), GroupName::new("all").unwrap());

    // The devices of the first link are known before they come, those of the second enrol.
    let known = world.members.iter().enumerate().filter(|(number, _)| world.link_of(*number) == 0);
    let lines = known.map(|(number, member)| ImportLine {
        number: number + 1,
        device: member.id.clone(),
        key: member.key(),
        class: fixture.class,
        groups: vec![group.clone()],
    });
    let lines = lines.collect();
    world.service.import(world.now, lines);
    world.run_until("half of the devices enrol", |world| {
        world.service.fleet.registry().pending() == DEVICES / LINKS
    });
    world.service.accept_pending(world.now, &group);
    world.run_for(10_000);

    let release = fixture.release(new.clone(), 5, 10);
    world.service.publish(world.now, &release);
    world.run_for(10_000);
    world.service.campaign(world.now, &release, &group, SPREAD_S);
    world.run_until("all devices are confirmed, and know that the service knows", |world| {
        world.members.iter().all(|member| {
            let session = member.device.session();
            session.state() == State::Confirmed && session.record().reports.is_empty()
        })
    });

    // All of it is counted, and every device runs what it was sent.
    let shown = world.service.shown(world.now);
    assert_eq!(shown["devices"]["confirmed"], DEVICES, "seed {seed}: {shown}");
    assert_eq!(shown["percent"], 100, "seed {seed}: {shown}");
    for member in &mut world.members {
        assert!(member.running_image(IMAGE_BYTES) == new, "seed {seed}: {} runs another image", member.id);
    }
    assert!(world.lost > 0 && world.broken > 0, "seed {seed}: nothing went wrong on the links");

    // Afterwards nothing changes, and little is sent: the beacons, for the most part.
    let lines = world.trace.len();
    world.run_for(QUIET_MS);
    let quiet = world.trace.len() - lines;
    assert!(quiet < QUIET_LINES_MAX * DEVICES, "seed {seed}: {quiet} lines after the end");
    assert_eq!(world.service.shown(world.now)["devices"], shown["devices"], "seed {seed}");

    // It took one download and one reboot.
    let received = shown["bytes_received"].as_u64().unwrap();
    let once = (DEVICES * IMAGE_BYTES) as u64;
    assert!((once..once + once / 10).contains(&received), "seed {seed}: {received} bytes received");
    let again = world.members.iter().find(|member| member.starts != 2);
    assert!(again.is_none(), "seed {seed}: {} started {} times", again.unwrap().id, again.unwrap().starts);
    println!(
        "{lines} lines, then {quiet}; {} messages lost, {} connections broken",
        world.lost, world.broken
    );
    world.trace
}

#[test]
fn a_campaign_of_a_hundred_devices_over_two_links_runs_in_one_thread_and_twice_to_the_same_bytes() {
    let (first, second) = (campaign(1), campaign(1));
    let differs = first.iter().zip(&second).find(|(one, other)| one != other);
    assert!(differs.is_none(), "seed 1: {differs:#?}");
    assert_eq!(first.len(), second.len(), "seed 1");
}

#[test]
fn another_seed_makes_another_campaign_with_the_same_end() {
    assert!(campaign(2) != campaign(3), "seeds 2 and 3");
}
