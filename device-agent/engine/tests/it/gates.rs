//! What the host has a say in.

use whimbrel_engine::slot::Slot;
use whimbrel_engine::{Gate, Input, Verdict};
use whimbrel_protocol::device::Event;
use whimbrel_protocol::message::State;

use crate::host::Host;

const HOUR_MS: u64 = 3600 * 1000;

fn downloads(host: &Host) -> usize {
    host.asked.iter().filter(|gate| matches!(gate, Gate::Download { .. })).count()
}

/// A host that asks for time is no medium that failed, although the session takes it for one.
#[test]
fn a_download_that_the_host_puts_off_is_asked_for_again_and_nobody_hears_of_a_failed_medium() {
    let mut host = Host::new();
    host.says = |gate| if matches!(gate, Gate::Download { .. }) { Verdict::Later } else { Verdict::Good };
    host.feed(Input::Connected);
    host.run(HOUR_MS);
    assert!(downloads(&host) > 1);
    assert_eq!((host.state(), host.rebooting), (State::Deferred, None));
    assert!(!host.events.iter().any(|event| matches!(event, Event::StoreFailed(_))), "{:?}", host.events);
    host.says = |_| Verdict::Good;
    host.run(HOUR_MS);
    assert!(host.rebooting.is_some());
}

#[test]
fn an_installation_that_the_host_refuses_does_not_happen_and_fails() {
    let mut host = Host::new();
    host.says = |gate| if gate == Gate::Install { Verdict::Bad } else { Verdict::Good };
    host.feed(Input::Connected);
    host.run(HOUR_MS);
    assert_eq!((host.state(), host.rebooting, host.reported), (State::Failed, None, true));
    assert!(host.asked.ends_with(&[Gate::Install]));
}

#[test]
fn an_image_that_the_host_finds_unhealthy_is_given_up() {
    let mut host = Host::new();
    host.feed(Input::Connected);
    host.run(HOUR_MS);
    host.says = |gate| if gate == Gate::Health { Verdict::Bad } else { Verdict::Good };
    host.reboot();
    host.run(HOUR_MS);
    assert!(host.rebooting.is_some(), "the old image is to be started");
    host.reboot();
    host.run(HOUR_MS);
    assert_eq!((host.device.storage().running(), host.state()), (Slot::A, State::Reverted));
}

#[test]
fn a_reboot_that_does_not_come_about_is_asked_for_again() {
    let mut host = Host::new();
    host.feed(Input::Connected);
    host.run(HOUR_MS);
    let op = host.rebooting.take().unwrap();
    host.feed(Input::RebootFailed { op });
    assert_eq!(host.state(), State::Deferred);
    host.run(HOUR_MS);
    assert!(host.rebooting.is_some_and(|again| again != op));
}

#[test]
fn a_verdict_that_nobody_asked_for_changes_nothing() {
    let mut host = Host::new();
    host.feed(Input::Connected);
    host.run(HOUR_MS);
    let (op, events) = (host.rebooting.unwrap(), host.events.len());
    for verdict in [Verdict::Good, Verdict::Later, Verdict::Bad] {
        host.feed(Input::Verdict { op, verdict });
    }
    assert_eq!((host.state(), host.events.len()), (State::Rebooting, events));
}
