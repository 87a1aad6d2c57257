//! The subscriptions of a connection, and which of them a broker does not stand: some brokers end the connection
//! where they should refuse a topic, and would do so again and again.

use alloc::collections::{BTreeMap, VecDeque};

use whimbrel_protocol::time::Instant;

/// A topic to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its name.
    pub topic: String,
    /// Whether its messages are wanted with QoS 1.
    pub at_least_once: bool,
    /// Whether the connection is of no use without it. It is never left out.
    pub needed: bool,
}

/// What earlier connections showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    /// Topics that were under way when the broker closed the connection, with how often each was so alone. They are
    /// subscribed to one by one.
    kills: BTreeMap<String, u32>,
    /// Topics that are left out, and since when.
    left_out: Vec<(String, Instant)>,
}

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    suspects: Suspects,
    /// Packets that are not acknowledged, in order, each with its id once it is sent.
    under_way: VecDeque<(Option<u16>, Vec<Filter>)>,
    /// What waits until everything before it is acknowledged, so that it is known what closes the connection.
    waiting: VecDeque<Filter>,
}

/// Filters of one SUBSCRIBE packet. Some brokers close the connection at more.
pub(super) const FILTERS_MAX: usize = 8;
/// So often a topic has to be the only one under way when the connection is closed before it is left out. Once may be
/// chance.
const KILLS_MAX: u32 = 2;
/// How long a topic is left out before it is tried again, in milliseconds: a day.
const LEFT_OUT_MS: u64 = 24 * 3600 * 1000;

impl Subscriptions {
    pub(super) fn of(suspects: Suspects) -> Self {
        Self { suspects, ..Self::default() }
    }

    /// The packets to send now for `filters`, and the topics that are left out.
    pub(super) fn add(&mut self, filters: Vec<Filter>, now: Instant) -> (Vec<Vec<Filter>>, Vec<String>) {
        self.suspects.left_out.retain(|(_, since)| now.millis_since(*since) < LEFT_OUT_MS);
        let Suspects { kills, left_out } = &self.suspects;
        let is_left_out = |filter: &Filter| left_out.iter().any(|(topic, _)| *topic == filter.topic);
        let (without, filters): (Vec<_>, Vec<_>) = filters.into_iter().partition(is_left_out);
        let (alone, together): (Vec<_>, Vec<_>) =
            filters.into_iter().partition(|filter| kills.contains_key(&filter.topic));
        self.waiting.extend(alone);
        let mut packets: Vec<Vec<Filter>> = together.chunks(FILTERS_MAX).map(<[Filter]>::to_vec).collect();
        self.under_way.extend(packets.iter().map(|packet| (None, packet.clone())));
        packets.extend(self.next());
        (packets, without.into_iter().map(|filter| filter.topic).collect())
    }

    /// The next packet of one filter, if nothing else is under way.
    fn next(&mut self) -> Option<Vec<Filter>> {
        let packet = vec![self.under_way.is_empty().then(|| self.waiting.pop_front()).flatten()?];
        self.under_way.push_back((None, packet.clone()));
        Some(packet)
    }

    /// The next packet that was handed over is sent, as `id`.
    pub(super) fn sent(&mut self, id: u16) {
        if let Some((unsent, _)) = self.under_way.iter_mut().find(|(known, _)| known.is_none()) {
            *unsent = Some(id);
        }
    }

    /// The broker acknowledged packet `id`. Gives its topics, and the packet to send next.
    pub(super) fn acknowledged(&mut self, id: u16) -> (Vec<String>, Option<Vec<Filter>>) {
        let at = self.under_way.iter().position(|(known, _)| *known == Some(id));
        let (_, packet) = at.and_then(|at| self.under_way.remove(at)).unwrap_or_default();
        let topics: Vec<String> = packet.into_iter().map(|filter| filter.topic).collect();
        for topic in &topics {
            self.suspects.kills.remove(topic);
        }
        (topics, self.next())
    }

    /// The broker closed the connection. Gives the topics at which it did, if it did so before it acknowledged them.
    /// A packet that it never saw is not to blame.
    pub(super) fn closed(&mut self, now: Instant) -> Option<Vec<String>> {
        let (_, packet) = self.under_way.pop_front().filter(|(id, _)| id.is_some())?;
        let is_alone = packet.len() == 1;
        for filter in packet.iter().filter(|filter| !filter.needed) {
            let kills = self.suspects.kills.entry(filter.topic.clone()).or_default();
            *kills += u32::from(is_alone);
            if *kills >= KILLS_MAX {
                self.suspects.kills.remove(&filter.topic);
                self.suspects.left_out.push((filter.topic.clone(), now));
            }
        }
        Some(packet.into_iter().map(|filter| filter.topic).collect())
    }

