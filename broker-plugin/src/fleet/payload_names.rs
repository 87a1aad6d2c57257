//! By which payloads images come, as people are told.

use whimbrel_api as api;
use whimbrel_protocol::ids::ShortDigest;

use super::campaign::{Share, Tally};
use super::catalog::{Catalog, Release};
use crate::store::CameBy;

/// The payloads of one release, to name them by.
#[derive(Clone, Debug, Default)]
pub(super) struct PayloadNames(Vec<(ShortDigest, api::Payload)>);

impl PayloadNames {
    pub(super) fn of(release: &Release, catalog: &Catalog) -> Self {
        let offers = release.payloads.iter().map(|offer| {
            let known = offer.base.and_then(|base| catalog.of_image(release.class, base.digest.short()));
            let payload = offer.spec.index.short();
            let view = api::Payload {
                payload: payload.to_hex(),
                kind: if offer.base.is_some() { api::PayloadKind::Patch } else { api::PayloadKind::Full },
                base: offer.base.map(|base| base.digest.to_hex()),
                base_version: known.map(|known| known.version.clone()),
                transfer_size: offer.spec.layout.transfer_size(),
            };
            (payload, view)
        });
        Self(offers.collect())
    }

    fn find(&self, payload: Option<ShortDigest>) -> Option<api::Payload> {
        let payload = payload?;
        self.0.iter().find(|(known, _)| *known == payload).map(|(_, view)| view.clone())
    }

    /// The payload by which an image comes, and the one that was given up before.
    pub(super) fn name(&self, came_by: CameBy) -> [Option<api::Payload>; 2] {
        [self.find(came_by.payload), self.find(came_by.given_up)]
    }

    /// Every payload with its share of a campaign, in the order in which devices try them.
    pub(super) fn shares(&self, tally: &Tally) -> Vec<api::PayloadShare> {
        let share = |payload| tally.by_payload.get(&Some(payload)).copied().unwrap_or_default();
        let views = self.0.iter().map(|(payload, view)| {
            let Share { devices, bytes_received } = share(*payload);
            api::PayloadShare { payload: view.clone(), devices, bytes_received }
        });
        views.collect()
    }
}
