//! Whole updates by the program itself: service, devices and brokers as people run them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value as Json;

use crate::broker::Mosquitto;

/// Fields that scripts rely on.
const FIELDS: [&str; 17] = [
    "devices",
    "confirmed",
    "failed",
    "image_bytes",
    "transfer_bytes",
    "data_bytes",
    "payload_bytes",
    "control_bytes",
    "mqtt_bytes_down",
    "mqtt_bytes_up",
    "data_overhead_percent",
    "refetched_bytes",
    "link_cuts",
    "elapsed_s",
    "peak_rss_bytes",
    "service_peak_rss_bytes",
    "seed",
];

/// A folder with an image in it that nothing compresses.
struct Image {
    folder: tempfile::TempDir,
    len: u64,
}

impl Image {
    fn new(len: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = core::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        });
        std::fs::write(folder.path().join("image.bin"), noise.take(len).collect::<Vec<_>>()).unwrap();
        Self { folder, len: len as u64 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("image.bin")
    }

    fn swarm(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_whimbrel-sim"))
            .args(["swarm", "--profile", "wifi", "--devices", "4", "--seed", "5", "--image"])
            .arg(self.path())
            .args(arguments)
            .output()
            .unwrap()
    }
}

/// The one object on standard output.
fn report(output: &Output) -> Json {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}; {said}"))
}

fn number(report: &Json, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("{field} in {report}"))
}

#[test]
fn a_swarm_without_cuts_reports_every_byte_on_standard_output_and_progress_on_standard_error() {
    let image = Image::new(200_000);
    let output = image.swarm(&["--json"]);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    for field in FIELDS {
        assert!(report[field].is_number(), "{field} in {report}");
    }
    let of = |field| number(&report, field);
    assert_eq!((of("devices"), of("confirmed"), of("failed"), of("seed")), (4, 4, 0, 5));
    assert_eq!((of("image_bytes"), of("transfer_bytes")), (image.len, image.len));
    assert_eq!((of("link_cuts"), of("refetched_bytes")), (0, 0));
    assert_eq!(of("data_bytes") + of("control_bytes"), of("mqtt_bytes_down") + of("mqtt_bytes_up"));
    assert!(of("payload_bytes") >= 4 * image.len, "chunks, pages and manifests: {report}");
    let overhead = 100.0 * (of("data_bytes") as f64 / of("payload_bytes") as f64 - 1.0);
    assert!((report["data_overhead_percent"].as_f64().unwrap() - overhead).abs() < 0.01, "{report}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("confirmed"), "the last line of progress");
}

#[test]
fn cuts_cost_at_most_a_message_each() {
    let image = Image::new(400_000);
    let output = image.swarm(&["--json", "--cuts-per-device", "2", "-q"]);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!(number(&report, "link_cuts"), 8);
    let largest = whimbrel_protocol::limits::CHUNK_MESSAGE_BYTES_MAX as u64;
    assert!(number(&report, "refetched_bytes") <= 8 * largest, "{report}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn one_corrupted_chunk_on_the_medium_of_one_device_is_found() {
    let image = Image::new(100_000);
    let output = image.swarm(&["--json", "--corrupt-chunk=2"]);
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    assert_eq!((number(&report, "wrong_images"), number(&report, "confirmed")), (1, 4), "{report}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not the one released"), "{said}");
}

#[test]
fn devices_on_the_base_get_a_patch_and_those_on_anything_else_the_full_payload() {
    let image = Image::new(200_000);
    let mut base = std::fs::read(image.path()).unwrap();
    for at in (500..base.len()).step_by(20_000) {
        base[at] ^= 1;
    }
    let path = image.folder.path().join("base.bin");
    std::fs::write(&path, &base).unwrap();
    let path = path.to_str().unwrap();
    let shares = ["--unknown-percent", "25", "--flipped-percent", "25"];
    let output = image.swarm(&[&["--json", "-q", "--base", path][..], &shares].concat());
    let report = report(&output);
    assert!(output.status.success(), "every image read back is right: {report}");
    assert_eq!(number(&report, "confirmed"), 4);
    let [patch, full] = [0, 1].map(|at| &report["payloads"][at]);
    let words = |share: &Json| (share["kind"].as_str().unwrap().to_owned(), number(share, "devices"));
    assert_eq!([words(patch), words(full)], [("patch".to_owned(), 2), ("full".to_owned(), 2)], "{report}");
    let (patch_bytes, full_bytes) = (number(patch, "transfer_bytes"), number(full, "transfer_bytes"));
    assert!(patch_bytes * 50 < full_bytes, "{report}");
    assert_eq!(number(patch, "chunk_bytes"), 2 * patch_bytes, "{report}");
    assert_eq!(
        number(full, "chunk_bytes"),
        2 * full_bytes,
        "a device whose base does not fit fetches no patch"
    );
    assert_eq!(number(&report, "chunk_bytes"), 2 * (patch_bytes + full_bytes));
    assert!(number(patch, "mqtt_bytes") * 10 < number(full, "mqtt_bytes"), "{report}");

    let output = image.swarm(&["--base", path, "--unknown-percent", "60", "--flipped-percent", "50"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("110 together, 100 at most"), "{output:?}");
}

#[test]
fn devices_and_service_meet_at_a_broker_of_another_maker() {
    let broker = Mosquitto::start();
    let image = Image::new(100_000);
    let output = image.swarm(&["--json", "--broker", &format!("mqtt://{}", broker.address)]);
    let report = report(&output);
    assert!(output.status.success(), "{report} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(number(&report, "confirmed"), 4);
}

/// What the broker keeps, topic by topic.
fn kept(broker: &Mosquitto) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = MqttOptions::new("looks", broker.address.ip().to_string(), broker.address.port());
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut events) = AsyncClient::new(options, 10);
        client.try_subscribe("#", QoS::AtMostOnce).unwrap();
        let mut topics = Vec::new();
        loop {
            match events.poll().await.unwrap() {
                // mosquitto sends what it keeps before it answers a ping or carries on with what comes later.
                Event::Incoming(Packet::SubAck(_)) => {
                    client.try_publish("mark", QoS::AtMostOnce, false, *b"").unwrap();
                }
                Event::Incoming(Packet::Publish(publish)) if publish.topic == "mark" => return topics,
                Event::Incoming(Packet::Publish(publish)) => topics.push(publish.topic),
                _ => {}
            }
        }
    })
}

