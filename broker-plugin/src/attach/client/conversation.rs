//! One connection to the broker: logging in, subscribing, and then messages both ways until it ends.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;
use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use whimbrel_protocol::topic;

use super::lost::Lost;
use super::wire::{self, Publish, Received};
use super::{ClientConfig, ClientCounters};
use crate::attach::{Delivery, Incoming, LinkEvent, Outgoing};
use crate::clock;
use crate::front::Counters;

/// A connection that is logged in and subscribed.
pub(super) struct Conversation<'a, R, W> {
    config: &'a ClientConfig,
    counters: &'a ClientCounters,
    from_broker: R,
    to_broker: W,
    reader: wire::Reader,
    /// What is to be written.
    output: BytesMut,
    /// Messages that the service has not taken yet. While there are any, nothing more is read.
    heard: VecDeque<Publish>,
    in_flight: InFlight,
    /// Whether the broker is asked to keep messages.
    retains: bool,
    /// When it was asked to for the first time, if it has not acknowledged any such message.
    asked_to_keep_at: Option<Instant>,
    has_kept: bool,
    /// The next message of the service, which waits for an acknowledgement of an earlier one.
    held: Option<Outgoing>,
    /// When a byte came from the broker.
    heard_at: Instant,
    /// When the broker took a byte, or had nothing to take.
    taken_at: Instant,
    /// When the broker acknowledged a message, or none waited for that.
    acknowledged_at: Instant,
    ping_at: Instant,
}

/// Logs in and subscribes. Messages that come before the subscription is confirmed are kept.
pub(super) async fn log_in<'a, R, W>(
    config: &'a ClientConfig,
    counters: &'a ClientCounters,
    retains: bool,
    from_broker: R,
    to_broker: W,
) -> Result<Conversation<'a, R, W>, Lost>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let now = clock::timer_now();
    let mut conversation = Conversation {
        config,
        counters,
        from_broker,
        to_broker,
        reader: wire::Reader::default(),
        output: BytesMut::new(),
        heard: VecDeque::new(),
        in_flight: InFlight::default(),
        retains,
        asked_to_keep_at: None,
        has_kept: false,
        held: None,
        heard_at: now,
        taken_at: now,
        acknowledged_at: now,
        ping_at: now + config.keep_alive,
    };
    match timeout(CONNECT_LIMIT, conversation.connect_and_subscribe()).await {
        Ok(done) => done.map(|()| conversation),
        Err(_) => Err(Lost::Silent(CONNECT_LIMIT)),
    }
}

enum Wake {
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Said(Option<Outgoing>),
    Timer,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Conversation<'_, R, W> {
    async fn connect_and_subscribe(&mut self) -> Result<(), Lost> {
        wire::write_connect(&mut self.output, self.config);
        self.write_all().await?;
        match self.await_answer().await.map_err(|lost| match lost {
            Lost::Closed | Lost::Connection(_) => Lost::ClosedAtLogin,
            lost => lost,
        })? {
            Received::ConnAck(0) => {}
            Received::ConnAck(code) => return Err(Lost::LoginRefused(code)),
            _ => return Err(Lost::Malformed),
        }
        let filters =
            [(topic::all_requests(&self.config.prefix), 0), (topic::all_reports(&self.config.prefix), 1)];
        wire::write_subscribe(&mut self.output, &filters);
        self.write_all().await?;
        loop {
            match self.await_answer().await? {
                Received::SubAck(codes) if codes.len() == filters.len() => {
                    let refused = filters.into_iter().zip(codes).find(|(_, code)| *code > 2);
                    return refused.map_or(Ok(()), |((filter, _), _)| Err(Lost::SubscriptionRefused(filter)));
                }
                Received::Publish(publish) if self.heard.len() < EARLY_MAX => self.heard.push_back(publish),
                Received::Publish(Publish { ack, .. }) => {
                    Counters::count(&self.counters.ignored_behind);
                    self.acknowledge(ack);
                }
                Received::Oversized(ack) => self.skip(ack),
                _ => return Err(Lost::Malformed),
            }
        }
    }

    async fn write_all(&mut self) -> Result<(), Lost> {
        self.to_broker.write_all_buf(&mut self.output).await.map_err(Lost::Connection)
    }

    async fn await_answer(&mut self) -> Result<Received, Lost> {
        loop {
            if let Some(received) = self.reader.next()? {
                return Ok(received);
            }
            match self.from_broker.read_buf(self.reader.room()).await {
                Ok(0) => return Err(Lost::Closed),
                Ok(_) => {}
                Err(error) => return Err(Lost::Connection(error)),
            }
        }
    }

