//! Which `--base` the next envelope of a release is worth, as operators are told.

use serde::Serialize;
use whimbrel_protocol::ids::GroupName;

use super::Core;
use crate::attach::BrokerLink;
use crate::bases::Bases;
use crate::campaign::Campaign;
use crate::catalog::{Catalog, Release};
use crate::store::{Device, Phase};

/// Images that are listed; a release has room for few patches.
const LISTED_MAX: usize = 64;

/// `GET /v1/releases/{hex}/bases`.
#[derive(Debug, Serialize)]
pub(crate) struct BasesView {
    release: String,
    version: String,
    sequence: u64,
    group: Option<String>,
    full_bytes: u64,
    /// Accepted devices of the class, in the group where one is named.
    devices: u64,
    current: u64,
    later: u64,
    unknown: u64,
    patches: Vec<PatchView>,
    bases: Vec<BaseView>,
    /// Images and devices that are not listed.
    more_images: usize,
    more_devices: u64,
    total_saved_bytes: Option<u64>,
    estimated: bool,
}

/// A patch that the release has.
#[derive(Debug, Serialize)]
struct PatchView {
    base: String,
    version: Option<String>,
    sequence: Option<u64>,
    patch_bytes: u64,
    devices: u64,
}

/// An image that it has none for.
#[derive(Debug, Serialize)]
struct BaseView {
    /// First bytes of the image's digest.
    image: String,
    release: Option<String>,
    version: Option<String>,
    sequence: u64,
    devices: u64,
    patch_bytes: Option<u64>,
    saved_bytes: Option<u64>,
    total_saved_bytes: Option<u64>,
    estimated: bool,
    /// What the size is known from.
    from: Option<&'static str>,
}

/// What a campaign says of devices whose image its release has no patch for.
#[derive(Debug, Serialize)]
pub(crate) struct WithoutPatchView {
    devices: u64,
    images: usize,
    total_saved_bytes: Option<u64>,
    estimated: bool,
}

impl BasesView {
    fn of(release: &Release, group: Option<&GroupName>, bases: &Bases, catalog: &Catalog) -> Self {
        let patches = bases.patches.iter().filter_map(|(offer, devices)| {
            let base = offer.base?.digest;
            let known = catalog.of_image(release.class, base.short());
            Some(PatchView {
                base: base.to_hex(),
                version: known.map(|known| known.version.clone()),
                sequence: known.map(|known| known.sequence),
                patch_bytes: offer.spec.layout.transfer_size(),
                devices: *devices,
            })
        });
        let listed = bases.missing.iter().take(LISTED_MAX).map(|missing| {
            let known = catalog.of_image(release.class, missing.image);
            BaseView {
                image: missing.image.to_hex(),
                release: known.map(|known| known.digest.to_hex()),
                version: known.map(|known| known.version.clone()),
                sequence: known.map_or(missing.sequence, |known| known.sequence),
                devices: missing.devices,
                patch_bytes: missing.patch.map(|patch| patch.bytes),
                saved_bytes: missing.saved_bytes(bases.full_bytes),
                total_saved_bytes: missing.total_saved_bytes(bases.full_bytes),
                estimated: missing.patch.is_some_and(|patch| patch.from.is_estimate()),
                from: missing.patch.map(|patch| patch.from.name()),
            }
        });
        let rest = bases.missing.get(LISTED_MAX..).unwrap_or_default();
        Self {
            release: release.digest.to_hex(),
            version: release.version.clone(),
            sequence: release.sequence,
            group: group.map(ToString::to_string),
            full_bytes: bases.full_bytes,
            devices: bases.devices,
            current: bases.current,
            later: bases.later,
            unknown: bases.unknown,
            patches: patches.collect(),
            bases: listed.collect(),
            more_images: rest.len(),
            more_devices: rest.iter().map(|missing| missing.devices).sum(),
            total_saved_bytes: bases.total_saved_bytes(),
            estimated: bases.is_estimate(),
        }
    }
}

impl<L: BrokerLink> Core<L> {
    pub(super) fn view_bases(&self, release: &Release, group: Option<&GroupName>) -> BasesView {
        let asked_for = |device: &&Device| {
            device.is_accepted()
                && device.class == release.class
                && group.is_none_or(|group| device.groups().contains(group))
        };
        let devices = self.registry.devices_after(None).filter(asked_for);
        let bases = Bases::of(release, &self.catalog, devices.map(|device| &device.facts));
        BasesView::of(release, group, &bases, &self.catalog)
    }

    /// What is to be said of a campaign's devices that run an image without a patch; `None` where there is none.
    pub(super) fn view_without_patch(&self, campaign: &Campaign) -> Option<WithoutPatchView> {
        let release = self.catalog.release(&campaign.document().order.release)?;
        if campaign.phase() != Phase::Active {
            return None;
        }
        let facts = self.members(campaign).map(|device| &device.facts);
        let bases = Bases::of(release, &self.catalog, facts);
        (!bases.missing.is_empty()).then(|| WithoutPatchView {
            devices: bases.devices_missing(),
            images: bases.missing.len(),
            total_saved_bytes: bases.total_saved_bytes(),
            estimated: bases.is_estimate(),
        })
    }
}
