//! Which `--base` the next envelope of a release is worth, as operators are told.

use whimbrel_api as api;
use whimbrel_protocol::ids::GroupName;

use super::Fleet;
use super::bases::Bases;
use super::campaign::Campaign;
use super::catalog::{Catalog, Release};
use crate::store::Phase;

/// Images that are listed; a release has room for few patches.
const LISTED_MAX: usize = 64;

fn view(release: &Release, group: Option<&GroupName>, bases: &Bases, catalog: &Catalog) -> api::Bases {
    let patches = bases.patches.iter().filter_map(|(offer, devices)| {
        let base = offer.base?.digest;
        let known = catalog.of_image(release.class, base.short());
        Some(api::Patch {
            base: base.to_hex(),
            version: known.map(|known| known.version.clone()),
            sequence: known.map(|known| known.sequence),
            patch_bytes: offer.spec.layout.transfer_size(),
            devices: *devices,
        })
    });
    let listed = bases.missing.iter().take(LISTED_MAX).map(|missing| {
        let known = catalog.of_image(release.class, missing.image);
        api::Base {
            image: missing.image.to_hex(),
            release: known.map(|known| known.digest.to_hex()),
            version: known.map(|known| known.version.clone()),
            sequence: known.map_or(missing.sequence, |known| known.sequence),
            devices: missing.devices,
            patch_bytes: missing.patch.map(|patch| patch.bytes),
            saved_bytes: missing.saved_bytes(bases.full_bytes),
            total_saved_bytes: missing.total_saved_bytes(bases.full_bytes),
            estimated: missing.patch.is_some_and(|patch| patch.from.is_estimate()),
            from: missing.patch.map(|patch| patch.from.name().to_owned()),
        }
    });
    let rest = bases.missing.get(LISTED_MAX..).unwrap_or_default();
    api::Bases {
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
        more_images: rest.len() as u64,
        more_devices: rest.iter().map(|missing| missing.devices).sum(),
        total_saved_bytes: bases.total_saved_bytes(),
        estimated: bases.is_estimate(),
    }
}

impl Fleet {
    pub(super) fn view_bases(&self, release: &Release, group: Option<&GroupName>) -> api::Bases {
        let bases = Bases::of(release, &self.catalog, self.registry.running(release.class, group));
        view(release, group, &bases, &self.catalog)
    }

    /// The notice about devices of a campaign that run an image without a patch; `None` if there are no such devices.
    pub(super) fn view_without_patch(&self, campaign: &Campaign) -> Option<api::WithoutPatch> {
        let release = self.catalog.release(&campaign.document().order.release)?;
        if campaign.phase() != Phase::Active {
            return None;
        }
        let document = campaign.document();
        let running = self.registry.running(document.order.class, Some(&document.group));
        let bases = Bases::of(release, &self.catalog, running);
        (!bases.missing.is_empty()).then(|| api::WithoutPatch {
            devices: bases.devices_missing(),
            images: bases.missing.len() as u64,
            total_saved_bytes: bases.total_saved_bytes(),
            estimated: bases.is_estimate(),
        })
    }
}