    /// Moves messages until the connection ends; also says whether it ended where the broker was asked to keep
    /// something. Whoever does not take what it is sent makes only its own direction
    /// wait: the broker that of the service's messages, the service that of the broker's.
    pub(super) async fn run(
        mut self,
        requests: &mut mpsc::Receiver<Outgoing>,
        events: &mpsc::Sender<LinkEvent>,
    ) -> (Lost, bool) {
        let lost = match self.run_to_the_end(requests, events).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        };
        let now = clock::timer_now();
        let at_retain =
            self.asked_to_keep_at.is_some_and(|asked| !self.has_kept && now < asked + RETAIN_LIMIT);
        (lost, at_retain)
    }

    async fn run_to_the_end(
        &mut self,
        requests: &mut mpsc::Receiver<Outgoing>,
        events: &mpsc::Sender<LinkEvent>,
    ) -> Result<core::convert::Infallible, Lost> {
        loop {
            let now = clock::timer_now();
            self.look_at_the_time(now)?;
            let can_say = self.held.is_none() && self.output.len() < OUTPUT_BYTES;
            let deadline = self.next_deadline();
            let wake = tokio::select! {
                read = self.from_broker.read_buf(self.reader.room()), if self.heard.is_empty() => Wake::Read(read),
                written = self.to_broker.write_buf(&mut self.output), if !self.output.is_empty() => {
                    Wake::Written(written)
                }
                place = events.reserve(), if !self.heard.is_empty() => {
                    let place = place.map_err(|_| Lost::Unwanted)?;
                    if let Some(Publish { topic, payload, retained, ack }) = self.heard.pop_front() {
                        place.send(LinkEvent::Message(Incoming { topic, payload, retained }));
                        // From now on it is the service's to lose.
                        self.acknowledge(ack);
                    }
                    self.heard_at = clock::timer_now();
                    continue;
                }
                said = requests.recv(), if can_say => Wake::Said(said),
                () = sleep_until(deadline) => Wake::Timer,
            };
            match wake {
                Wake::Read(Ok(0)) => return Err(Lost::Closed),
                Wake::Read(Ok(_)) => self.receive()?,
                Wake::Written(Ok(_)) => self.taken_at = clock::timer_now(),
                Wake::Read(Err(error)) | Wake::Written(Err(error)) => return Err(Lost::Connection(error)),
                Wake::Said(None) => return Err(Lost::Unwanted),
                Wake::Said(Some(first)) => self.say(first, requests),
                Wake::Timer => {}
            }
        }
    }

    /// Takes in all packets that are there.
    fn receive(&mut self) -> Result<(), Lost> {
        self.heard_at = clock::timer_now();
        while let Some(received) = self.reader.next()? {
            match received {
                Received::Publish(publish) => {
                    Counters::count(&self.counters.messages_in);
                    self.heard.push_back(publish);
                }
                Received::Oversized(ack) => {
                    Counters::count(&self.counters.messages_in);
                    self.skip(ack);
                }
                Received::PubAck(pkid) => {
                    let kept = self.in_flight.acknowledged(pkid).ok_or(Lost::NeverSent)?;
                    self.has_kept |= kept;
                    self.acknowledged_at = self.heard_at;
                    if let Some(message) = self.held.take() {
                        self.write(message);
                    }
                }
                Received::PingResp => {}
                Received::ConnAck(_) | Received::SubAck(_) => return Err(Lost::Malformed),
            }
        }
        Ok(())
    }

    /// A message that is longer than any of ours is not passed on. It is acknowledged, so that the broker does not
    /// bring it again.
    fn skip(&mut self, ack: Option<u16>) {
        Counters::count(&self.counters.ignored_too_large);
        self.acknowledge(ack);
    }

    fn acknowledge(&mut self, ack: Option<u16>) {
        if let Some(pkid) = ack {
            self.note_output();
            wire::write_puback(&mut self.output, pkid);
        }
    }

    /// Writes this message of the service and all that are ready behind it: one system call for all.
    fn say(&mut self, first: Outgoing, requests: &mut mpsc::Receiver<Outgoing>) {
        let mut next = Some(first);
        while let Some(message) = next {
            self.write(message);
            let can_say = self.held.is_none() && self.output.len() < OUTPUT_BYTES;
            next = if can_say { requests.try_recv().ok() } else { None };
        }
    }

    fn write(&mut self, mut message: Outgoing) {
        if message.retain && !self.retains {
            Counters::count(&self.counters.retain_left_out);
            if message.payload.is_empty() {
                return; // It has kept nothing that it could forget.
            }
            message.retain = false;
        }
        let pkid = match message.delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce => match self.in_flight.next(message.retain) {
                Some(pkid) => Some(pkid),
                None => {
                    self.acknowledged_at = clock::timer_now();
                    self.held = Some(message);
                    return;
                }
            },
        };
        if message.retain && self.asked_to_keep_at.is_none() {
            self.asked_to_keep_at = Some(clock::timer_now());
        }
        self.note_output();
        wire::write_publish(&mut self.output, &message.topic, &message.payload, pkid, message.retain);
        Counters::count(&self.counters.messages_out);
    }

    /// The broker gets its time for what is written now if it has taken all before.
    fn note_output(&mut self) {
        if self.output.is_empty() {
            self.taken_at = clock::timer_now();
        }
    }

    /// Pings if it is time to, and gives the broker up if it has been too long without progress.
    fn look_at_the_time(&mut self, now: Instant) -> Result<(), Lost> {
        let patience = patience(self.config);
        if self.heard.is_empty() && self.heard_at + patience <= now {
            return Err(Lost::Silent(patience));
        }
        if !self.output.is_empty() && self.taken_at + patience <= now {
            return Err(Lost::Stalled(patience));
        }
        if self.held.is_some() && self.acknowledged_at + patience <= now {
            return Err(Lost::Stuck(patience));
        }
        if self.ping_at <= now {
            self.ping_at = now + self.config.keep_alive;
            self.note_output();
            wire::write_ping(&mut self.output);
        }
        Ok(())
    }

    fn next_deadline(&self) -> Instant {
        let patience = patience(self.config);
        let mut next = self.ping_at;
        if self.heard.is_empty() {
            next = next.min(self.heard_at + patience);
        }
        if !self.output.is_empty() {
            next = next.min(self.taken_at + patience);
        }
        if self.held.is_some() {
            next = next.min(self.acknowledged_at + patience);
        }
        next
    }
}

