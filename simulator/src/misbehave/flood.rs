//! Messages of one byte, as fast as they are taken.

use std::io;

use whimbrel_protocol::topic::Channel;

use super::raw::{Raw, publish};
use super::{Client, Counters};

/// Messages in one write.
const AT_ONCE: usize = 1000;

pub(super) async fn connection(client: &Client) -> io::Result<()> {
    let mut raw = Raw::log_in(client).await?;
    let many = publish(client.topic(Channel::Requests), vec![0])?.repeat(AT_ONCE);
    loop {
        raw.send(&many).await?;
        Counters::add(&client.counters.messages, AT_ONCE as u64);
    }
}
