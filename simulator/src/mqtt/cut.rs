//! What can be said of a PUBLISH of which only the beginning arrived.

/// Topic and payload, as far as they arrived, of the beginning of a PUBLISH; `None` before its topic is whole.
///
/// Both may be wrong where the packet is no MQTT 3.1.1; nothing is trusted that comes of it.
pub(super) fn cut_publish(packet: &[u8]) -> Option<(&str, &[u8])> {
    let (first, rest) = packet.split_first()?;
    if first >> 4 != PUBLISH {
        return None;
    }
    let length_bytes = rest.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let (length, rest) = rest.get(length_bytes..)?.split_first_chunk::<2>()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let id_bytes = if first & 0b0110 == 0 { 0 } else { 2 };
    Some((core::str::from_utf8(topic).ok()?, rest.get(id_bytes..)?))
}

/// Packet type of a PUBLISH, in the high half of its first byte.
const PUBLISH: u8 = 3;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rumqttc::mqttbytes::QoS;
    use rumqttc::mqttbytes::v4::{Packet, Publish};

    use super::*;

    fn publish(topic: &str, qos: QoS, payload_bytes: usize) -> BytesMut {
        let mut message = Publish::new(topic, qos, vec![b'p'; payload_bytes]);
        message.pkid = 7;
        let mut packet = BytesMut::new();
        Packet::Publish(message).write(&mut packet, 1 << 20).unwrap();
        packet
    }

    #[test]
    fn a_publish_cut_at_any_byte_shows_exactly_the_payload_that_arrived() {
        for (qos, id_bytes) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 2)] {
            for (payload_bytes, length_bytes) in [(3, 1), (1000, 2), (20_000, 3)] {
                let packet = publish("ota/d/m1/c", qos, payload_bytes);
                let before_payload = 1 + length_bytes + 2 + 10 + id_bytes;
                for arrived in 0..packet.len() {
                    let found = cut_publish(&packet[..arrived]);
                    let expected = arrived.checked_sub(before_payload).map(|bytes| ("ota/d/m1/c", bytes));
                    assert_eq!(found.map(|(topic, payload)| (topic, payload.len())), expected, "{arrived}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_publish_shows_nothing() {
        assert_eq!(cut_publish(&[0x40, 0x02, 0x00, 0x07]), None);
        assert_eq!(cut_publish(&[0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]), None);
        assert_eq!(cut_publish(&[0x30, 0x05, 0x00, 0x02, 0xff, 0xfe, b'p']), None, "a topic is UTF-8");
    }
}
