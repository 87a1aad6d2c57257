//! A whole update, with a host that does nothing but what the table in the crate's documentation says.

use whimbrel_engine::slot::Slot;
use whimbrel_engine::{Gate, Input, Job};
use whimbrel_protocol::device::StoreOp;
use whimbrel_protocol::disk::Disk as _;
use whimbrel_protocol::message::State;

use crate::host::Host;

const HOUR_MS: u64 = 3600 * 1000;

#[test]
fn an_update_goes_from_the_campaign_to_the_confirmed_image() {
    let mut host = Host::new();
    host.feed(Input::Connected);
    host.run(HOUR_MS);
    assert!(host.rebooting.is_some(), "{:?}", host.events);
    assert!(
        matches!(host.asked[..], [Gate::Download { .. }, Gate::Install, Gate::Reboot]),
        "{:?}",
        host.asked
    );
    host.reboot();
    assert_eq!(host.device.storage().running(), Slot::B);
    host.run(HOUR_MS);
    assert_eq!((host.state(), host.reported), (State::Confirmed, true), "{:?}", host.events);
    assert_eq!(host.asked.last(), Some(&Gate::Health));
    let mut image = vec![0; host.release.image.len()];
    host.device.storage_mut().disk_mut().read(Slot::B.area(), 0, &mut image).unwrap();
    assert!(image == host.release.image);
}

#[test]
fn what_the_device_asks_for_goes_out_after_it_is_noted() {
    let mut host = Host::new();
    host.slow = |job| matches!(job, Job::Store(_, StoreOp::NoteAsked(_)));
    host.feed(Input::Connected);
    host.run(1000);
    assert_eq!(host.undone.len(), 1, "the device wants to note that it asks for chunks");
    let published = |host: &Host| host.wanted.iter().filter(|wanted| **wanted == "publish").count();
    let before = published(&host);
    host.run(1000);
    assert_eq!(published(&host), before, "and asks for none before");
    host.catch_up();
    assert!(published(&host) > before);
    host.run(HOUR_MS);
    assert!(host.rebooting.is_some());
}

/// What was to be sent on a connection that is gone is not sent on the next one.
#[test]
fn what_waits_for_its_note_is_forgotten_with_the_connection() {
    let mut host = Host::new();
    host.slow = |job| matches!(job, Job::Store(_, StoreOp::NoteAsked(_)));
    host.feed(Input::Connected);
    host.run(1000);
    assert_eq!(host.undone.len(), 1);
    host.feed(Input::Disconnected);
    host.wanted.clear();
    host.catch_up();
    assert!(!host.wanted.contains(&"publish"), "{:?}", host.wanted);
    host.feed(Input::Connected);
    host.run(HOUR_MS);
    assert!(host.rebooting.is_some());
}
