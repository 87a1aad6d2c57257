//! Why a connection ends: what is counted, whether the will is published, and what a version 5 client is told.

use core::sync::atomic::AtomicU64;

use super::codec::Fault;
use super::counters::Counters;
use super::error::FrontError;
use super::inbox::ServiceGone;
use super::seats::GivenUp;

/// Why a connection that was let in has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said DISCONNECT, and whether its will is to be published.
    Disconnected { with_will: bool },
    /// The peer or the network closed the connection.
    PeerClosed,
    /// Nothing came for 1.5 times the keep alive.
    KeepAlive,
    /// The peer took no byte for the write limit.
    WriteStalled,
    /// The same client has connected again.
    TakenOver,
    /// A device that the operator does not know was idle for longest, and others needed its place.
    MadeRoom,
    /// The service is ending.
    ShuttingDown,
    /// The router has dropped the link or stopped.
    RouterGone,
    /// The service does not listen any more: the process is ending.
    ServiceGone,
    /// A packet could not be read, or does not belong there.
    Malformed,
    /// A packet was over the limit.
    TooLarge,
    /// A PUBLISH to a topic that is not the device's own.
    PublishTopic,
    /// A PUBLISH with the retain flag.
    PublishRetain,
    /// A PUBLISH with QoS 2.
    PublishQos2,
    /// A PUBLISH with a topic alias.
    PublishAlias,
}

impl End {
    /// The counter of this end.
    pub(crate) fn counter(self, counters: &Counters) -> Option<&AtomicU64> {
        Some(match self {
            Self::Disconnected { .. } => &counters.ended_by_client,
            Self::PeerClosed => &counters.ended_by_peer,
            Self::KeepAlive => &counters.keepalive_timeouts,
            Self::WriteStalled => &counters.write_timeouts,
            Self::TakenOver => &counters.takeovers,
            Self::MadeRoom => &counters.strangers_evicted,
            Self::ShuttingDown | Self::ServiceGone => return None,
            Self::RouterGone => &counters.router_gone,
            Self::Malformed => &counters.protocol_errors,
            Self::TooLarge => &counters.packets_too_large,
            Self::PublishTopic => &counters.publish_refused_topic,
            Self::PublishRetain => &counters.publish_refused_retain,
            Self::PublishQos2 => &counters.publish_refused_qos2,
            Self::PublishAlias => &counters.publish_refused_alias,
        })
    }

    /// Is the client's will published? (MQTT 3.1.1 section 3.1.2.5; the service's own end is nobody's will.)
    pub(crate) fn leaves_will(self) -> bool {
        match self {
            Self::Disconnected { with_will } => with_will,
            Self::ShuttingDown | Self::RouterGone | Self::ServiceGone => false,
            _ => true,
        }
    }

    /// The reason code of the DISCONNECT that a version 5 client gets (MQTT 5 table 3-10); `None` where nobody
    /// listens.
    pub(crate) fn farewell(self) -> Option<u8> {
        Some(match self {
            Self::Disconnected { .. } | Self::PeerClosed | Self::WriteStalled => return None,
            Self::KeepAlive => 0x8D,
            Self::TakenOver => 0x8E,
            Self::MadeRoom => 0x97,
            Self::ShuttingDown | Self::ServiceGone => 0x8B,
            Self::RouterGone => 0x80,
            Self::Malformed => 0x82,
            Self::TooLarge => 0x95,
            Self::PublishTopic => 0x87,
            Self::PublishRetain => 0x9A,
            Self::PublishQos2 => 0x9B,
            Self::PublishAlias => 0x94,
        })
    }
}

impl From<GivenUp> for End {
    fn from(why: GivenUp) -> Self {
        match why {
            GivenUp::ToNewer => Self::TakenOver,
            GivenUp::ToStranger => Self::MadeRoom,
        }
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge => Self::TooLarge,
            Fault::Malformed => Self::Malformed,
        }
    }
}

impl From<FrontError> for End {
    /// The only thing that a link reports is that the router is gone.
    fn from(_: FrontError) -> Self {
        Self::RouterGone
    }
}

impl From<ServiceGone> for End {
    fn from(_: ServiceGone) -> Self {
        Self::ServiceGone
    }
}
