//! What one client is still to be sent of the topics that the door carries itself.
//!
//! The service never waits for a reader. What a client does not take stays in its outbox up to a bound, answers and
//! documents each with their own, so that a flood of answers pushes no document out; beyond it the oldest are lost
//! and counted, as in a broker's log that rolls over. All outboxes together have a bound too ([`Pool`]): when it is
//! reached, each keeps what fits a small share and loses the rest.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rumqttd::protocol::QoS;
use tokio::sync::Notify;
use whimbrel_protocol::ids::GroupName;
use whimbrel_protocol::topic::Channel;

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

/// How much may wait for clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of answers that wait for one client.
    pub(crate) answers: usize,
    /// Bytes of documents that wait for one client.
    pub(crate) documents: usize,
    /// Bytes that wait for all clients, beside the share of each.
    pub(crate) all: usize,
}

/// What waits for all clients.
#[derive(Debug)]
pub(crate) struct Pool {
    bounds: Bounds,
    bytes: AtomicUsize,
}

/// The outbox of one connection. The exchange fills it, the connection empties it.
#[derive(Debug)]
pub(crate) struct Outbox {
    number: u64,
    pool: Arc<Pool>,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    reads: Reads,
    /// Number of the next message: the order of both queues together.
    next: u64,
    answers: Queue,
    documents: Queue,
    /// Bytes of messages that were taken out and are not written yet.
    under_way: usize,
}

/// What the client has subscribed to, and at which QoS.
#[derive(Debug, Default)]
struct Reads {
    answers: Option<QoS>,
    assignment: Option<QoS>,
    beacon: Option<QoS>,
    groups: Vec<(GroupName, QoS)>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(u64, Message)>,
    bytes: usize,
}

/// What has come of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The connection has to be woken: nothing waited before.
    pub(crate) wake: bool,
    /// Messages that were lost for it.
    pub(crate) lost: u64,
}

impl Pool {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, bytes: AtomicUsize::new(0) })
    }
}

