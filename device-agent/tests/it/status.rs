//! What `status` shows of a running agent.

use alloc::sync::Arc;

use whimbrel_protocol::envelope::Envelope;
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::Fixture;

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
