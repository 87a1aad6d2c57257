//! Enrolments and reports of the client's own id, signed by keys that are not its own.

use core::time::Duration;
use std::io;

use whimbrel_protocol::cose::{Kind, SigningKey, sign_attached};
use whimbrel_protocol::message::Enrolment;
use whimbrel_protocol::topic::Channel;

use super::raw::{Raw, publish};
use super::slow::hello;
use super::{Client, Counters};

const EVERY: Duration = Duration::from_millis(20);

pub(super) async fn connection(client: &Client) -> io::Result<()> {
    let mut raw = Raw::log_in(client).await?;
    loop {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let key = SigningKey::ed25519(&secret);
        let enrolment = Enrolment { device: client.id.clone(), key: key.public(), class: client.class };
        let enrolment = sign_attached(&key, Kind::Enrolment, None, &enrolment.encode());
        // As far as anybody can tell before looking at the signature, a report of this device.
        let report = sign_attached(&client.key, Kind::Report, None, &secret);
        for (channel, message) in
            [(Channel::Reports, enrolment), (Channel::Reports, report), (Channel::Requests, hello(client))]
        {
            raw.send(&publish(client.topic(channel), message)?).await?;
            Counters::add(&client.counters.messages, 1);
        }
        tokio::time::sleep(EVERY).await;
    }
}
