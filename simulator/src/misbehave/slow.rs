//! A client that logs in byte by byte, then says hello ten times a second and reads nothing.

use core::time::Duration;
use std::io;

use whimbrel_protocol::ids::{Nonce, ShortDigest};
use whimbrel_protocol::message::Hello;
use whimbrel_protocol::topic::Channel;

use super::raw::{Raw, connect, publish, subscribe};
use super::{Client, Counters};

const A_BYTE_EVERY: Duration = Duration::from_millis(50);
const HELLO_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn connection(client: &Client) -> io::Result<()> {
    let mut raw = Raw::open(client).await?;
    for byte in connect(client, client.id.as_str())? {
        raw.send(&[byte]).await?;
        tokio::time::sleep(A_BYTE_EVERY).await;
    }
    raw.answered().await?;
    raw.send(&subscribe(client.topic(Channel::Answers))?).await?;
    loop {
        raw.send(&publish(client.topic(Channel::Requests), hello(client))?).await?;
        Counters::add(&client.counters.messages, 1);
        tokio::time::sleep(HELLO_EVERY).await;
    }
}

/// A hello as a device says it that has nothing yet.
pub(super) fn hello(client: &Client) -> Vec<u8> {
    let hello = Hello {
        version_max: 1,
        class: client.class.tag(),
        running: ShortDigest([0; 8]),
        sequence: 0,
        root: 1,
        assignment: 0,
        groups: Vec::new(),
        nonce: Nonce(getrandom::u64().unwrap_or(0).to_be_bytes()),
        report: None,
    };
    hello.encode()
}
