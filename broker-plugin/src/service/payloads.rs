//! By which payloads images come, as people are told.

use serde::Serialize;
use whimbrel_protocol::ids::ShortDigest;

use crate::campaign::{Share, Tally};
use crate::catalog::{Catalog, Release};
use crate::store::CameBy;

/// A payload of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PayloadView {
    /// First bytes of its index digest.
    pub(crate) payload: String,
    /// `patch` or `full`.
    pub(crate) kind: &'static str,
    /// Digest of the image that a patch starts from.
    pub(crate) base: Option<String>,
    /// The version of that image, where a release of it is stored.
    pub(crate) base_version: Option<String>,
    /// Bytes of the payload.
    pub(crate) transfer_size: u64,
}

/// A payload of a release, and what it is to a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PayloadShareView {
    #[serde(flatten)]
    pub(crate) payload: PayloadView,
    /// Devices whose image comes by it.
    pub(crate) devices: u64,
    /// Payload bytes that these devices received, those of payloads that they gave up included.
    pub(crate) bytes_received: u64,
}

/// The payloads of one release, to name them by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payloads(Vec<(ShortDigest, PayloadView)>);

impl Payloads {
    pub(crate) fn of(release: &Release, catalog: &Catalog) -> Self {
        let offers = release.payloads.iter().map(|offer| {
            let known = offer.base.and_then(|base| catalog.of_image(release.class, base.digest.short()));
            let payload = offer.spec.index.short();
            let view = PayloadView {
                payload: payload.to_hex(),
                kind: if offer.base.is_some() { "patch" } else { "full" },
                base: offer.base.map(|base| base.digest.to_hex()),
                base_version: known.map(|known| known.version.clone()),
                transfer_size: offer.spec.layout.transfer_size(),
            };
            (payload, view)
        });
        Self(offers.collect())
    }

    fn find(&self, payload: Option<ShortDigest>) -> Option<PayloadView> {
        let payload = payload?;
        self.0.iter().find(|(known, _)| *known == payload).map(|(_, view)| view.clone())
    }

    /// The payload by which an image comes, and the one that was given up before.
    pub(crate) fn name(&self, came_by: CameBy) -> [Option<PayloadView>; 2] {
        [self.find(came_by.payload), self.find(came_by.given_up)]
    }

    /// Every payload with its share of a campaign, in the order in which devices try them.
    pub(crate) fn shares(&self, tally: &Tally) -> Vec<PayloadShareView> {
        let share = |payload| tally.by_payload.get(&Some(payload)).copied().unwrap_or_default();
        let views = self.0.iter().map(|(payload, view)| {
            let Share { devices, bytes_received } = share(*payload);
            PayloadShareView { payload: view.clone(), devices, bytes_received }
        });
        views.collect()
    }
}
