//! CONNECT: who it is, on what terms, and what a refusal is called in each version.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::AtomicU64;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectProperties, ConnectReturnCode, LastWill, Packet, Publish, QoS,
};
use whimbrel_protocol::ids::DeviceId;

use super::Shared;
use super::access::{self, Login, Publishing, Role};
use super::acks::IN_FLIGHT_MAX;
use super::codec::{Codec, Frame, Kind};
use super::conversation::{Terms, own_memory};
use super::counters::Counters;

/// A client that may come in.
pub(crate) struct Guest {
    pub(crate) device: DeviceId,
    pub(crate) role: Role,
    pub(crate) codec: Codec,
    pub(crate) terms: Terms,
    /// The client is gone when nothing has come for this long.
    pub(crate) silence_max: Duration,
    /// What to publish when it goes without a word.
    pub(crate) will: Option<Will>,
}

/// What a client leaves when it goes without a word.
pub(crate) struct Will {
    pub(crate) publishing: Publishing,
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not a CONNECT that we can read.
    Malformed,
    /// Another version of the protocol.
    Version,
    /// Client id and user name don't name one device.
    Identity,
    /// Extended authentication (MQTT 5 section 4.12), which nobody here speaks.
    AuthMethod,
    /// The will is not one that the device may leave.
    Will,
    /// `connections_max` are connected.
    Full,
    /// `devices_max` others are known.
    DevicesMax,
    /// The router did not take the link.
    NoLink,
    /// What [`Access`](super::access::Access) says.
    Access(access::Refusal),
}

/// A client that has said who it is, and has not been believed yet.
pub(crate) struct Applicant {
    pub(crate) codec: Codec,
    device: DeviceId,
    role: Role,
    peer: SocketAddr,
    user_name: Option<String>,
    password: Option<String>,
    terms: Terms,
    silence_max: Duration,
    will: Option<LastWill>,
}

/// Reads a CONNECT. A refusal comes with the CONNACK to send before closing, empty where there is nothing to say.
pub(crate) fn read(frame: Frame, peer: SocketAddr) -> Result<Applicant, (Refused, BytesMut)> {
    let mut answer = BytesMut::new();
    let level = frame.level().filter(|_| frame.kind() == Kind::Connect);
    let Some(level) = level else { return Err((Refused::Malformed, answer)) };
    let Some(mut codec) = Codec::of_level(level) else {
        answer.put_slice(&[0x20, 2, 0, 1]); // MQTT 3.1.1 section 3.2.2.3, understood by all
        return Err((Refused::Version, answer));
    };
    let Ok(Packet::Connect(connect, properties, will, _, login)) = codec.read(frame) else {
        return Err((Refused::Malformed, answer));
    };
    if properties.as_ref().is_some_and(|it| it.authentication_method.is_some()) {
        return Err(Refused::AuthMethod.with_connack(&codec));
    }
    let Some(terms) = terms_of(properties.as_ref()) else {
        return Err(Refused::Malformed.with_connack(&codec));
    };
    let (user_name, password) = login.map(|login| (login.username, login.password)).unzip();
    let user_name = user_name.filter(|name| !name.is_empty());
    let Some((device, role)) = access::identify(&connect.client_id, user_name.as_deref()) else {
        return Err(Refused::Identity.with_connack(&codec));
    };
    // A keep alive of 0 asks never to be given up: the longest that can be said must do.
    let keep_alive = if connect.keep_alive == 0 { u16::MAX } else { connect.keep_alive };
    let silence_max = Duration::from_millis(u64::from(keep_alive) * 1500);
    let password = password.filter(|it| !it.is_empty());
    Ok(Applicant { codec, device, role, peer, user_name, password, terms, silence_max, will })
}

impl Applicant {
    /// Asks whether the client may come in, and checks its will. If the password is slow to check, it waits its turn.
    pub(crate) async fn admit(self, shared: &Arc<Shared>) -> Result<Guest, (Refused, BytesMut)> {
        let (applicant, allowed) = if shared.access.is_slow(&self.login()) {
            let busy = Refused::Access(access::Refusal::Busy).with_connack(&self.codec);
            let access = Arc::clone(&shared.access);
            let checked = shared.slow_logins.check(self.peer.into(), move || {
                let allowed = access.login(&self.login());
                (self, allowed)
            });
            checked.await.ok_or(busy)?
        } else {
            let allowed = shared.access.login(&self.login());
            (self, allowed)
        };
        let Self { codec, device, role, peer, terms, silence_max, will, .. } = applicant;
        if let Err(refusal) = allowed {
            shared.notices.login_refused(&device, peer, refusal);
            return Err(Refused::Access(refusal).with_connack(&codec));
        }
        match will.map(|will| check_will(shared, &device, will)).transpose() {
            Ok(will) => Ok(Guest { device, role, codec, terms, silence_max, will }),
            Err(refused) => Err(refused.with_connack(&codec)),
        }
    }

    fn login(&self) -> Login<'_> {
        Login {
            device: &self.device,
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref(),
            peer: self.peer,
        }
    }
}

/// `None` where a property has a value that the protocol forbids.
fn terms_of(properties: Option<&ConnectProperties>) -> Option<Terms> {
    let receive_maximum = properties.and_then(|it| it.receive_maximum).unwrap_or(u16::MAX);
    let packet_bytes_max = properties.and_then(|it| it.max_packet_size).unwrap_or(u32::MAX);
    if receive_maximum == 0 || packet_bytes_max == 0 {
        return None;
    }
    let qos_max = if receive_maximum < IN_FLIGHT_MAX { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    Some(Terms { packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX), qos_max })
}