impl Outbox {
    pub(crate) fn new(number: u64, pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self { number, pool, state: Mutex::default(), filled: Notify::new() })
    }

    /// Which connection it is of.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// At which QoS the client has subscribed to this.
    pub(crate) fn granted(&self, channel: &Channel) -> Option<QoS> {
        self.state().reads.granted(channel)
    }

    /// How many topics the client has subscribed to.
    pub(crate) fn subscriptions(&self) -> usize {
        let reads = &self.state().reads;
        let own = [reads.answers, reads.assignment, reads.beacon];
        own.iter().flatten().count() + reads.groups.len()
    }

    /// The groups that the client has subscribed to.
    pub(crate) fn groups(&self) -> Vec<GroupName> {
        self.state().reads.groups.iter().map(|(group, _)| group.clone()).collect()
    }

    pub(crate) fn grant(&self, channel: &Channel, qos: QoS) {
        let reads = &mut self.state().reads;
        match channel {
            Channel::Group(group) => reads.groups.push((group.clone(), qos)),
            _ => {
                if let Some(own) = reads.own(channel) {
                    *own = Some(qos);
                }
            }
        }
    }

    /// Ends a subscription; false where there is none.
    pub(crate) fn revoke(&self, channel: &Channel) -> bool {
        let reads = &mut self.state().reads;
        match channel {
            Channel::Group(group) => {
                let before = reads.groups.len();
                reads.groups.retain(|(known, _)| known != group);
                reads.groups.len() < before
            }
            _ => reads.own(channel).is_some_and(|own| own.take().is_some()),
        }
    }

    /// Adds a message, if the client has subscribed to its channel. What is over a bound is lost, the oldest first.
    pub(crate) fn push(&self, channel: &Channel, topic: &Bytes, payload: &Bytes, retain: bool) -> Pushed {
        let mut state = self.state();
        let state = &mut *state;
        let Some(qos) = state.reads.granted(channel) else { return Pushed::default() };
        let wake = state.answers.messages.is_empty() && state.documents.messages.is_empty();
        let (queue, limit) = match channel {
            Channel::Answers => (&mut state.answers, self.pool.bounds.answers),
            _ => (&mut state.documents, self.pool.bounds.documents),
        };
        let message = Message { topic: topic.clone(), payload: payload.clone(), qos, retain };
        let bytes = message.bytes();
        queue.bytes += bytes;
        queue.messages.push_back((state.next, message));
        state.next += 1;
        let all = self.pool.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut lost = 0;
        // The newest stays, however large it is.
        while queue.bytes > limit && queue.messages.len() > 1 {
            lost += self.lose(queue);
        }
        if all > self.pool.bounds.all {
            for queue in [&mut state.answers, &mut state.documents] {
                // A message may be larger than a share. The newest stays until twice as much waits as should, so that
                // clients that take nothing keep no others from getting anything.
                let stays = usize::from(all as u64 <= self.pool.bounds.all as u64 * OUTBOXES_OVER);
                while queue.bytes + state.under_way > SHARE_BYTES && queue.messages.len() > stays {
                    lost += self.lose(queue);
                }
            }
        }
        Pushed { wake, lost }
    }

    fn lose(&self, queue: &mut Queue) -> u64 {
        let Some((_, message)) = queue.messages.pop_front() else { return 0 };
        queue.bytes -= message.bytes();
        self.pool.bytes.fetch_sub(message.bytes(), Ordering::Relaxed);
        1
    }

    /// Takes the next message out; `None` where there is none, or where it is one that has to be acknowledged and
    /// the client may not get another of these (`window_open`).
    pub(crate) fn pop(&self, window_open: bool) -> Option<Message> {
        let mut state = self.state();
        let state = &mut *state;
        let first = |queue: &Queue| queue.messages.front().map_or(u64::MAX, |(number, _)| *number);
        let queue = if first(&state.answers) < first(&state.documents) {
            &mut state.answers
        } else {
            &mut state.documents
        };
        let (_, next) = queue.messages.front()?;
        if next.qos != QoS::AtMostOnce && !window_open {
            return None;
        }
        let (_, message) = queue.messages.pop_front()?;
        queue.bytes -= message.bytes();
        state.under_way += message.bytes();
        if queue.messages.is_empty() {
            queue.messages = VecDeque::new(); // An idle connection owns no queue.
        }
        Some(message)
    }

    /// All that was taken out has been written.
    pub(crate) fn written(&self) {
        let written = core::mem::take(&mut self.state().under_way);
        self.pool.bytes.fetch_sub(written, Ordering::Relaxed);
    }

    /// Waits until something may have come. Cancel-safe.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Wakes the connection.
    pub(crate) fn wake(&self) {
        self.filled.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let held = state.answers.bytes + state.documents.bytes + state.under_way;
        self.pool.bytes.fetch_sub(held, Ordering::Relaxed);
    }
}

impl Reads {
    fn granted(&self, channel: &Channel) -> Option<QoS> {
        match channel {
            Channel::Answers => self.answers,
            Channel::Assignment => self.assignment,
            Channel::Beacon => self.beacon,
            Channel::Group(group) => {
                self.groups.iter().find(|(known, _)| known == group).map(|(_, qos)| *qos)
            }
            Channel::Requests | Channel::Reports => None,
        }
    }

    fn own(&mut self, channel: &Channel) -> Option<&mut Option<QoS>> {
        match channel {
            Channel::Answers => Some(&mut self.answers),
            Channel::Assignment => Some(&mut self.assignment),
            Channel::Beacon => Some(&mut self.beacon),
            Channel::Group(_) | Channel::Requests | Channel::Reports => None,
        }
    }
}

impl Message {
    /// What it counts for: also an empty one takes memory.
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + ENTRY_BYTES
    }
}

