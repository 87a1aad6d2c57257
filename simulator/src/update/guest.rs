//! A run as the guest of a broker that others use: names of its own, and everything cleared at the end.
//!
//! What the service asks a broker to keep stays there after the service has gone: an assignment for each device, the
//! campaign, the beacon. A run uses a prefix and a client id that nobody else has, so that it disturbs no service
//! and no device, and makes the broker forget all of that, also if it is interrupted.

use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use anyhow::Context as _;
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS};
use thiserror::Error;
use tokio::time::timeout;
use whimbrel_protocol::ids::Prefix;
use whimbrel_protocol::topic::Channel;

use super::device::device_id;
use super::rollout::GROUP;
use crate::broker::BrokerAddress;
use crate::child::Interrupts;
use crate::seed::Seed;

/// What a run is called at a broker that is not its own.
#[derive(Debug)]
pub struct Guest {
    /// Where the broker is.
    pub broker: BrokerAddress,
    /// First level of all topics.
    pub prefix: Prefix,
    /// The service's client id.
    pub service_id: String,
    /// Before each device's id in its client id.
    device_prefix: String,
    /// The broker may keep messages of this run.
    may_keep: AtomicBool,
}

/// Messages that the broker may still keep.
#[derive(Debug, Error)]
#[error(
    "the broker may keep {left} of {all} messages below {prefix}/ ({why}); to clear them: mosquitto_sub -h {host} -p \
     {port} -t '{prefix}/#' --remove-retained --retained-only -W 10"
)]
pub struct Left {
    left: usize,
    all: usize,
    why: String,
    prefix: Prefix,
    host: String,
    port: u16,
}

impl Guest {
    /// A guest with a prefix of its own, or this one where the broker's rules know it. `drawn` is a random number that
    /// no other run has.
    #[must_use]
    pub fn new(broker: BrokerAddress, prefix: Option<Prefix>, drawn: u32) -> Self {
        let own = Prefix::new(&format!("sim-{drawn:08x}")).expect("twelve letters and digits");
        // A broker whose rules know the prefix may know devices by their client ids too.
        let device_prefix = if prefix.is_some() { String::new() } else { format!("{own}-") };
        Self {
            broker,
            prefix: prefix.unwrap_or(own),
            service_id: format!("whimbrel-sim-{drawn:08x}"),
            device_prefix,
            may_keep: AtomicBool::new(false),
        }
    }

    /// The same, with a number that the system draws.
    ///
    /// # Errors
    /// If the system gives no random number.
    pub fn drawn(broker: &BrokerAddress, prefix: Option<Prefix>) -> anyhow::Result<Arc<Self>> {
        let drawn = Seed::fresh().context("the system gives no random number")?;
        Ok(Arc::new(Self::new(broker.clone(), prefix, u32::try_from(drawn.0).unwrap_or(u32::MAX))))
    }

    /// The client id of a device.
    #[must_use]
    pub fn client_id(&self, device: u32) -> String {
        format!("{}{}", self.device_prefix, device_id(device))
    }

    /// The service is started now: from here on the broker may keep messages.
    pub fn starts(&self) {
        self.may_keep.store(true, Ordering::Release);
    }