    /// What the next connection has to know.
    pub(super) fn suspects(&self) -> Suspects {
        self.suspects.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(topics: &[&str]) -> Vec<Filter> {
        let filter = |topic: &&str| Filter {
            topic: (*topic).to_owned(),
            at_least_once: true,
            needed: *topic == "answers",
        };
        topics.iter().map(filter).collect()
    }

    fn names(packets: &[Vec<Filter>]) -> Vec<String> {
        let name = |packet: &Vec<Filter>| {
            packet.iter().map(|filter| filter.topic.as_str()).collect::<Vec<_>>().join("+")
        };
        packets.iter().map(name).collect()
    }

    const NOW: Instant = Instant::ZERO;

    /// Subscribes at a broker that closes the connection at `killer`; the packets that it saw, and what was left out.
    fn connect(suspects: &mut Suspects, topics: &[&str], killer: &str) -> (Vec<String>, Vec<String>) {
        let mut subscriptions = Subscriptions::of(suspects.clone());
        let (mut packets, left_out) = subscriptions.add(filters(topics), NOW);
        let (mut seen, mut id) = (Vec::new(), 0);
        while !packets.is_empty() {
            let packet = packets.remove(0);
            seen.extend(names(core::slice::from_ref(&packet)));
            id += 1;
            subscriptions.sent(id);
            if packet.iter().any(|filter| filter.topic == killer) {
                let closed = subscriptions.closed(NOW).unwrap();
                assert!(closed.iter().any(|topic| topic == killer), "{closed:?}");
                break;
            }
            packets.extend(subscriptions.acknowledged(id).1);
        }
        *suspects = subscriptions.suspects();
        (seen, left_out)
    }

    #[test]
    fn a_topic_at_which_the_broker_closes_the_connection_is_found_one_by_one_and_left_out() {
        let mut suspects = Suspects::default();
        let topics = ["assignment", "beacon", "g1", "g2"];
        assert_eq!(connect(&mut suspects, &topics, "g1").0, ["assignment+beacon+g1+g2"]);
        assert_eq!(connect(&mut suspects, &topics, "g1").0, ["assignment", "beacon", "g1"]);
        // What was acknowledged is no longer suspected.
        assert_eq!(connect(&mut suspects, &topics, "g1").0, ["assignment+beacon", "g1"]);
        let (seen, left_out) = connect(&mut suspects, &topics, "g1");
        assert_eq!(
            (seen, left_out),
            (vec!["assignment+beacon".to_owned(), "g2".to_owned()], vec!["g1".to_owned()])
        );
        // Nothing is suspected for good.
        assert_eq!(connect(&mut suspects, &topics, "").0, ["assignment+beacon+g2"]);
        let mut later = Subscriptions::of(suspects);
        let (packets, left_out) = later.add(filters(&topics), NOW.plus_millis(LEFT_OUT_MS));
        assert_eq!((names(&packets), left_out), (vec!["assignment+beacon+g1+g2".to_owned()], vec![]));
    }

    #[test]
    fn a_topic_that_the_device_needs_is_never_left_out() {
        let mut suspects = Suspects::default();
        for _ in 0..5 {
            assert_eq!(connect(&mut suspects, &["answers"], "answers"), (vec!["answers".to_owned()], vec![]));
        }
    }

    #[test]
    fn a_connection_that_is_closed_later_or_by_chance_once_leaves_nothing_out() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(filters(&["g1"]), NOW);
        subscriptions.sent(1);
        subscriptions.acknowledged(1);
        assert_eq!(subscriptions.closed(NOW), None);
        let mut suspects = Suspects::default();
        connect(&mut suspects, &["g1"], "g1");
        assert_eq!(connect(&mut suspects, &["g1"], ""), (vec!["g1".to_owned()], vec![]));
        assert_eq!(connect(&mut suspects, &["g1"], "g1"), (vec!["g1".to_owned()], vec![]));
        assert_eq!(connect(&mut suspects, &["g1"], "").0, ["g1"]);
    }

    #[test]
    fn a_topic_whose_packet_was_never_sent_is_not_to_blame() {
        let mut suspects = Suspects::default();
        for _ in 0..3 {
            let mut subscriptions = Subscriptions::of(suspects);
            assert_eq!(subscriptions.add(filters(&["g1"]), NOW).1, Vec::<String>::new());
            assert_eq!(subscriptions.closed(NOW), None);
            suspects = subscriptions.suspects();
        }
        // Of two packets, the one that was sent is to blame.
        let mut subscriptions = Subscriptions::of(suspects);
        let topics: Vec<String> = (0..9).map(|number| format!("g{number}")).collect();
        subscriptions.add(filters(&topics.iter().map(String::as_str).collect::<Vec<_>>()), NOW);
        subscriptions.sent(1);
        assert_eq!(subscriptions.closed(NOW), Some(topics.into_iter().take(FILTERS_MAX).collect()));
    }

    #[test]
    fn a_subscribe_packet_has_at_most_eight_filters() {
        let topics: Vec<String> = (0..17).map(|number| format!("g{number}")).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let (packets, _) = Subscriptions::default().add(filters(&topics), NOW);
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 1]);
    }
}
