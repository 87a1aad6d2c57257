//! Orders, which say which release is for whom, and when (SPEC section 4.5).

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{CampaignId, ClassId, Digest};
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::time::UnixTime;

/// Whether a campaign runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CampaignState {
    /// Devices update.
    Active = 0,
    /// Devices that have not installed the new image yet call the deployment off.
    Aborted = 1,
}

/// How a device treats its owner's windows and confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Windows and confirmations hold.
    Soft = 0,
    /// Windows and confirmations are overridden; the byte budget and the battery never are.
    Forced = 1,
    /// Fetch and verify, do not install.
    DownloadOnly = 2,
}

/// One release for a group or a device.
///
/// ```cddl
/// order = [ campaign: bstr .size 8, attempt: uint, state: 0..1, release: bstr .size 32,
///     sequence: uint, envelope-size: uint, image-size: uint, min-sequence: uint,
///     class: bstr .size 16, not-before: uint, spread: uint, policy: 0..2, priority: uint ]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which campaign.
    pub campaign: CampaignId,
    /// Rises when the operator lets devices try again that failed; from 1.
    pub attempt: u64,
    /// Whether it runs.
    pub state: CampaignState,
    /// The release: the digest of its manifest.
    pub release: Digest,
    /// The release's sequence number.
    pub sequence: u64,
    /// Bytes of the envelope as sent.
    pub envelope_size: u64,
    /// Bytes of the image.
    pub image_size: u64,
    /// Releases of this class with a sequence number below this are withdrawn.
    pub min_sequence: u64,
    /// The class of devices that the release is for; others ignore the order.
    pub class: ClassId,
    /// When the first device may start.
    pub not_before: UnixTime,
    /// Devices start spread over this many seconds after that.
    pub spread_s: u64,
    /// How the device's own policy counts.
    pub policy: Policy,
    /// Among a device's groups the higher one wins.
    pub priority: u64,
}

impl Order {
    /// The rank of the order among those of a device's groups; the highest one counts (SPEC section 4.5).
    /// Priority decides, then the version of the document, then the campaign's id, so that two orders never
    /// have the same rank.
    #[must_use]
    pub const fn rank(&self, version: u64) -> (u64, u64, CampaignId) {
        (self.priority, version, self.campaign)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.array(13).bytes(&self.campaign.0).uint(self.attempt).uint(self.state as u64);
        writer.bytes(&self.release.0).uint(self.sequence).uint(self.envelope_size).uint(self.image_size);
        writer.uint(self.min_sequence).bytes(&self.class.0).uint(self.not_before.as_secs());
        writer.uint(self.spread_s).uint(self.policy as u64).uint(self.priority);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array_of("order", 13)?;
        Ok(Self {
            campaign: CampaignId(reader.byte_array("campaign")?),
            attempt: at_least_1(reader.uint("attempt")?)?,
            state: match reader.uint("campaign state")? {
                0 => CampaignState::Active,
                1 => CampaignState::Aborted,
                _ => return Err(DecodeError::value("campaign state")),
            },
            release: Digest(reader.byte_array("release")?),
            sequence: reader.uint("sequence")?,
            envelope_size: reader.uint_max("envelope size", ENVELOPE_BYTES_MAX as u64)?,
            image_size: reader.uint("image size")?,
            min_sequence: reader.uint("minimum sequence")?,
            class: ClassId(reader.byte_array("class")?),
            not_before: UnixTime::from_secs(reader.uint("not before")?),
            spread_s: reader.uint("spread")?,
            policy: match reader.uint("policy")? {
                0 => Policy::Soft,
                1 => Policy::Forced,
                2 => Policy::DownloadOnly,
                _ => return Err(DecodeError::value("policy")),
            },
            priority: reader.uint("priority")?,
        })
    }
}

fn at_least_1(attempt: u64) -> Result<u64, DecodeError> {
    if attempt == 0 { Err(DecodeError::value("attempt")) } else { Ok(attempt) }
}
