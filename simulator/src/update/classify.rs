//! Which messages are the transfer and which are control, by topic and first bytes (SPEC sections 2 and 3.2).

use whimbrel_protocol::cose::{Kind, Sign1};

use crate::control::Control;
use crate::meter::{Class, Part};

const HELLO: u8 = 0x11;
const CHUNK: u8 = 0x18;
const PAGE: u8 = 0x19;
const CHUNK_REQUEST: u8 = 0x12;
const PAGE_REQUEST: u8 = 0x13;
const DOCUMENT_REQUEST: u8 = 0x14;
const STATUS: u8 = 0x15;
const REFUSAL: u8 = 0x1a;
/// A SUIT envelope begins with tag 107.
pub(super) const ENVELOPE: [u8; 2] = [0xd8, 0x6b];

/// The class of a message, as far as its first bytes tell.
#[must_use]
pub fn classify(topic: &str, payload: &[u8]) -> Class {
    let data = |part, header_bytes| Class::Data { part, header_bytes };
    match (topic.rsplit('/').next(), payload) {
        (Some("q"), [CHUNK_REQUEST | PAGE_REQUEST | DOCUMENT_REQUEST, ..]) => data(Part::Request, 0),
        (Some("c"), [CHUNK, rest @ ..]) => data(Part::Chunks, 3 + number_bytes(rest)),
        (Some("c"), [PAGE, rest @ ..]) => data(Part::Page, 3 + number_bytes(rest)),
        (Some("c"), payload) if payload.starts_with(&ENVELOPE) => data(Part::Manifest, 0),
        (Some("q"), [HELLO, ..]) => Class::Control(Control::Hello),
        (Some("q"), [STATUS, ..]) => Class::Control(Control::Status),
        (Some("c"), [REFUSAL, ..]) => Class::Control(Control::Refusal),
        _ => Class::Control(signed(payload)),
    }
}

/// What a signed object says that it is.
fn signed(object: &[u8]) -> Control {
    match Sign1::decode(object).ok().and_then(|object| object.claimed_kind()) {
        Some(Kind::Answer) => Control::HelloAnswer,
        Some(Kind::Assignment) => Control::Assignment,
        Some(Kind::Campaign) => Control::Campaign,
        Some(Kind::Beacon) => Control::Beacon,
        Some(Kind::Report) => Control::Report,
        Some(Kind::Enrolment) => Control::Enrolment,
        Some(Kind::Root) | None => Control::Other,
    }
}

/// Bytes of the CBOR number that follows two bytes of payload tag; 1 where they have not arrived.
fn number_bytes(after_kind: &[u8]) -> u16 {
    match after_kind.get(2).map(|head| head & 0x1f) {
        Some(24) => 2,
        Some(25) => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use whimbrel_protocol::cose::{SigningKey, sign_attached};
    use whimbrel_protocol::ids::{ChunkIndex, PayloadTag, ShortDigest};
    use whimbrel_protocol::message::{
        ChunkMessage, ChunkRequest, DocumentRequest, PageMessage, PageNumber, PageRequest, Refusal,
        RefusalCode,
    };

    use super::*;

    #[test]
    fn every_kind_of_message_has_its_class() {
        let payload = PayloadTag([1, 2, 3, 4]);
        let request =
            ChunkRequest { payload, first: ChunkIndex(5), count: 4, per_message: 2, wanted: None }.encode();
        let page = PageRequest { payload, page: PageNumber::List }.encode();
        let manifest = DocumentRequest::Manifest(ShortDigest([0; 8])).encode();
        for message in [request, page, manifest] {
            let class = classify("ota/d/d1/q", &message);
            assert_eq!(class, Class::Data { part: Part::Request, header_bytes: 0 });
        }
        for chunk in [5, 200, 5000] {
            let message = ChunkMessage::encode(payload, ChunkIndex(chunk), b"chunk");
            let header_bytes = u16::try_from(message.len() - 5).unwrap();
            assert_eq!(classify("ota/d/d1/c", &message), Class::Data { part: Part::Chunks, header_bytes });
        }
        let message = PageMessage::encode(payload, PageNumber::Page(0), b"page");
        assert_eq!(classify("ota/d/d1/c", &message), Class::Data { part: Part::Page, header_bytes: 4 });
        let envelope = Class::Data { part: Part::Manifest, header_bytes: 0 };
        assert_eq!(classify("ota/d/d1/c", &[0xd8, 0x6b, 0xa2]), envelope);
        let refusal = Refusal { code: RefusalCode::Busy, retry_after_s: None, payload: None }.encode();
        assert_eq!(classify("ota/d/d1/c", &refusal), Class::Control(Control::Refusal));
        let object = sign_attached(&SigningKey::ed25519(&[7; 32]), Kind::Report, None, b"payload");
        assert_eq!(classify("ota/d/d1/r", &object), Class::Control(Control::Report));
        assert_eq!(classify("ota/d/d1/q", &[STATUS]), Class::Control(Control::Status));
        assert_eq!(classify("ota/d/d1/r", &[0xd2]), Class::Control(Control::Other));
        assert_eq!(classify("ota/t", &[0xd2]), Class::Control(Control::Other));
        assert_eq!(classify("ota/d/d1/c", &[]), Class::Control(Control::Other));
    }
}
