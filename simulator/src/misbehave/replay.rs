//! A device that updates as all do, and repeats its reports and hellos 50 times a second, changed where no signature
//! covers it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::num::NonZeroU32;
use core::time::Duration;

use bytes::Bytes;
use whimbrel_protocol::ids::VendorId;
use whimbrel_protocol::trust::Root;

use super::{Client, Counters};
use crate::clock::{Clock, Moment};
use crate::control::Control;
use crate::disk::Originals;
use crate::fleet::Fleet;
use crate::meter::Class;
use crate::mqtt::Delivery;
use crate::outage::Outages;
use crate::profile::Profiles;
use crate::seed::Seed;
use crate::swarm::{Identity, Input, Machine, Output, SwarmPlan, run_device};
use crate::update::{FleetFacts, UpdatingDevice, VENDOR, classify};

const EVERY: Duration = Duration::from_millis(20);
/// Messages that are repeated in turn: the newest ones.
const KEPT_MAX: usize = 8;
const ROOT_BYTES_MAX: u64 = 4096;

pub(super) async fn replay(client: Client) {
    let counters = client.counters.clone();
    if let Err(error) = device(client).await {
        eprintln!("misbehaving clients: {error:#}");
        Counters::add(&counters.ended, 1);
    }
}

async fn device(client: Client) -> anyhow::Result<()> {
    let plan = &client.plan;
    let root_bytes = whimbrel_publisher::files::read(&plan.root, "root", ROOT_BYTES_MAX)?.to_vec();
    let facts = FleetFacts {
        root: Root::verify(&root_bytes)?,
        root_bytes,
        vendor: VendorId::from_domain(VENDOR),
        class: client.class,
        prefix: plan.prefix(),
        originals: Originals::default(),
        starting: None,
        payloads: Vec::new(),
        mean_time_between_losses_s: 3600,
        message_bytes: None,
        seed: Seed(plan.seed),
    };
    let number = plan.first + u32::from(client.number);
    let device = UpdatingDevice::new(Arc::new(facts), number)?;
    let swarm = SwarmPlan {
        devices: 1,
        broker: plan.broker,
        profile: Arc::new(Profiles::builtin().named("unshaped")?.clone()),
        outages: Outages::NONE,
        seed: Seed(plan.seed),
        start_within: Duration::ZERO,
        give_up_at: Moment::from_micros(u64::MAX),
        keep_alive: Duration::from_secs(600),
        packet_bytes_max: 80 * 1024,
        classify,
        wake_every: Duration::from_millis(50),
    };
    let identity = Identity { client_id: client.id.to_string(), login: plan.login.clone() };
    let replayer = Replayer {
        device,
        counters: client.counters,
        kept: VecDeque::new(),
        due: None,
        repeated: 0,
        out: None,
    };
    let clock = Clock::start(NonZeroU32::MIN);
    run_device(number, identity, replayer, Arc::new(swarm), clock, Arc::new(Fleet::new(1))).await;
    Ok(())
}

struct Replayer {
    device: UpdatingDevice,
    counters: Arc<Counters>,
    /// What it said before.
    kept: VecDeque<(String, Bytes)>,
    /// When the next one is repeated; never while there is no connection.
    due: Option<Moment>,
    repeated: u32,
    out: Option<Output>,
}

impl Replayer {
    /// The next of what it said before.
    fn again(&mut self, now: Moment) {
        self.due = Some(now + EVERY);
        self.repeated = self.repeated.wrapping_add(1);
        let Some((topic, message)) = self.kept.pop_front() else { return };
        let payload = variant(&message, self.repeated);
        self.out = Some(Output::Publish { topic: topic.clone(), payload, delivery: Delivery::AtMostOnce });
        self.kept.push_back((topic, message));
        Counters::add(&self.counters.messages, 1);
    }
}

impl Machine for Replayer {
    fn handle_input(&mut self, now: Moment, input: Input<'_>) {
        match input {
            Input::Connected => {
                Counters::add(&self.counters.connections, 1);
                self.due = Some(now + EVERY);
            }
            Input::Disconnected => {
                Counters::add(&self.counters.ended, 1);
                self.due = None;
            }
            _ => {}
        }
        if self.due.is_some_and(|due| due <= now) {
            self.again(now);
        }
        self.device.handle_input(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            let output = match self.device.poll_output() {
                None => return self.out.take(),
                Some(Output::Finished) => continue,
                Some(output) => output,
            };
            if let Output::Publish { topic, payload, .. } = &output
                && matches!(classify(topic, payload), Class::Control(Control::Hello | Control::Report))
            {
                self.kept.push_back((topic.clone(), payload.clone()));
                if self.kept.len() > KEPT_MAX {
                    self.kept.pop_front();
                }
            }
            return Some(output);
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.device.poll_timeout().into_iter().chain(self.due).min()
    }

    fn reconnect_after(&mut self) -> Duration {
        self.device.reconnect_after()
    }
}

/// A COSE_Sign1 with another key id in its unprotected header; anything else as it is.
fn variant(message: &Bytes, number: u32) -> Bytes {
    const TAG_AND_ARRAY: [u8; 2] = [0xd2, 0x84];
    const KEY_ID: [u8; 3] = [0xa1, 0x04, 0x44];
    let Some(rest) = message.strip_prefix(&TAG_AND_ARRAY[..]) else { return message.clone() };
    let header = match rest {
        [head @ 0x40..=0x57, ..] => 1 + usize::from(head - 0x40),
        [0x58, len, ..] => 2 + usize::from(*len),
        _ => return message.clone(),
    };
    let (Some(protected), Some(rest)) = (rest.get(..header), rest.get(header..)) else {
        return message.clone();
    };
    let rest = match rest {
        [0xa0, rest @ ..] => rest,
        [0xa1, 0x04, 0x44, _, _, _, _, rest @ ..] => rest,
        _ => return message.clone(),
    };
    [&TAG_AND_ARRAY[..], protected, &KEY_ID, &number.to_be_bytes(), rest].concat().into()
}

#[cfg(test)]
mod tests {
    use whimbrel_protocol::cose::{Kind, Sign1, SigningKey, sign_attached};

    use super::*;

    #[test]
    fn variants_of_a_report_differ_in_bytes_and_not_in_what_was_signed() {
        let object =
            Bytes::from(sign_attached(&SigningKey::ed25519(&[7; 32]), Kind::Report, None, b"report"));
        let first = variant(&object, 1);
        let second = variant(&first, 2);
        assert_ne!(first, object);
        assert_eq!(second, variant(&object, 2), "also of one that has a key id already");
        let original = Sign1::decode(&object).unwrap();
        let changed = Sign1::decode(&second).unwrap();
        assert_eq!(changed.unverified_payload(), original.unverified_payload());
        assert_eq!(changed.key_id(), Some(&[0, 0, 0, 2][..]));
        let hello = Bytes::from_static(&[0x11, 0x8a]);
        assert_eq!(variant(&hello, 3), hello);
    }
}
