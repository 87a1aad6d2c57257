//! What a device does while its medium has no room, or its host says "not now".

use whimbrel_engine::{Gate, Input, Job, Verdict};
use whimbrel_protocol::disk::{Area, Disk as _};
use whimbrel_protocol::message::{DeferReason, State};

use crate::host::Host;

const MINUTE_MS: u64 = 60_000;

/// From now on nothing may grow.
fn fill(host: &mut Host) {
    let disk = host.device.storage_mut().disk_mut();
    let used = Area::ALL.into_iter().map(|area| disk.len(area).unwrap()).sum();
    disk.set_capacity(Some(used));
}

fn make_room(host: &mut Host) {
    host.device.storage_mut().disk_mut().set_capacity(None);
}

/// A device that has found no room for its update.
fn without_room() -> Host {
    let mut host = Host::new();
    fill(&mut host);
    host.feed(Input::Connected);
    host.run(1000);
    assert_waits_for(&host, DeferReason::Room);
    host
}

/// So much time passes.
fn pass(host: &mut Host, ms: u64) {
    let end = host.now.plus_millis(ms);
    host.run(ms);
    host.now = host.now.max(end);
}

fn assert_waits_for(host: &Host, reason: DeferReason) {
    let status = host.device.session().status().unwrap();
    assert_eq!((status.state, status.deferred), (State::Deferred, Some(reason)));
}

#[test]
fn a_device_without_room_goes_on_within_a_minute_of_there_being_some() {
    for seconds in [0, 90, 400] {
        let mut host = without_room();
        pass(&mut host, seconds * 1000);
        assert_waits_for(&host, DeferReason::Room);
        make_room(&mut host);
        pass(&mut host, MINUTE_MS);
        assert!(host.rebooting.is_some(), "{seconds}: {:?}", host.events);
    }
}

#[test]
fn a_look_for_room_is_no_attempt() {
    let mut host = without_room();
    let (asked, events) = (host.asked.len(), host.events.len());
    pass(&mut host, 9 * MINUTE_MS);
    assert_eq!((host.asked.len(), host.events.len()), (asked, events));
    assert_waits_for(&host, DeferReason::Room);
}

#[test]
fn a_device_that_cannot_look_tries_everything_every_ten_minutes() {
    let mut host = without_room();
    host.slow = |job| matches!(job, Job::FindRoom);
    make_room(&mut host);
    pass(&mut host, 9 * MINUTE_MS);
    assert_waits_for(&host, DeferReason::Room);
    pass(&mut host, 4 * MINUTE_MS);
    assert!(host.rebooting.is_some(), "{:?}", host.events);
}

#[test]
fn a_check_at_the_device_looks_for_room_at_once() {
    let mut host = without_room();
    make_room(&mut host);
    host.feed(Input::Check);
    host.run(1000);
    assert!(host.rebooting.is_some(), "{:?}", host.events);
}

/// The power is back, for example, which only a hook can tell.
#[test]
fn a_device_whose_hooks_say_not_now_asks_them_every_minute_and_at_a_check() {
    let mut host = Host::new();
    host.says = |gate| if matches!(gate, Gate::Download { .. }) { Verdict::Later } else { Verdict::Good };
    host.feed(Input::Connected);
    host.run(1000);
    assert_waits_for(&host, DeferReason::Retry);
    let asked = host.asked.len();
    pass(&mut host, 5 * MINUTE_MS);
    assert!((3..=5).contains(&(host.asked.len() - asked)), "{}", host.asked.len() - asked);
    host.says = |_| Verdict::Good;
    host.feed(Input::Check);
    host.run(1000);
    assert!(host.rebooting.is_some(), "{:?}", host.events);
}