/// Messages that the broker has not acknowledged, each with whether it is to be kept.
#[derive(Debug, Default)]
struct InFlight {
    pkids: BTreeMap<u16, bool>,
    last: u16,
}

impl InFlight {
    /// A packet identifier that is not in use; `None` while the broker owes too many acknowledgements.
    fn next(&mut self, keep: bool) -> Option<u16> {
        if self.pkids.len() >= IN_FLIGHT_MAX {
            return None;
        }
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if let Entry::Vacant(free) = self.pkids.entry(self.last) {
                free.insert(keep);
                return Some(self.last);
            }
        }
    }

    /// Whether the message with this identifier is to be kept; `None` where none was on its way.
    fn acknowledged(&mut self, pkid: u16) -> Option<bool> {
        self.pkids.remove(&pkid)
    }
}

/// How long the connection may make no progress. A healthy broker answers each ping.
fn patience(config: &ClientConfig) -> Duration {
    config.keep_alive + CONNECT_LIMIT
}

/// Time to connect, and time to log in and subscribe.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A broker that ends the connection at the retain flag does so at once.
const RETAIN_LIMIT: Duration = Duration::from_secs(5);
/// Messages kept that came between SUBSCRIBE and SUBACK.
const EARLY_MAX: usize = 1024;
/// Messages of QoS 1 on their way at once. AWS IoT Core takes no more.
const IN_FLIGHT_MAX: usize = 100;
/// No more messages are taken from the service while this much waits for the broker.
const OUTPUT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_that_is_never_acknowledged_is_not_used_again_and_costs_one_place() {
        let mut in_flight = InFlight::default();
        assert_eq!(in_flight.next(false), Some(1));
        for _ in 0..200_000 {
            let pkid = in_flight.next(false).unwrap();
            assert!(pkid > 1);
            assert_eq!(in_flight.acknowledged(pkid), Some(false));
            assert_eq!(in_flight.acknowledged(pkid), None);
        }
        let more = core::iter::from_fn(|| in_flight.next(false)).count();
        assert_eq!(more, IN_FLIGHT_MAX - 1);
        assert_eq!(in_flight.acknowledged(1), Some(false));
        assert!(in_flight.next(false).is_some());
    }
}