    /// Makes the broker forget what it keeps of a run with so many devices. The service must have been stopped, or be
    /// about to be killed: this takes its client id, so that the broker closes its connection first.
    ///
    /// # Errors
    /// [`Left`]: what the broker has not confirmed to have forgotten.
    pub async fn leave(&self, devices: u32, forgotten: &Forgotten) -> Result<(), Left> {
        if !self.may_keep.load(Ordering::Acquire) {
            return Ok(());
        }
        let topics: Vec<String> = (0..devices)
            .map(|number| Channel::Assignment.topic(&self.prefix, &device_id(number)))
            .chain([format!("{}/g/{GROUP}", self.prefix), format!("{}/t", self.prefix)])
            .collect();
        let mut cuts_at_once = 0;
        loop {
            let done = forgotten.count();
            let Some(rest) = topics.get(done..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
            let ended = self.forget(rest, forgotten).await;
            match ended {
                Ok(()) => {}
                Err(Ended::CutAtOnce) if forgotten.count() == 0 => {
                    // A broker that keeps no messages may close the connection at the first that it should forget.
                    cuts_at_once += 1;
                    if cuts_at_once == CUTS_AT_ONCE {
                        return Ok(());
                    }
                }
                Err(Ended::Lost(_)) if forgotten.count() > done => {}
                Err(why) => return Err(self.left(devices, forgotten, &why)),
            }
        }
    }

    /// What is left if clearing ends here.
    pub fn left(&self, devices: u32, forgotten: &Forgotten, why: &dyn fmt::Display) -> Left {
        let all = usize::try_from(devices).unwrap_or(usize::MAX).saturating_add(2);
        Left {
            left: all.saturating_sub(forgotten.count()),
            all,
            why: why.to_string(),
            prefix: self.prefix.clone(),
            host: self.broker.host.clone(),
            port: self.broker.port,
        }
    }

    /// Over one connection: an empty message with the retain flag for each topic, acknowledged in order.
    async fn forget(&self, topics: &[String], forgotten: &Forgotten) -> Result<(), Ended> {
        let host = match self.broker.host.as_str() {
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        let mut options = MqttOptions::new(&self.service_id, host, self.broker.port);
        options.set_clean_session(true).set_inflight(IN_FLIGHT);
        if let Some((user, password)) = &self.broker.login {
            options.set_credentials(user, password);
        }
        let (client, mut events) = AsyncClient::new(options, IN_FLIGHT.into());
        let mut topics = topics.iter();
        let (mut under_way, mut acknowledged) = (0_u16, false);
        loop {
            let event = match next(&mut events).await {
                Err(Ended::Lost(_)) if under_way > 0 && !acknowledged => return Err(Ended::CutAtOnce),
                event => event?,
            };
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {}
                Event::Incoming(Packet::PubAck(_)) => {
                    under_way = under_way.saturating_sub(1);
                    acknowledged = true;
                    forgotten.add();
                }
                _ => continue,
            }
            while under_way < IN_FLIGHT / 2
                && let Some(topic) = topics.next()
            {
                let sent = client.try_publish(topic, QoS::AtLeastOnce, true, Vec::new());
                sent.map_err(|error| Ended::Full(error.to_string()))?;
                under_way += 1;
            }
            if under_way == 0 {
                client.try_disconnect().ok();
                // The broker closes when it has read it; an error is that end.
                while next(&mut events).await.is_ok_and(|event| !is_goodbye(&event)) {}
                return Ok(());
            }
        }
    }
}

/// Does `work` until it ends or is interrupted. After that a broker that `guest` was at keeps nothing of its so many
/// devices, unless clearing fails or is interrupted too: then what is left stands beside what came of the work.
///
/// # Errors
/// That of the work, or that it was interrupted; with what is left at the broker.
pub async fn until_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    guest: Option<&Guest>,
    devices: u32,
) -> anyhow::Result<(T, Option<Left>)> {
    let mut interrupts = Interrupts::catch().context("cannot wait for Ctrl-C")?;
    let outcome = tokio::select! {
        outcome = work => outcome.map(Some),
        () = interrupts.next() => Ok(None),
    };
    let done = |outcome: Option<T>| Ok((outcome.context("interrupted; nothing is left behind")?, None));
    let Some(guest) = guest else { return outcome.and_then(done) };
    let forgotten = Forgotten::default();
    let left = tokio::select! {
        left = guest.leave(devices, &forgotten) => left,
        () = interrupts.next() => Err(guest.left(devices, &forgotten, &"interrupted again")),
    };
    match (outcome, left) {
        (outcome, Ok(())) => outcome.and_then(done),
        (Ok(Some(outcome)), Err(left)) => Ok((outcome, Some(left))),
        (Ok(None), Err(left)) => Err(left.into()),
        (Err(error), Err(left)) => Err(error.context(left)),
    }
}

/// How many of the messages the broker has forgotten, for whoever interrupts that.
#[derive(Debug, Default)]
pub struct Forgotten(core::sync::atomic::AtomicUsize);

impl Forgotten {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a connection ended before all was forgotten.
#[derive(Debug, Error)]
enum Ended {
    #[error("{0}")]
    Lost(ConnectionError),
    #[error("it closed the connection at the first message")]
    CutAtOnce,
    #[error("it has not answered for {} s", ANSWER_LIMIT.as_secs())]
    Silent,
    #[error("{0}")]
    Full(String),
}

async fn next(events: &mut EventLoop) -> Result<Event, Ended> {
    match timeout(ANSWER_LIMIT, events.poll()).await {
        Ok(event) => event.map_err(Ended::Lost),
        Err(_) => Err(Ended::Silent),
    }
}

fn is_goodbye(event: &Event) -> bool {
    matches!(event, Event::Outgoing(rumqttc::Outgoing::Disconnect))
}

/// Messages under way at once.
const IN_FLIGHT: u16 = 100;
/// How long the broker may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// A broker that closes so often at the first message is not asked again.
const CUTS_AT_ONCE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(prefix: Option<&str>) -> Guest {
        let prefix = prefix.map(|prefix| Prefix::new(prefix).unwrap());
        Guest::new("mqtt://u:secret@broker:1884".parse().unwrap(), prefix, 0xab)
    }

    #[test]
    fn a_run_has_names_that_no_service_and_no_device_has() {
        let own = guest(None);
        assert_eq!((own.prefix.as_str(), own.service_id.as_str()), ("sim-000000ab", "whimbrel-sim-000000ab"));
        assert_eq!(own.client_id(7), "sim-000000ab-dev-00007");
        // MQTT 3.1.1 promises room for 23 bytes.
        assert!(own.client_id(49_999).len() <= 23 && own.service_id.len() <= 23);
        let told = guest(Some("load"));
        assert_eq!((told.prefix.as_str(), told.client_id(7).as_str()), ("load", "dev-00007"));
        assert_eq!(told.service_id, own.service_id);
    }

    #[test]
    fn what_is_left_is_told_with_the_command_that_clears_it_and_without_the_password() {
        let forgotten = Forgotten::default();
        forgotten.add();
        let said = guest(None).left(4, &forgotten, &"interrupted").to_string();
        assert!(
            said.starts_with("the broker may keep 5 of 6 messages below sim-000000ab/ (interrupted)"),
            "{said}"
        );
        assert!(
            said.contains("mosquitto_sub -h broker -p 1884 -t 'sim-000000ab/#' --remove-retained"),
            "{said}"
        );
        assert!(!said.contains("secret") && !said.contains('\n'), "{said}");
    }

    #[tokio::test]
    async fn nothing_is_cleared_where_no_service_was_started() {
        assert!(guest(None).leave(4, &Forgotten::default()).await.is_ok());
    }
}
