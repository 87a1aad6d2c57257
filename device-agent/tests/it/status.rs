//! What `status` shows of a running agent.

use alloc::sync::Arc;

use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::message::{Refusal, RefusalCode};
use whimbrel_protocol::testing::Fixture;
use whimbrel_protocol::topic::Channel;

use crate::broker::Mosquitto;
use crate::power_cut_service::{Release, Service};
use crate::rig::{Attached, Device, noise};

/// The service falls silent in the middle of a download. What is here then is counted, not guessed.
#[test]
fn status_shows_percent_and_eta_of_the_chunks_that_are_here_at_the_measured_rate() {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let mut device = Device::new(&fixture, broker.port);
    let release = Arc::new(Release::new(&fixture, Codec::Raw, noise(1, 200 * 1024), 1));
    let service = Attached::start(&broker, Service::new(fixture, vec![Arc::clone(&release)]));
    service.lock().silent_after = Some(40 * 1024);
    device.start();
    let layout = release.transfer.layout;
    let (all, chunk_bytes) = (u64::from(layout.chunk_count()), layout.chunk_size());
    // More may come for as long as this is not what was served.
    let percent = || service.lock().service.served / chunk_bytes * 100 / all;
    let status = device.wait_for("what was served is here", |status| {
        percent() >= 20 && status["percent"] == percent() && status["rate_bytes_per_s"].is_u64()
    });
    assert_eq!(status["state"], "downloading");
    let held = service.lock().service.served / chunk_bytes;
    assert!(held < all, "the service was silent too late");
    let rate = status["rate_bytes_per_s"].as_u64().unwrap();
    assert_eq!(status["eta_s"], ((all - held) * chunk_bytes).div_ceil(rate));
    assert_eq!(status["bytes_received"], held * chunk_bytes);
}

/// Somebody on the way spoils signatures. Nothing ends by that, and people see why nothing goes on, and until when.
#[test]
fn status_says_that_the_envelope_came_spoiled_and_when_it_is_asked_for_again() {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let mut device = Device::new(&fixture, broker.port);
    let mut release = Release::new(&fixture, Codec::Raw, noise(1, 20 * 1024), 1);
    let block = Envelope::decode(&release.envelope).unwrap().blocks().unwrap().remove(0).bytes;
    let at = release.envelope.windows(block.len()).position(|bytes| bytes == block).unwrap();
    release.envelope[at + block.len() - 1] ^= 1;
    let _service = Attached::start(&broker, Service::new(fixture, vec![Arc::new(release)]));
    device.start();
    let status = device.wait_for("it waits", |status| status["reason"] == "bad-envelope");
    assert_eq!(status["state"], "deferred");
    // 15 s and a quarter more at most, less what has passed since.
    assert!((1..=19).contains(&status["deferred_s"].as_u64().unwrap()), "{status}");
    let words = device.run(&["status"]).stdout;
    assert!(words.contains("state     deferred: bad-envelope, looked at again in "), "{words}");
}

#[test]
fn a_stopped_agent_says_what_it_holds() {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let mut device = Device::new(&fixture, broker.port);
    let release = Arc::new(Release::new(&fixture, Codec::Raw, noise(1, 200 * 1024), 1));
    let service = Attached::start(&broker, Service::new(fixture, vec![Arc::clone(&release)]));
    service.lock().silent_after = Some(40 * 1024);
    device.start();
    let served = || service.lock().service.served;
    device.wait_for("what was served is here", |status| {
        served() >= 40 * 1024 && status["bytes_received"] == served()
    });
    assert_eq!(device.terminate(), Some(0));
    let status = device.status();
    assert_eq!((&status["daemon"], &status["state"]), (&false.into(), &"downloading".into()));
    assert_eq!(
        (&status["percent"], &status["payload_bytes"]),
        (&(served() * 100 / (200 * 1024)).into(), &(200 * 1024).into())
    );
    assert_eq!((&status["bytes_received"], &status["bytes_twice"]), (&served().into(), &0.into()));
    let words = device.run(&["status"]).stdout;
    assert!(words.contains("state     downloading, stopped\n"), "{words}");
    assert!(words.contains(&format!("progress  {} %\n", status["percent"])), "{words}");
    assert!(words.contains("daemon    not running\n") && words.contains("\nrunning   "), "{words}");
}

/// A service that says nothing, and what is sent to the device in its name.
fn mute() -> (Mosquitto, Device, Attached) {
    let fixture = Arc::new(Fixture::new());
    let broker = Mosquitto::start();
    let device = Device::new(&fixture, broker.port);
    let release = Arc::new(Release::new(&fixture, Codec::Raw, noise(1, 1024), 1));
    let service = Attached::start(&broker, Service::new(fixture, vec![release]));
    service.lock().silent_after = Some(0);
    (broker, device, service)
}

#[test]
fn a_device_that_is_not_accepted_yet_says_that_it_waits_for_that() {
    let (_broker, mut device, service) = mute();
    device.start();
    device.wait_for("it has connected", |status| status["link"]["up"] == true);
    let pending = Refusal { code: RefusalCode::Pending, retry_after_s: Some(60), payload: None };
    // The device may not have subscribed yet.
    device.wait_for("it says what it waits for", |status| {
        service.lock().extra.push((Channel::Answers, pending.encode()));
        status["state"] == "waiting for acceptance"
    });
    assert!(device.run(&["status"]).stdout.contains("state     waiting for acceptance\n"));
    assert_eq!(device.log().matches("waiting for acceptance").count(), 1);
}

#[test]
fn messages_that_are_rejected_for_one_reason_are_one_line_a_minute() {
    let (_broker, mut device, service) = mute();
    device.start();
    device.wait_for("it has connected", |status| status["link"]["up"] == true);
    let status = device.wait_for("many were rejected", |status| {
        service.lock().extra.extend((0..50).map(|_| (Channel::Answers, b"nonsense".to_vec())));
        status["rejected"]["malformed"].as_u64() >= Some(300)
    });
    assert_eq!(device.log().matches("message rejected").count(), 1, "{status}");
}
