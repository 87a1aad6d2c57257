//! The router with no logic of ours: rumqttd's own broker, and a link that answers every request with the messages
//! of the image that it names, which lie ready.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::ExitCode;

use anyhow::Context as _;
use bytes::Bytes;
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish};
use rumqttd::{
    Broker, Config, ConnectionSettings, Notification, RouterConfig, SegmentConfig, ServerSettings,
};
use whimbrel_protocol::ids::Prefix;
use whimbrel_protocol::topic;

use super::puller::Wanted;
use super::random_image;

/// The program: takes the bytes of the image and of a message, serves until its parent is gone.
pub fn main_from_args(args: &[OsString]) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("router: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &[OsString]) -> anyhow::Result<()> {
    let number = |at: usize| args.get(at).and_then(|number| number.to_str()?.parse::<u64>().ok());
    let image = random_image(number(0).context("bytes of the image")?, 1);
    let size = usize::try_from(number(1).context("bytes of a message")?)?;
    let messages = image.chunks(size.max(1)).map(|message| image.slice_ref(message)).collect::<Vec<_>>();
    // The broker does not say which port it got, so that one is looked for beforehand.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 80 * 1024,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: false,
    };
    let server = ServerSettings {
        name: "bench".to_owned(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    let segment = |max_segment_size, max_segment_count| SegmentConfig { max_segment_size, max_segment_count };
    // The segments that the service uses too.
    let custom = HashMap::from([
        (topic::all_requests(&Prefix::default()), segment(4 << 20, 4)),
        (topic::all_answers(&Prefix::default()), segment(256 << 10, 2)),
    ]);
    let router = RouterConfig {
        max_connections: 12_000,
        max_outgoing_packet_count: 200,
        max_segment_size: 256 << 10,
        max_segment_count: 2,
        custom_segment: Some(custom),
        ..RouterConfig::default()
    };
    let v4 = HashMap::from([("bench".to_owned(), server)]);
    let mut broker = Broker::new(Config { router, v4: Some(v4), ..Config::default() });
    let (tx, rx) = broker.link("bench-link")?;
    std::thread::spawn(move || {
        if let Err(error) = push(tx, rx, &messages) {
            eprintln!("router: the link ended: {error:#}");
            std::process::exit(1);
        }
    });
    std::thread::spawn(move || {
        // The listener is a moment later than the ready line; devices try again.
        let line = serde_json::json!({ "mqtt": address, "admin": address });
        println!("{line}");
        std::io::stdout().flush().ok();
    });
    broker.start().context("the broker ended")
}

fn push(mut tx: LinkTx, mut rx: LinkRx, messages: &[Bytes]) -> anyhow::Result<()> {
    tx.subscribe(topic::all_requests(&Prefix::default()))?;
    loop {
        match rx.recv()? {
            Some(Notification::Forward(forward)) => {
                let Some(wanted) = Wanted::from_bytes(&forward.publish.payload) else { continue };
                let mut topic = forward.publish.topic.to_vec();
                topic.pop();
                topic.push(b'c');
                let topic = Bytes::from(topic);
                let from = messages.get(usize::try_from(wanted.first)?..).unwrap_or_default();
                let Some((last, others)) = from.get(..wanted.count.into()).unwrap_or(from).split_last()
                else {
                    continue;
                };
                for message in others {
                    let publish = Publish::new(topic.clone(), message.clone(), false);
                    tx.buffer().push_back(Packet::Publish(publish, None));
                }
                tx.publish(topic, last.clone())?;
            }
            Some(Notification::Unschedule) => rx.ready()?,
            _ => {}
        }
    }
}
