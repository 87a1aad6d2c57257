//! The objects that a device signs: its enrolment, and a report on each deployment (SPEC sections 4.7 and
//! 4.8).

use alloc::string::String;
use alloc::vec::Vec;

use super::hello::read_device;
use crate::codec::{DecodeError, Reader, Writer};
use crate::cose::{PublicKey, Sign1};
use crate::ids::{CampaignId, ClassId, DeviceId, Digest, ShortDigest};
use crate::limits::{SAID_BYTES_MAX, SIGNED_BYTES_MAX};
use crate::time::UnixTime;

/// How a deployment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The new image runs and is kept.
    Confirmed = 1,
    /// The new image was started and given up; the old one runs.
    Reverted = 2,
    /// It ended before the new image was started.
    Failed = 3,
    /// It was called off.
    Cancelled = 4,
}

impl Outcome {
    /// The outcome with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Confirmed, Self::Reverted, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|outcome| *outcome as u64 == number)
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

macro_rules! failure_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why a deployment did not end in a confirmed image. The numbers are frozen (SPEC section 4.8).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FailureCode {
            $($(#[$doc])* $variant = $number,)*
        }

        impl FailureCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

failure_codes! {
    /// The manifest is not a well-formed one of our profile.
    Malformed = 1, "malformed";
    /// The manifest is not signed by the release keys, or is not the one that the campaign names.
    Unauthentic = 2, "unauthentic";
    /// The sequence number is below the confirmed one, or equal with another image.
    Rollback = 3, "rollback";
    /// The release is for another vendor or class.
    WrongClass = 4, "wrong-class";
    /// The manifest uses a command or parameter that this device does not execute.
    Unsupported = 5, "unsupported";
    /// A condition of the manifest did not hold.
    Condition = 6, "condition";
    /// There is no room for it.
    NoRoom = 7, "no-room";
    /// The medium failed.
    Storage = 8, "storage";
    /// Every chunk is right, but the image is wrong: two chunks have the same digest.
    Collision = 9, "collision";
    /// The payload could not be decoded.
    Decode = 10, "decode";
    /// A health check of the new image failed.
    Unhealthy = 11, "unhealthy";
    /// The new image did not reach the service in time.
    Unreached = 12, "unreached";
    /// The boot loader went back to the old image by itself.
    NotBooted = 13, "not-booted";
    /// The boot control failed.
    BootControl = 14, "boot-control";
    /// The operator aborted the campaign.
    Aborted = 15, "aborted";
    /// Another campaign took its place.
    Superseded = 16, "superseded";
    /// The release was withdrawn: its sequence is below the minimum.
    Withdrawn = 17, "withdrawn";
    /// The campaign had expired before it began here.
    Expired = 18, "expired";
    /// A hook refused.
    Hook = 19, "hook";
    /// The person at the device asked for it.
    Local = 20, "local";
    /// A patch did not give the image. If the outcome is good, another payload did.
    Patch = 21, "patch";
}

impl FailureCode {
    /// The code with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| *code as u64 == number)
    }
}

/// Says how a deployment ended: the payload of a COSE_Sign1 by the device's key.
///
/// ```cddl
/// report = { 1: device: tstr, 2: number: uint, 3: campaign: bstr .size 8, 4: attempt: uint,
///     5: release: bstr .size 32, 6: outcome: 1..4, 7: failure: uint, 8: running: bstr .size 8,
///     9: sequence: uint, 10: time: uint, 11: bytes-received: uint, 12: bytes-twice: uint, ? 13: said: tstr }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who reports.
    pub device: DeviceId,
    /// Rises with every report of this device.
    pub number: u64,
    /// Which campaign.
    pub campaign: CampaignId,
    /// Which attempt of it.
    pub attempt: u64,
    /// The release's digest.
    pub release: Digest,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not end in a confirmed image, or that a patch failed before it did.
    pub failure: Option<FailureCode>,
    /// Digest of the image that runs now, shortened.
    pub running: ShortDigest,
    /// Sequence number of the release that runs now.
    pub sequence: u64,
    /// The device's clock, which is a lower bound of the time.
    pub time: UnixTime,
    /// Payload bytes received; bytes that were received twice count twice.
    pub bytes_received: u64,
    /// Of these, the bytes of what had come before (SPEC section 4.8).
    pub bytes_twice: u64,
    /// The deployment ended because a health check or a hook said this; it is the end of its words, for people. Empty if
    /// none said anything.
    pub said: String,
}

impl Report {
    /// The payload to sign.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(12 + usize::from(!self.said.is_empty()));
        writer.uint(1).text(self.device.as_str()).uint(2).uint(self.number);
        writer.uint(3).bytes(&self.campaign.0).uint(4).uint(self.attempt).uint(5).bytes(&self.release.0);
        writer.uint(6).uint(self.outcome as u64).uint(7).uint(self.failure.map_or(0, |code| code as u64));
        writer.uint(8).bytes(&self.running.0).uint(9).uint(self.sequence);
        writer.uint(10).uint(self.time.as_secs());
        writer.uint(11).uint(self.bytes_received).uint(12).uint(self.bytes_twice);
        if !self.said.is_empty() {
            writer.uint(13).text(&self.said);
        }
        writer.into_bytes()
    }

