//! Messages of more than a MiB, which no message of the protocol is.

use core::time::Duration;
use std::io;

use whimbrel_protocol::topic::Channel;

use super::raw::{Raw, publish};
use super::{Client, Counters};

const BYTES: usize = (1 << 20) + (1 << 16);
const EVERY: Duration = Duration::from_millis(50);

pub(super) async fn connection(client: &Client) -> io::Result<()> {
    let mut raw = Raw::log_in(client).await?;
    let message = publish(client.topic(Channel::Requests), vec![0x11; BYTES])?;
    loop {
        raw.send(&message).await?;
        Counters::add(&client.counters.messages, 1);
        tokio::time::sleep(EVERY).await;
    }
}
