//! All campaigns, and which one rules which device.

use alloc::collections::BTreeMap;

use whimbrel_protocol::ids::{CampaignId, ClassId, DeviceId, GroupName};

use super::Campaign;
use crate::fleet::catalog::{CatalogError, find_by_hex};
use crate::store::Phase;

/// Most campaigns that are remembered.
pub const CAMPAIGNS_MAX: usize = 10_000;

/// All campaigns.
#[derive(Debug, Default)]
pub struct Campaigns {
    all: BTreeMap<CampaignId, Campaign>,
    /// The campaign whose document each group has now.
    current: BTreeMap<GroupName, CampaignId>,
    /// The highest version that any document had.
    version: u64,
}

impl Campaigns {
    /// Enters a campaign that is new, or read from the store.
    pub fn enter(&mut self, campaign: Campaign) {
        let document = campaign.document();
        self.version = self.version.max(document.validity.version);
        if campaign.phase() != Phase::Replaced {
            self.current.insert(document.group.clone(), campaign.id());
        }
        self.all.insert(campaign.id(), campaign);
    }

    /// Notes that a document of this version is in force.
    pub fn raise(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// The highest version that any document had. One count for all groups: if a device is in two groups, the
    /// newest document wins, and no two are equally new.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Every campaign, in the order in which they were made.
    #[must_use]
    pub fn oldest_first(&self) -> Vec<&Campaign> {
        let mut all: Vec<&Campaign> = self.all.values().collect();
        all.sort_by_key(|campaign| (campaign.created(), campaign.document().validity.version));
        all
    }

    /// One campaign.
    #[must_use]
    pub fn campaign(&self, id: &CampaignId) -> Option<&Campaign> {
        self.all.get(id)
    }

    /// One campaign, to feed it.
    pub fn campaign_mut(&mut self, id: &CampaignId) -> Option<&mut Campaign> {
        self.all.get_mut(id)
    }

    /// The reports of a device are counted anew: what they said stays known, and any report counts more.
    pub fn reports_anew(&mut self, device: &DeviceId) {
        self.all.values_mut().for_each(|campaign| campaign.reports_anew(device));
    }

    /// Finds a campaign by the first digits of its id.
    ///
    /// # Errors
    /// [`CatalogError::Prefix`], [`CatalogError::None`], [`CatalogError::Several`].
    pub fn find(&self, prefix: &str) -> Result<&Campaign, CatalogError> {
        find_by_hex("campaign", self.all.values().map(|campaign| (campaign.id().to_hex(), campaign)), prefix)
    }

    /// The campaign whose document a group has now.
    #[must_use]
    pub fn of_group(&self, group: &GroupName) -> Option<&Campaign> {
        self.all.get(self.current.get(group)?)
    }

    /// The campaign whose document a group has now, to feed it.
    pub fn of_group_mut(&mut self, group: &GroupName) -> Option<&mut Campaign> {
        self.all.get_mut(self.current.get(group)?)
    }

    /// The groups that have a document, with it.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&GroupName, Option<&Campaign>)> {
        self.current.iter().map(|(group, id)| (group, self.all.get(id)))
    }

    /// The campaign that rules a device of these groups and this class: the active one with the highest priority,
    /// then the newest document. The device chooses by the same rule.
    #[must_use]
    pub fn ruling(&self, groups: &[GroupName], class: ClassId) -> Option<&Campaign> {
        groups
            .iter()
            .filter_map(|group| self.of_group(group))
            .filter(|campaign| campaign.phase() == Phase::Active && campaign.document().order.class == class)
            .max_by_key(|campaign| {
                let document = campaign.document();
                document.order.rank(document.validity.version)
            })
    }
}