    /// What names a signed report in hello, in its answer and in the service's store: the digest of its payload, which
    /// is all that the signature covers. The same words signed or written in another way are the same report. `None` of
    /// what is no signed object.
    #[must_use]
    pub fn digest(signed: &[u8]) -> Option<ShortDigest> {
        let object = Sign1::decode(signed).ok()?;
        object.unverified_payload().map(|payload| Digest::of(payload).short())
    }

    /// Reads a payload whose signature was verified. A failure code of a later version reads as `None`.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new("report", payload, SIGNED_BYTES_MAX)?;
        let map = &mut reader.map("report", 13)?;
        map.expect(reader, 1)?;
        let device = read_device(reader)?;
        map.expect(reader, 2)?;
        let number = reader.uint("report number")?;
        map.expect(reader, 3)?;
        let campaign = CampaignId(reader.byte_array("campaign")?);
        map.expect(reader, 4)?;
        let attempt = reader.uint("attempt")?;
        map.expect(reader, 5)?;
        let release = Digest(reader.byte_array("release")?);
        map.expect(reader, 6)?;
        let outcome = Outcome::from_number(reader.uint("outcome")?);
        map.expect(reader, 7)?;
        let failure = FailureCode::from_number(reader.uint("failure")?);
        map.expect(reader, 8)?;
        let running = ShortDigest(reader.byte_array("running")?);
        map.expect(reader, 9)?;
        let sequence = reader.uint("sequence")?;
        map.expect(reader, 10)?;
        let time = UnixTime::from_secs(reader.uint("time")?);
        map.expect(reader, 11)?;
        let bytes_received = reader.uint("bytes received")?;
        map.expect(reader, 12)?;
        let bytes_twice = reader.uint("bytes received twice")?;
        let said = if map.optional(reader, 13)? { read_said(reader)? } else { String::new() };
        map.finish(reader)?;
        reader.finish()?;
        Ok(Self {
            device,
            number,
            campaign,
            attempt,
            release,
            outcome: outcome.ok_or(DecodeError::value("outcome"))?,
            failure,
            running,
            sequence,
            time,
            bytes_received,
            bytes_twice,
            said,
        })
    }
}

/// Words for people: a line without control characters. It is left out if nothing was said.
fn read_said(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let said = reader.text("what was said", SAID_BYTES_MAX)?;
    let is_line = !said.is_empty() && !said.chars().any(char::is_control);
    if is_line { Ok(String::from(said)) } else { Err(DecodeError::value("what was said")) }
}

/// A device's key and class: the payload of a COSE_Sign1 by that same key.
///
/// ```cddl
/// enrolment = { 1: device: tstr, 2: key: COSE_Key, 3: class: bstr .size 16 }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Who enrols.
    pub device: DeviceId,
    /// The key that signs this and every report.
    pub key: PublicKey,
    /// The hardware.
    pub class: ClassId,
}

impl Enrolment {
    /// The payload to sign.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(3).uint(1).text(self.device.as_str()).uint(2);
        self.key.encode(&mut writer);
        writer.uint(3).bytes(&self.class.0);
        writer.into_bytes()
    }

    /// Reads a payload; the caller then verifies the object with the key that it names.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new("enrolment", payload, SIGNED_BYTES_MAX)?;
        let map = &mut reader.map("enrolment", 3)?;
        map.expect(reader, 1)?;
        let device = read_device(reader)?;
        map.expect(reader, 2)?;
        let key = PublicKey::decode(reader)?;
        map.expect(reader, 3)?;
        let class = ClassId(reader.byte_array("class")?);
        map.finish(reader)?;
        reader.finish()?;
        Ok(Self { device, key, class })
    }
}
