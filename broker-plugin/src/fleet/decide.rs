//! What a change says: the documents that are to be signed for it.

use bytes::Bytes;
use whimbrel_protocol::ids::{CampaignId, GroupName};
use whimbrel_protocol::limits::BEACON_GROUPS_MAX;
use whimbrel_protocol::message::{self, Assignment, Beacon, CampaignState, Validity, group_hash};
use whimbrel_protocol::time::UnixTime;

use super::campaign::{CAMPAIGNS_MAX, Identity, NewCampaign};
use super::changes::{Order, Signed};
use super::command::Denied;
use super::registry::NewAssignment;
use super::{Document, Fleet};
use crate::store::{CampaignRow, Phase, Terms};

/// A change whose documents are to be signed.
#[derive(Debug)]
pub(super) enum Draft {
    /// A document of a campaign, which may be new, with the beacon that names it.
    Campaign {
        document: Box<message::Campaign>,
        created: UnixTime,
        terms: Terms,
        beacon: Beacon,
    },
    /// Devices to accept, or to give other groups.
    Assignments(Vec<NewAssignment>),
    Beacon(Beacon),
}

/// How long an assignment is good for: groups do not expire, and a new one is signed with every change.
const ASSIGNMENT_LIFE_S: u64 = 10 * 365 * 24 * 3600;

impl Fleet {
    /// The document that an order leads to, if it has `version`; or why it is refused. Changes nothing.
    pub(super) fn document(&self, order: &Order, version: u64) -> Result<message::Campaign, Denied> {
        match order {
            Order::New { release, new, id } => self.first_document(release, new, *id, version),
            Order::Next { prefix, command } => {
                let campaign = self.campaigns.find(prefix)?;
                let refused = |source| Denied::Command { id: campaign.id(), source };
                campaign.next_document(*command, version, self.today).map_err(refused)
            }
        }
    }

    fn first_document(
        &self,
        release: &str,
        new: &NewCampaign,
        id: CampaignId,
        version: u64,
    ) -> Result<message::Campaign, Denied> {
        let release = self.catalog.find(release)?;
        let missing = self.catalog.missing(release).len();
        if missing > 0 {
            return Err(Denied::Incomplete { release: release.digest, missing });
        }
        self.check_sequence(release, &new.group)?;
        if self.campaigns.len() >= CAMPAIGNS_MAX {
            return Err(Denied::TooManyCampaigns { limit: CAMPAIGNS_MAX });
        }
        let new_group = self.campaigns.of_group(&new.group).is_none();
        if new_group && self.campaigns.groups().len() >= BEACON_GROUPS_MAX {
            return Err(Denied::TooManyGroups { limit: BEACON_GROUPS_MAX });
        }
        let identity = Identity { prefix: self.settings.prefix.clone(), id: self.free_id(id), version };
        Ok(new.document(release, identity, self.today)?)
    }

    /// The first id from `id` on that no campaign has. There are more ids than campaigns.
    fn free_id(&self, mut id: CampaignId) -> CampaignId {
        while id == CampaignId::default() || self.campaigns.campaign(&id).is_some() {
            id = CampaignId(u64::from_be_bytes(id.0).wrapping_add(1).to_be_bytes());
        }
        id
    }

    /// What is to be signed for an order, and the campaign's id.
    pub(super) fn draft(
        &self,
        order: &Order,
        version: u64,
        beacon_version: u64,
    ) -> Result<(Draft, CampaignId), Denied> {
        let document = Box::new(self.document(order, version)?);
        let id = document.order.campaign;
        let (created, terms) = match (self.campaigns.campaign(&id), order) {
            (Some(campaign), _) => (campaign.created(), campaign.terms().clone()),
            (None, Order::New { new, .. }) => (self.today, new.terms.clone()),
            (None, Order::Next { .. }) => return Err(Denied::Stopping),
        };
        let beacon = self.next_beacon(beacon_version, Some((&document.group, version)));
        Ok((Draft::Campaign { document, created, terms, beacon }, id))
    }

    /// The next beacon; `also` is a campaign that will be in force with it.
    pub(super) fn next_beacon(&self, version: u64, also: Option<(&GroupName, u64)>) -> Beacon {
        let in_force = self.campaigns.groups().filter_map(|(group, campaign)| {
            let version = campaign?.document().validity.version;
            also.is_none_or(|(other, _)| other != group).then_some((group, version))
        });
        Beacon {
            prefix: self.settings.prefix.clone(),
            validity: Validity {
                version,
                issued: self.today,
                expires: self.today.plus_secs(self.settings.beacon_life_s),
            },
            groups: in_force.chain(also).map(|(group, version)| (group_hash(group), version)).collect(),
            root: self.root.version,
        }
    }

    /// The documents of a draft, in the order in which [`Fleet::with_signatures`] takes them.
    pub(super) fn documents(&self, draft: &Draft) -> Vec<Document> {
        match draft {
            Draft::Campaign { document, beacon, .. } => {
                Vec::from([Document::Campaign(document.clone()), Document::Beacon(beacon.clone())])
            }
            Draft::Assignments(new) => {
                new.iter().map(|new| Document::Assignment(self.assignment(new))).collect()
            }
            Draft::Beacon(beacon) => Vec::from([Document::Beacon(beacon.clone())]),
        }
    }

    fn assignment(&self, new: &NewAssignment) -> Assignment {
        Assignment {
            prefix: self.settings.prefix.clone(),
            device: new.device.clone(),
            validity: Validity {
                version: new.version,
                issued: self.today,
                expires: self.today.plus_secs(ASSIGNMENT_LIFE_S),
            },
            groups: new.groups.clone(),
            root: self.root.version,
            order: None,
        }
    }

    /// The draft with its signed documents; `None` if there are not as many as were to be signed.
    pub(super) fn with_signatures(&self, draft: Draft, documents: Vec<Bytes>) -> Option<Signed> {
        let mut documents = documents.into_iter();
        let signed = match draft {
            Draft::Campaign { document, created, terms, beacon } => {
                let phase = match document.order.state {
                    CampaignState::Active => Phase::Active,
                    CampaignState::Aborted => Phase::Aborted,
                };
                let id = document.order.campaign;
                let row = CampaignRow { id, phase, created, terms, document: documents.next()? };
                Signed::Campaign { document, row, beacon: (beacon, documents.next()?) }
            }
            Draft::Assignments(new) => {
                let devices = new.into_iter().map(|new| Some(new.into_device(documents.next()?)));
                Signed::Devices(devices.collect::<Option<_>>()?)
            }
            Draft::Beacon(beacon) => Signed::Beacon(beacon, documents.next()?),
        };
        documents.next().is_none().then_some(signed)
    }
}
