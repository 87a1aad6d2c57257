//! The first document of a campaign, from what an operator says about it.

use thiserror::Error;
use whimbrel_protocol::ids::{CampaignId, GroupName, Prefix};
use whimbrel_protocol::message::{Campaign, CampaignState, Order, Policy, Validity};
use whimbrel_protocol::time::UnixTime;

use crate::fleet::catalog::Release;
use crate::store::Terms;

/// What an operator says about a new campaign; the rest follows from the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCampaign {
    /// For whom.
    pub group: GroupName,
    /// When the first device may start; `None`: now.
    pub not_before: Option<UnixTime>,
    /// Devices start spread over this many seconds after that. At most [`SPREAD_MAX_S`].
    pub spread_s: u64,
    /// The documents do not say this. No device starts any more when the life is over, which is [`LIFE_MIN_S`] to
    /// [`LIFE_MAX_S`] from now.
    pub terms: Terms,
    /// How the devices' own policy counts.
    pub policy: Policy,
    /// Among a device's groups the higher one wins. At most [`PRIORITY_MAX`].
    pub priority: u64,
    /// Releases of the class with a lower sequence number are withdrawn. At most the release's own.
    pub min_sequence: u64,
}

/// Longest spread: 30 days.
pub const SPREAD_MAX_S: u64 = 30 * 24 * 3600;
/// Shortest life of a document: a minute.
pub const LIFE_MIN_S: u64 = 60;
/// Longest life of a document: 10 years.
pub const LIFE_MAX_S: u64 = 10 * 365 * 24 * 3600;
/// Life if the operator says nothing: 30 days.
pub const LIFE_DEFAULT_S: u64 = 30 * 24 * 3600;
/// Highest priority.
pub const PRIORITY_MAX: u64 = 1_000_000;

/// Why there is no such campaign.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// A number is out of its range.
    #[error("{what} is {got}, expected {min} to {max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        got: u64,
        /// Least that is allowed.
        min: u64,
        /// Most that is allowed.
        max: u64,
    },
    /// The campaign would be over before its last devices start.
    #[error("the campaign expires {life_s} s from now, before its last devices start: {start_s} s from now")]
    Short {
        /// From now to the end.
        life_s: u64,
        /// From now to the last start.
        start_s: u64,
    },
}

impl NewCampaign {
    /// The document of the campaign, to be signed.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn document(
        &self,
        release: &Release,
        identity: Identity,
        today: UnixTime,
    ) -> Result<Campaign, PlanError> {
        within("spread_s", self.spread_s, 0, SPREAD_MAX_S)?;
        let life_s = self.terms.life_s;
        within("expires_in_s", life_s, LIFE_MIN_S, LIFE_MAX_S)?;
        within("priority", self.priority, 0, PRIORITY_MAX)?;
        within("min_sequence", self.min_sequence, 0, release.sequence)?;
        let not_before = self.not_before.unwrap_or(today);
        within("not_before", not_before.as_secs(), 0, today.plus_secs(LIFE_MAX_S).as_secs())?;
        let start_s = not_before.plus_secs(self.spread_s).as_secs().saturating_sub(today.as_secs());
        if start_s >= life_s {
            return Err(PlanError::Short { life_s, start_s });
        }
        Ok(Campaign {
            prefix: identity.prefix,
            group: self.group.clone(),
            validity: Validity { version: identity.version, issued: today, expires: today.plus_secs(life_s) },
            order: Order {
                campaign: identity.id,
                attempt: 1,
                state: CampaignState::Active,
                release: release.digest,
                sequence: release.sequence,
                envelope_size: release.envelope.len() as u64,
                image_size: release.image_size,
                min_sequence: self.min_sequence,
                class: release.class,
                not_before,
                spread_s: self.spread_s,
                policy: self.policy,
                priority: self.priority,
            },
        })
    }
}

/// What the service adds to what an operator says.
#[derive(Clone, Debug)]
pub struct Identity {
    /// First level of all topics.
    pub prefix: Prefix,
    /// A new campaign's id: random, never used before.
    pub id: CampaignId,
    /// Version of the document: above all before it.
    pub version: u64,
}

fn within(what: &'static str, got: u64, min: u64, max: u64) -> Result<(), PlanError> {
    if (min..=max).contains(&got) { Ok(()) } else { Err(PlanError::Range { what, got, min, max }) }
}