/// Waits until the broker keeps something that ends in this.
fn await_kept(broker: &Mosquitto, end: &str) {
    while !kept(broker).iter().any(|topic| topic.ends_with(end)) {
        std::thread::yield_now();
    }
}

#[test]
fn a_run_leaves_nothing_at_the_broker_and_disturbs_no_service_there() {
    let broker = Mosquitto::start();
    let image = Image::new(100_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = (broker.address.ip().to_string(), broker.address.port());
    // A service that lives there, and its beacon.
    let options = MqttOptions::new("whimbreld", address.0, address.1);
    let (client, mut events) = AsyncClient::new(options, 10);
    client.try_publish("ota/t", QoS::AtLeastOnce, true, *b"beacon").unwrap();
    client.try_subscribe("ota/#", QoS::AtMostOnce).unwrap();
    runtime.block_on(async {
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::Publish(_))) {}
    });
    let output = image.swarm(&["--broker", &format!("mqtt://{}", broker.address)]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("whimbrel-sim: prefix sim-") && said.contains("204 open files here"), "{said}");
    assert_eq!(kept(&broker), ["ota/t"]);
    client.try_publish("ota/mine", QoS::AtMostOnce, false, *b"still here").unwrap();
    runtime.block_on(async {
        loop {
            if let Event::Incoming(packet) = events.poll().await.expect("nobody has taken its client id") {
                match packet {
                    Packet::Publish(publish) if publish.topic == "ota/mine" => return,
                    Packet::Publish(publish) => panic!("{publish:?}"),
                    _ => {}
                }
            }
        }
    });
}

/// A run of half an hour, which is interrupted long before that; the broker keeps what it published.
fn long_run(broker: &Mosquitto, image: &Image) -> std::process::Child {
    let run = Command::new(env!("CARGO_BIN_EXE_whimbrel-sim"))
        .args(["swarm", "--profile", "nbiot-ce0", "--devices", "40", "--seed", "5", "-q", "--prefix", "load"])
        .args(["--broker", &format!("mqtt://{}", broker.address), "--image"])
        .arg(image.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    await_kept(broker, "load/g/all");
    run
}

#[test]
fn an_interrupted_run_leaves_nothing_at_the_broker() {
    let broker = Mosquitto::start();
    let image = Image::new(3_000_000);
    let mut run = long_run(&broker, &image);
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut run.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1), "{said}");
    assert_eq!(said, "whimbrel-sim: interrupted; nothing is left behind\n");
    assert_eq!(kept(&broker), Vec::<String>::new());
}

#[test]
fn who_interrupts_the_clearing_too_is_told_what_is_left_and_what_clears_it() {
    let broker = Mosquitto::start();
    let image = Image::new(3_000_000);
    let mut run = long_run(&broker, &image);
    // From here on the broker answers nobody.
    broker.stop();
    let pid = rustix::process::Pid::from_child(&run);
    while run.try_wait().unwrap().is_none() {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        std::thread::yield_now();
    }
    let mut said = String::new();
    std::io::Read::read_to_string(&mut run.stderr.take().unwrap(), &mut said).unwrap();
    assert!(
        said.contains("may keep 42 of 42 messages below load/ (interrupted again)")
            && said.contains("-t 'load/#' --remove-retained")
            && !said.contains("nothing is left")
            && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn more_devices_than_the_system_allows_sockets_are_refused_with_the_number_before_anything_starts() {
    let image = Image::new(1000);
    let program = env!("CARGO_BIN_EXE_whimbrel-sim");
    let line =
        format!("ulimit -n 300; exec {program} swarm --devices 101 --image {}", image.path().display());
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("101 devices need 301 open files, and the system allows 300")
            && said.contains("take at most 100 devices")
            && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn the_demo_makes_everything_itself_and_ends_with_a_table() {
    let image = Image::new(150_000);
    let output = Command::new(env!("CARGO_BIN_EXE_whimbrel-sim"))
        .args(["demo", "--devices", "4", "--profile", "wifi", "--seed", "0x7", "-q", "--image"])
        .arg(image.path())
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("4 of 4 confirmed") && table.contains("wifi: down 10000 kbit/s"), "{table}");
    assert!(table.contains(", 4 cut, "), "one cut each: {table}");
}

#[test]
fn a_broker_that_is_not_there_and_an_image_that_cannot_be_read_are_one_line_each() {
    let image = Image::new(100_000);
    let nobody = image.swarm(&["--broker", "mqtt://127.0.0.1:1", "-q", "--give-up-after", "5"]);
    let missing = Command::new(env!("CARGO_BIN_EXE_whimbrel-sim"))
        .args(["swarm", "--image", "/nowhere/image.bin", "-q"])
        .output()
        .unwrap();
    for (output, what) in [(nobody, "127.0.0.1:1"), (missing, "/nowhere/image.bin")] {
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.lines().count() == 1 && said.contains(what), "{said}");
    }
}