fn check_will(shared: &Shared, device: &DeviceId, will: LastWill) -> Result<Will, Refused> {
    let publishing = shared.rules.publishing(device, &will.topic);
    if will.retain || will.qos == QoS::ExactlyOnce || publishing == Publishing::Refused {
        return Err(Refused::Will);
    }
    let (topic, payload) = own_memory(&Publish::new(will.topic, will.message, false));
    Ok(Will { publishing, topic, payload })
}

/// The CONNACK of a client that is let in. No session is ever present: the router forgets with the connection.
pub(crate) fn write_welcome(shared: &Shared, codec: &Codec, silence_max: Duration, out: &mut BytesMut) {
    let longest = Duration::from_millis(u64::from(u16::MAX) * 1500);
    let properties = ConnAckProperties {
        session_expiry_interval: Some(0),
        max_qos: Some(1),
        max_packet_size: u32::try_from(shared.config.packet_bytes_max).ok(),
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        wildcard_subscription_available: Some(0),
        server_keep_alive: (silence_max == longest).then_some(u16::MAX),
        ..ConnAckProperties::default()
    };
    let ack = ConnAck { session_present: false, code: ConnectReturnCode::Success };
    codec.write_connack(ack, properties, out);
}

impl Refused {
    /// The counter of this refusal.
    pub(crate) fn counter(self, counters: &Counters) -> &AtomicU64 {
        match self {
            Self::Malformed | Self::Version | Self::AuthMethod => &counters.refused_protocol,
            Self::Identity => &counters.refused_identity,
            Self::Will => &counters.refused_will,
            Self::Full => &counters.refused_full,
            Self::DevicesMax => &counters.refused_devices_max,
            Self::NoLink => &counters.router_gone,
            Self::Access(access::Refusal::BadPassword) => &counters.refused_password,
            Self::Access(access::Refusal::NotAuthorized) => &counters.refused_not_authorized,
            Self::Access(access::Refusal::Busy) => &counters.refused_busy,
        }
    }

    /// With the CONNACK that says so.
    fn with_connack(self, codec: &Codec) -> (Self, BytesMut) {
        let mut answer = BytesMut::new();
        self.write_connack(codec, &mut answer);
        (self, answer)
    }

    /// Appends the CONNACK that says so.
    pub(crate) fn write_connack(self, codec: &Codec, out: &mut BytesMut) {
        let ack = ConnAck { session_present: false, code: self.code(codec.is_v5()) };
        codec.write_connack(ack, ConnAckProperties::default(), out);
    }

    /// The return code; the writer panics on one that its version does not have.
    fn code(self, v5: bool) -> ConnectReturnCode {
        use ConnectReturnCode as Code;
        let (v4, in_v5) = match self {
            Self::Malformed => (Code::RefusedProtocolVersion, Code::ProtocolError),
            Self::Version => (Code::RefusedProtocolVersion, Code::UnsupportedProtocolVersion),
            Self::Identity => (Code::ClientIdentifierNotValid, Code::ClientIdentifierNotValid),
            Self::AuthMethod => (Code::NotAuthorized, Code::BadAuthenticationMethod),
            Self::Will => (Code::NotAuthorized, Code::NotAuthorized),
            Self::Full | Self::NoLink => (Code::ServiceUnavailable, Code::ServerUnavailable),
            Self::DevicesMax => (Code::ServiceUnavailable, Code::QuotaExceeded),
            Self::Access(access::Refusal::BadPassword) => {
                (Code::BadUserNamePassword, Code::BadUserNamePassword)
            }
            Self::Access(access::Refusal::NotAuthorized) => (Code::NotAuthorized, Code::NotAuthorized),
            Self::Access(access::Refusal::Busy) => (Code::ServiceUnavailable, Code::ServerBusy),
        };
        if v5 { in_v5 } else { v4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_in_both_versions() {
        use access::Refusal;
        for refused in [
            Refused::Malformed,
            Refused::Version,
            Refused::Identity,
            Refused::AuthMethod,
            Refused::Will,
            Refused::Full,
            Refused::DevicesMax,
            Refused::NoLink,
            Refused::Access(Refusal::BadPassword),
            Refused::Access(Refusal::NotAuthorized),
            Refused::Access(Refusal::Busy),
        ] {
            for level in [4, 5] {
                let mut out = BytesMut::new();
                refused.write_connack(&Codec::of_level(level).unwrap(), &mut out);
                let code = out[3];
                assert_eq!((out[0], out[2]), (0x20, 0));
                assert!(
                    if level == 4 { (1..=5).contains(&code) } else { code >= 0x80 },
                    "{refused:?} {code}"
                );
            }
        }
    }

    #[test]
    fn a_client_that_takes_few_messages_at_once_gets_qos_0() {
        let properties = |receive_maximum| ConnectProperties {
            receive_maximum,
            session_expiry_interval: None,
            max_packet_size: None,
            topic_alias_max: None,
            request_response_info: None,
            request_problem_info: None,
            user_properties: Vec::new(),
            authentication_method: None,
            authentication_data: None,
        };
        let qos_max = |receive_maximum| terms_of(Some(&properties(receive_maximum))).map(|it| it.qos_max);
        assert_eq!(qos_max(None), Some(QoS::AtLeastOnce));
        assert_eq!(qos_max(Some(100)), Some(QoS::AtLeastOnce));
        assert_eq!(qos_max(Some(99)), Some(QoS::AtMostOnce));
        assert_eq!(qos_max(Some(0)), None);
    }
}
