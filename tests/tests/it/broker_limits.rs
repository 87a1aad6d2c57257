//! Brokers that carry less than a device asks for.

use e2e::broker::Mosquitto;
use e2e::bundle::Bundle;
use e2e::stage::Stage;
use serde_json::json;

/// Such a broker drops what is larger and says nothing. The device would ask for the same size for ever.
#[test]
fn an_update_arrives_through_a_mosquitto_that_takes_no_message_above_8_kib() {
    let broker = Mosquitto::start_with("message_size_limit 8192");
    let stage = Stage::attached_to(broker, Bundle::new(), &[]);
    let device = stage.device("meter-17");
    let release = stage.bundle.noise_release(1, 60_000);
    assert_eq!(release.chunk_size, 1024);
    let campaign = stage.service.roll_out(&release);
    let status = stage.wait_until_updated(&device, &release, &campaign);
    // The image's start was a new session, which knows what the one before found out. 4 chunks and a header pass.
    assert_eq!(status["link"]["messages_above"], json!(4102), "{status}");
    let sentence = "messages above 4102 bytes do not arrive: the broker's limit?";
    assert!(device.command(["status"]).good().contains(sentence), "it stands in status");
    assert!(device.log().contains(sentence), "and in the log");
    // What was found out is kept: the next update asks for nothing that does not pass.
    let lost = status["counters"]["messages-lost"].clone();
    let release = stage.bundle.noise_release(2, 60_000);
    let campaign = stage.service.roll_out(&release);
    let status = stage.wait_until_updated(&device, &release, &campaign);
    assert_eq!(status["counters"]["messages-lost"], lost, "{status}");
}