/// What a waiting message takes beside its topic and payload.
const ENTRY_BYTES: usize = size_of::<(u64, Message)>();
/// What may wait for each client even if too much waits for all.
pub(crate) const SHARE_BYTES: usize = 8 * 1024;
/// So many times the bound of all may wait, if each client has one message only.
pub(crate) const OUTBOXES_OVER: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(bounds: Bounds) -> Arc<Outbox> {
        let outbox = Outbox::new(1, Pool::new(bounds));
        outbox.grant(&Channel::Answers, QoS::AtMostOnce);
        outbox.grant(&Channel::Assignment, QoS::AtLeastOnce);
        outbox
    }

    fn push(outbox: &Outbox, channel: &Channel, payload: &[u8]) -> Pushed {
        outbox.push(channel, &Bytes::from_static(b"t"), &Bytes::copy_from_slice(payload), false)
    }

    fn all(outbox: &Outbox) -> Vec<Bytes> {
        core::iter::from_fn(|| outbox.pop(true)).map(|message| message.payload).collect()
    }

    const WIDE: Bounds = Bounds { answers: 1 << 20, documents: 1 << 20, all: 1 << 30 };

    #[test]
    fn messages_of_both_kinds_leave_in_the_order_in_which_they_came() {
        let outbox = outbox(WIDE);
        push(&outbox, &Channel::Answers, b"1");
        push(&outbox, &Channel::Assignment, b"2");
        push(&outbox, &Channel::Answers, b"3");
        assert_eq!(push(&outbox, &Channel::Beacon, b"not subscribed"), Pushed::default());
        assert_eq!(all(&outbox), [&b"1"[..], b"2", b"3"]);
    }

    #[test]
    fn answers_over_the_bound_lose_the_oldest_answers_and_no_document() {
        let one = 1000 + 1 + ENTRY_BYTES;
        let outbox = outbox(Bounds { answers: 3 * one, ..WIDE });
        push(&outbox, &Channel::Assignment, b"document");
        let lost: u64 = (0..10).map(|number| push(&outbox, &Channel::Answers, &[number; 1000]).lost).sum();
        assert_eq!(lost, 7);
        let left = all(&outbox);
        assert_eq!(left[0], &b"document"[..]);
        assert_eq!(left[1..].iter().map(|payload| payload[0]).collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn when_too_much_waits_for_all_a_client_with_nothing_waiting_still_gets_a_message_above_its_share() {
        let pool = Pool::new(Bounds { all: 100_000, ..WIDE });
        let [hoards, honest] = [1, 2].map(|number| {
            let outbox = Outbox::new(number, Arc::clone(&pool));
            outbox.grant(&Channel::Answers, QoS::AtMostOnce);
            outbox
        });
        for _ in 0..5 {
            push(&hoards, &Channel::Answers, &[0; 20_000]);
        }
        push(&honest, &Channel::Answers, &[0; 60_000]);
        assert!(honest.pop(true).is_some());
    }

    #[test]
    fn when_too_much_waits_for_all_each_keeps_its_share() {
        let pool = Pool::new(Bounds { all: 100_000, ..WIDE });
        let boxes: Vec<_> = (0..100)
            .map(|number| {
                let outbox = Outbox::new(number, Arc::clone(&pool));
                outbox.grant(&Channel::Answers, QoS::AtMostOnce);
                outbox
            })
            .collect();
        for _ in 0..100 {
            for outbox in &boxes {
                push(outbox, &Channel::Answers, &[0; 1000]);
            }
        }
        let held = pool.bytes.load(Ordering::Relaxed);
        assert!(held <= 100_000 + 100 * SHARE_BYTES, "{held}");
        assert!(boxes.iter().all(|outbox| outbox.pop(true).is_some()), "nobody is left with nothing");
        // What is written, and what nobody reads any more, is given back.
        boxes.iter().for_each(|outbox| outbox.written());
        drop(boxes);
        assert_eq!(pool.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_message_to_acknowledge_waits_for_the_window_and_so_does_what_is_behind_it() {
        let outbox = outbox(WIDE);
        push(&outbox, &Channel::Assignment, b"1");
        push(&outbox, &Channel::Answers, b"2");
        assert!(outbox.pop(false).is_none());
        assert_eq!(outbox.pop(true).unwrap().payload, &b"1"[..]);
        assert_eq!(outbox.pop(false).unwrap().payload, &b"2"[..]);
    }

    #[test]
    fn only_the_first_message_wakes_the_connection() {
        let outbox = outbox(WIDE);
        assert!(push(&outbox, &Channel::Answers, b"1").wake);
        assert!(!push(&outbox, &Channel::Assignment, b"2").wake);
        all(&outbox);
        assert!(push(&outbox, &Channel::Assignment, b"3").wake);
    }
}
