//! Refusals: the service does not send what was asked for, for now or at all (SPEC section 7.6).

use alloc::vec::Vec;

use super::MessageKind;
use crate::codec::{DecodeError, Item, Reader, Writer};
use crate::ids::PayloadTag;
use crate::limits::RETRY_AFTER_MAX_S;

/// Why the service does not send what was asked for. A refusal is not signed, so it may delay a device and
/// nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Too much to do: ask again later.
    Busy = 1,
    /// This device is not enrolled.
    Unknown = 2,
    /// This device waits to be accepted.
    Pending = 3,
    /// What was asked for does not belong to the device's current deployment.
    NotYours = 4,
    /// There is no such chunk, page or document.
    NotFound = 5,
    /// The payload was served to this device too often today.
    OverQuota = 6,
    /// The protocol version is not spoken here.
    Version = 7,
    /// The request was malformed.
    Malformed = 8,
}

impl RefusalCode {
    const ALL: [Self; 8] = [
        Self::Busy,
        Self::Unknown,
        Self::Pending,
        Self::NotYours,
        Self::NotFound,
        Self::OverQuota,
        Self::Version,
        Self::Malformed,
    ];

    /// The code in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Unknown => "unknown",
            Self::Pending => "pending",
            Self::NotYours => "not-yours",
            Self::NotFound => "not-found",
            Self::OverQuota => "over-quota",
            Self::Version => "version",
            Self::Malformed => "malformed",
        }
    }
}

/// A refusal.
///
/// ```cddl
/// refusal = head(10) .cat seq<code: uint, ? retry-after: uint, ? payload: bstr .size 4>
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// When to ask again, in seconds, at most an hour.
    pub retry_after_s: Option<u32>,
    /// The payload whose chunks or pages were asked for. By it a device recognises a late refusal, which
    /// comes when it asks for another payload already.
    pub payload: Option<PayloadTag>,
}

impl Refusal {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::after(&[MessageKind::Refusal.head()]);
        writer.uint(self.code as u64);
        if let Some(seconds) = self.retry_after_s {
            writer.uint(u64::from(seconds));
        }
        if let Some(payload) = self.payload {
            writer.bytes(&payload.0);
        }
        writer.into_bytes()
    }

    /// Reads the body. A wait beyond an hour becomes an hour.
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("refusal", body, 16)?;
        let number = reader.uint("refusal code")?;
        let code = RefusalCode::ALL.into_iter().find(|code| *code as u64 == number);
        let code = code.ok_or(DecodeError::value("refusal code"))?;
        let names_payload = |reader: &Reader<'_>| matches!(reader.peek(), Ok(Item::Bytes));
        let retry_after_s = if reader.is_at_end() || names_payload(&reader) {
            None
        } else {
            let seconds = reader.uint("retry after")?.min(u64::from(RETRY_AFTER_MAX_S));
            u32::try_from(seconds).ok()
        };
        let payload =
            if reader.is_at_end() { None } else { Some(PayloadTag(reader.byte_array("payload tag")?)) };
        reader.finish()?;
        Ok(Self { code, retry_after_s, payload })
    }
}
