//! The ledger against the kernel's own count, through mosquitto.

use std::process::Command;

use bytes::Bytes;
use tokio::time::timeout;

use whimbrel_sim::clock::Clock;
use whimbrel_sim::control::Control;
use whimbrel_sim::link::Link;
use whimbrel_sim::meter::{Class, Ledger, Part};
use whimbrel_sim::mqtt::{Client, Delivery, Event};
use whimbrel_sim::shape::{Cut, Path};

use crate::broker::Mosquitto;
use crate::support::{CHUNK, PAGE, PATIENCE, REQUEST, UNSHAPED, classify, clock, options, shaped};

struct Device {
    client: Client<Link>,
    ledger: Ledger,
    name: String,
}

impl Device {
    async fn connect(broker: &Mosquitto, name: &str, path: &Path, clock: &Clock) -> Self {
        let link = Link::connect(broker.address, path, clock.clone()).await.unwrap();
        let mut ledger = Ledger::default();
        let (client, present) = Client::login(link, options(name), &mut ledger).await.unwrap();
        assert!(!present);
        Self { client, ledger, name: name.to_owned() }
    }

    async fn next(&mut self) -> Event {
        loop {
            match timeout(PATIENCE, self.client.next(&mut self.ledger)).await.unwrap().unwrap() {
                Event::Activity => {}
                event => return event,
            }
        }
    }

    fn topic(&self, leaf: &str) -> String {
        format!("ota/d/{}/{leaf}", self.name)
    }

    async fn subscribe(&mut self, delivery: Delivery) {
        self.client.subscribe(&[(self.topic("c"), delivery), ("ota/t".to_owned(), delivery)]).unwrap();
        assert!(matches!(self.next().await, Event::Subscribed(granted) if granted == [true, true]));
    }

    /// Sends everything that is queued.
    async fn drain(&mut self) {
        self.client.ping().unwrap();
        while !matches!(self.next().await, Event::Pong) {}
    }
}

/// A message of one kind with its toy header.
fn message(kind: u8, bytes: usize) -> Bytes {
    let mut message = vec![0xda; bytes];
    message[0] = kind;
    message.into()
}

