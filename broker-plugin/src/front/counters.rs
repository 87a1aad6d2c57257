//! What the front door counts. Serialises as one flat object of numbers for the admin API.

use core::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counts since the door opened; gauges say so. All are updated without ordering between them.
#[derive(Debug, Default, Serialize)]
pub struct Counters {
    /// Sockets accepted.
    pub accepted: AtomicU64,
    /// Gauge: clients that are connected and have been let in.
    pub connected: AtomicU64,
    /// Clients let in.
    pub admitted: AtomicU64,
    /// Errors of `accept`, such as no file descriptor left; the door waits a little after each.
    pub accept_errors: AtomicU64,

    /// Sockets closed because CONNECT was not complete in time.
    pub connect_timeouts: AtomicU64,
    /// Sockets closed before CONNACK to make room for newer ones.
    pub connect_evicted: AtomicU64,
    /// Refused: the protocol is not MQTT 3.1.1 or 5, or the CONNECT is malformed.
    pub refused_protocol: AtomicU64,
    /// Refused: client id and user name don't name one device.
    pub refused_identity: AtomicU64,
    /// Refused: wrong user name or password.
    pub refused_password: AtomicU64,
    /// Refused: this device may not connect.
    pub refused_not_authorized: AtomicU64,
    /// Refused: a will outside the device's own topics, retained, or with QoS 2.
    pub refused_will: AtomicU64,
    /// Refused: `connections_max` clients are connected.
    pub refused_full: AtomicU64,
    /// Refused: `devices_max` other devices that the operator knows have connected.
    pub refused_devices_max: AtomicU64,
    /// Refused: the access rules could not be asked now.
    pub refused_busy: AtomicU64,
    /// Clients whose seat was not free in time.
    pub setup_timeouts: AtomicU64,

    /// Connections replaced by a newer one of the same client.
    pub takeovers: AtomicU64,
    /// Connections of devices that the operator does not know, closed to make room for others of their kind.
    pub strangers_evicted: AtomicU64,
    /// Connections that the client ended with DISCONNECT.
    pub ended_by_client: AtomicU64,
    /// Connections that the peer or the network closed without DISCONNECT.
    pub ended_by_peer: AtomicU64,
    /// Connections closed because nothing came for 1.5 times the keep alive.
    pub keepalive_timeouts: AtomicU64,
    /// Connections closed because the peer took no byte for the write limit.
    pub write_timeouts: AtomicU64,
    /// Connections closed because a packet was malformed or out of place.
    pub protocol_errors: AtomicU64,
    /// Connections closed because a packet was longer than `packet_bytes_max`.
    pub packets_too_large: AtomicU64,
    /// Connections closed because the router dropped the link or has stopped.
    pub router_gone: AtomicU64,

    /// Closed for a PUBLISH to a topic that is not the device's own.
    pub publish_refused_topic: AtomicU64,
    /// Closed for a PUBLISH with the retain flag.
    pub publish_refused_retain: AtomicU64,
    /// Closed for a PUBLISH with QoS 2.
    pub publish_refused_qos2: AtomicU64,
    /// Closed for a PUBLISH with a topic alias.
    pub publish_refused_alias: AtomicU64,
    /// Filters refused in a SUBACK.
    pub subscribe_refused: AtomicU64,
    /// Filters refused because `groups_max` other groups are subscribed to.
    pub subscribe_refused_groups_max: AtomicU64,
    /// PUBACKs for messages that were not outstanding; ignored.
    pub stranger_acks: AtomicU64,

    /// Packets from clients, without CONNECT.
    pub packets_in: AtomicU64,
    /// Bytes from clients.
    pub bytes_in: AtomicU64,
    /// Messages delivered to clients.
    pub messages_out: AtomicU64,
    /// Bytes to clients.
    pub bytes_out: AtomicU64,
    /// Messages that a client did not get because too much waited for it, or for all clients.
    pub messages_lost: AtomicU64,
    /// Messages that were larger than the client said it can take; not sent.
    pub messages_too_large_for_client: AtomicU64,
    /// Wills published.
    pub wills_published: AtomicU64,
    /// Subscriptions to a group that ended because the device is no longer in it.
    pub subscriptions_ended: AtomicU64,
    /// Documents that the door did not keep because it keeps as many as it may; devices get them when they ask.
    pub documents_not_kept: AtomicU64,
    /// Links of the router that were made for clients which use topics of the application.
    pub router_links: AtomicU64,
    /// Times that the router parked a link with much to send, and was woken again.
    pub links_unparked: AtomicU64,
}

impl Counters {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    /// Adds `n`.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds a length.
    pub(crate) fn add_len(counter: &AtomicU64, n: usize) {
        Self::add(counter, u64::try_from(n).unwrap_or(u64::MAX));
    }

    /// Takes one from a gauge.
    pub(crate) fn lower(gauge: &AtomicU64) {
        gauge.fetch_sub(1, Ordering::Relaxed);
    }

    /// Reads one counter.
    #[must_use]
    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_serialise_as_a_flat_object_of_numbers() {
        let counters = Counters::default();
        Counters::add(&counters.takeovers, 3);
        let value = serde_json::to_value(&counters).unwrap();
        let object = value.as_object().unwrap();
        assert_eq!(object.get("takeovers"), Some(&serde_json::json!(3)));
        assert!(object.values().all(serde_json::Value::is_u64));
    }
}
