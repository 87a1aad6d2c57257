//! The tour of the README, command by command, on each kind of broker.

use e2e::stage::Stage;

fn update_twice(stage: &Stage) {
    let device = stage.device("meter-17");
    let first = stage.bundle.noise_release(1, 200_000);
    let campaign = stage.service.roll_out(&first);
    let status = stage.wait_until_updated(&device, &first, &campaign);
    assert_eq!(status["running"]["slot"], "b");
    assert_eq!(status["rejected"], serde_json::json!({}), "nothing was wrong with any message");
}

#[test]
fn a_device_of_the_embedded_broker_updates() {
    update_twice(&Stage::embedded());
}