/// What the kernel counted on a connection: bytes sent, without what was sent again, and bytes received.
fn kernel_count(client: &Client<Link>) -> (u64, u64) {
    let port = client.stream().local_addr().unwrap().port();
    let output = Command::new("ss").args(["-tinH", "sport", "=", &format!(":{port}")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |name: &str| -> u64 {
        let field = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
        field.map_or(0, |digits| digits.parse().unwrap())
    };
    assert!(count("bytes_sent") > 0, "ss shows TCP_INFO: {text}");
    (count("bytes_sent") - count("bytes_retrans"), count("bytes_received"))
}

#[tokio::test]
async fn without_cuts_the_sums_are_the_kernels_own() {
    let broker = Mosquitto::start();
    let clock = clock(1);
    let mut service = Device::connect(&broker, "service", &UNSHAPED, &clock).await;
    let mut devices = Vec::new();
    for (number, delivery) in
        [Delivery::AtMostOnce, Delivery::AtLeastOnce, Delivery::AtMostOnce].into_iter().enumerate()
    {
        let path = if number < 2 { shaped(400_000, 20) } else { UNSHAPED };
        let mut device = Device::connect(&broker, &format!("d{number}"), &path, &clock).await;
        device.subscribe(delivery).await;
        devices.push(device);
    }
    let sizes = [1, 100, 4_100, 16_500, 60_000, 7, 4_100];
    for device in &mut devices {
        device.client.publish(&device.topic("q"), message(REQUEST, 21), Delivery::AtMostOnce).unwrap();
        device.client.publish(&device.topic("r"), message(0x20, 300), Delivery::AtLeastOnce).unwrap();
        device.drain().await;
        for (number, bytes) in sizes.into_iter().enumerate() {
            let kind = [CHUNK, PAGE, 0x30][number % 3];
            let mut left = message(kind, bytes);
            // The outbox holds 16 KiB; a larger message goes out by another way.
            if bytes > 10_000 {
                let topic = device.topic("c");
                let payload = left.split_to(bytes);
                publish_large(&broker, &topic, &payload).await;
            } else {
                service.client.publish(&device.topic("c"), left, Delivery::AtLeastOnce).unwrap();
                service.drain().await;
            }
        }
    }
    for device in &mut devices {
        let mut arrived = Vec::new();
        while arrived.len() < sizes.len() {
            match device.next().await {
                Event::Message { payload, topic, retained } => {
                    assert_eq!((topic, retained), (device.topic("c"), false));
                    arrived.push(payload.len());
                }
                Event::Acknowledged(_) => {}
                other => panic!("{other:?}"),
            }
        }
        arrived.sort_unstable();
        let mut expected = sizes;
        expected.sort_unstable();
        assert_eq!(arrived, expected);
        // The last acknowledgements go out before the ping, whose answer says that they have arrived.
        device.drain().await;
        let (sent, received) = kernel_count(&device.client);
        assert_eq!(received, device.ledger.mqtt_bytes_down, "{}", device.name);
        assert_eq!(sent, device.ledger.mqtt_bytes_up + device.ledger.login_bytes, "{}", device.name);
        assert_eq!(device.ledger.check(), Ok(()));
        let data: usize =
            sizes.iter().enumerate().filter(|(number, _)| number % 3 < 2).map(|(_, bytes)| bytes).sum();
        // Type, 1 to 3 bytes of length, 2 + 10 of topic; at QoS 1 the packet's number.
        let number_bytes = if device.name == "d1" { 2 } else { 0 };
        let headers = 14 + 14 + 16 + 16 + 15 + 5 * number_bytes;
        assert_eq!(device.ledger.data_bytes_down, data as u64 + headers, "{}", device.name);
        assert_eq!(device.ledger.data_bytes_up, 2 + 2 + 10 + 21);
    }
    for device in devices {
        let Device { mut client, mut ledger, .. } = device;
        let before = ledger;
        timeout(PATIENCE, client.close(&mut ledger)).await.unwrap().unwrap();
        client.finish(&mut ledger);
        assert_eq!(ledger.mqtt_bytes_up, before.mqtt_bytes_up + 2, "DISCONNECT");
        assert_eq!(ledger.check(), Ok(()));
    }
}

/// Publishes by a raw connection what is larger than a device ever sends.
async fn publish_large(broker: &Mosquitto, topic: &str, payload: &Bytes) {
    use rumqttc::mqttbytes::QoS;
    use rumqttc::mqttbytes::v4::{Connect, Packet, Publish};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(broker.address).await.unwrap();
    let mut out = bytes::BytesMut::new();
    Packet::Connect(Connect::new("large")).write(&mut out, 1 << 20).unwrap();
    let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, payload.clone());
    publish.pkid = 1;
    Packet::Publish(publish).write(&mut out, 1 << 20).unwrap();
    stream.write_all(&out).await.unwrap();
    let mut answers = [0; 8];
    timeout(PATIENCE, stream.read_exact(&mut answers)).await.unwrap().unwrap();
    assert_eq!((answers[0], answers[4]), (0x20, 0x40), "CONNACK and PUBACK");
}

/// Cut at a byte in a stream of chunk messages, the ledger closes and only the cut message is fetched in vain.
#[tokio::test]
async fn after_a_cut_the_sums_close_and_the_cut_message_is_refetched() {
    let broker = Mosquitto::start();
    let clock = clock(1);
    let mut service = Device::connect(&broker, "service", &UNSHAPED, &clock).await;
    let (message_bytes, whole_messages) = (2_000, 5);
    // CONNACK, SUBACK of two filters, then PUBLISH: type, 2 of length, 2 + 10 of topic.
    let (before, publish_bytes) = (4 + 6, message_bytes + 1 + 2 + 2 + 10);
    for beyond in [0, 1, 3, 14, 15, 16, 18, 19, 20, 900, publish_bytes - 1] {
        let cut = Cut::AfterBytes(before + whole_messages * publish_bytes + beyond);
        let path = Path { cut: Some(cut), ..shaped(500_000, 0) };
        let mut device = Device::connect(&broker, "d0", &path, &clock).await;
        device.subscribe(Delivery::AtMostOnce).await;
        for _ in 0..=whole_messages {
            let topic = device.topic("c");
            service.client.publish(&topic, message(CHUNK, 2_000), Delivery::AtMostOnce).unwrap();
            service.drain().await;
        }
        for _ in 0..whole_messages {
            assert!(matches!(device.next().await, Event::Message { .. }));
            device.ledger.carried(Part::Chunks, message_bytes - 4, 0);
        }
        let error = loop {
            match timeout(PATIENCE, device.client.next(&mut device.ledger)).await.unwrap() {
                Ok(Event::Activity) => {}
                Ok(event) => panic!("{event:?}"),
                Err(error) => break error,
            }
        };
        assert!(error.is_cut(), "{error}");
        let Device { client, mut ledger, .. } = device;
        client.finish(&mut ledger);
        assert_eq!(ledger.check(), Ok(()), "cut {beyond} bytes into a message");
        let all = before + whole_messages * publish_bytes + beyond;
        assert_eq!(ledger.mqtt_bytes_down, all);
        assert_eq!(
            ledger.refetched_bytes(),
            beyond.saturating_sub(15 + 4),
            "cut {beyond} bytes into a message"
        );
        let told_apart = if beyond > 15 { beyond } else { 0 };
        assert_eq!(ledger.data_bytes_down, whole_messages * publish_bytes + told_apart);
    }
}

#[test]
fn the_toy_messages_are_told_apart() {
    assert_eq!(classify("ota/d/x/c", &[]), Class::Control(Control::Other));
    assert!(matches!(classify("ota/d/x/c", &[CHUNK]), Class::Data { part: Part::Chunks, .. }));
    assert_eq!(classify("ota/d/x/s", &[CHUNK]), Class::Control(Control::Other));
}
