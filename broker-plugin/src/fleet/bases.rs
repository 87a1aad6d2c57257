//! Which images devices run that a release has no patch for, and what one would save.
//!
//! Devices say in every hello which image they run. Whoever builds the next envelope learns here which image is worth
//! a `--base`: how many devices run it, from which release it is, and how many bytes a patch would save each of them.
//! A patch that nobody has made has a size that nobody knows: it is taken from another envelope of the same images
//! if that has one, and else estimated from the patches that there are, and then said to be an estimate.

use std::collections::HashMap;

use whimbrel_protocol::ids::ShortDigest;

use crate::fleet::catalog::{Catalog, Offer, Release};
use crate::fleet::registry::Running;

/// What the devices of a class run, beside one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bases {
    /// Bytes of the release's full payload.
    pub full_bytes: u64,
    /// Devices that were looked at.
    pub devices: u64,
    /// Devices that run the release's image.
    pub current: u64,
    /// Devices that run a later release: they take no older one.
    pub later: u64,
    /// Devices that did not say what they run.
    pub unknown: u64,
    /// The release's patches, each with the devices that can use it.
    pub patches: Vec<(Offer, u64)>,
    /// Images without a patch, the one that would save most first.
    pub missing: Vec<Missing>,
}

/// An image that devices run and the release has no patch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// First bytes of the image's digest.
    pub image: ShortDigest,
    /// Devices that run it.
    pub devices: u64,
    /// The sequence number that one of them told with it.
    pub sequence: u64,
    /// Bytes of a patch from it; `None` if there is nothing to tell that from.
    pub patch: Option<PatchBytes>,
}

/// How large a patch is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchBytes {
    /// Its bytes.
    pub bytes: u64,
    /// Where this is known from.
    pub from: Source,
}

/// Where the size of a patch is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Another envelope of the same images has this patch.
    Beside,
    /// Estimated: as the release's own patches are to its full payload.
    OwnPatches,
    /// Estimated: as the patches of the class's other releases are to their full payloads.
    OtherReleases,
}

impl Source {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Beside => "another envelope of the release",
            Self::OwnPatches => "the patches of the release",
            Self::OtherReleases => "the patches of other releases",
        }
    }

    /// Whether it is only an estimate.
    #[must_use]
    pub const fn is_estimate(self) -> bool {
        !matches!(self, Self::Beside)
    }
}

impl Missing {
    /// Bytes that a patch would save one device; 0 if it would be larger than the full payload.
    #[must_use]
    pub fn saved_bytes(&self, full_bytes: u64) -> Option<u64> {
        self.patch.map(|patch| full_bytes.saturating_sub(patch.bytes))
    }

    /// Bytes that a patch would save all of them.
    #[must_use]
    pub fn total_saved_bytes(&self, full_bytes: u64) -> Option<u64> {
        self.saved_bytes(full_bytes).map(|saved| saved.saturating_mul(self.devices))
    }
}

impl Bases {
    /// Looks at what devices of the release's class said last.
    #[must_use]
    pub fn of(release: &Release, catalog: &Catalog, running: impl Iterator<Item = Running>) -> Self {
        let full_bytes = full_bytes(release);
        let patches = release.payloads.iter().filter(|offer| offer.base.is_some());
        let mut bases = Self {
            full_bytes,
            devices: 0,
            current: 0,
            later: 0,
            unknown: 0,
            patches: patches.map(|offer| (offer.clone(), 0)).collect(),
            missing: Vec::new(),
        };
        let mut others: HashMap<ShortDigest, Missing> = HashMap::new();
        for Running { image, sequence, devices } in running {
            bases.devices += devices;
            if image == ShortDigest::default() {
                bases.unknown += devices;
            } else if release.installs(image) {
                bases.current += devices;
            } else if sequence > release.sequence {
                bases.later += devices;
            } else if let Some((_, users)) =
                bases.patches.iter_mut().find(|(offer, _)| starts_from(offer, image))
            {
                *users += devices;
            } else {
                let none = Missing { image, devices: 0, sequence, patch: None };
                others.entry(image).or_insert(none).devices += devices;
            }
        }
        let (beside, estimate) = (beside(release, catalog), estimate(release, catalog));
        bases.missing = others.into_values().collect();
        for missing in &mut bases.missing {
            missing.patch = beside.get(&missing.image).copied().or(estimate);
        }
        bases.missing.sort_by_key(|missing| {
            let saved = missing.total_saved_bytes(full_bytes);
            (core::cmp::Reverse((saved, missing.devices)), missing.image)
        });
        bases
    }

    /// Devices without a patch.
    #[must_use]
    pub fn devices_missing(&self) -> u64 {
        self.missing.iter().map(|missing| missing.devices).sum()
    }

    /// Bytes that a patch for each image without one would save; `None` if nothing tells its size.
    #[must_use]
    pub fn total_saved_bytes(&self) -> Option<u64> {
        let saved = self.missing.iter().map(|missing| missing.total_saved_bytes(self.full_bytes));
        saved.sum()
    }

    /// Whether an estimate is part of [`Bases::total_saved_bytes`].
    #[must_use]
    pub fn is_estimate(&self) -> bool {
        self.missing.iter().filter_map(|missing| missing.patch).any(|patch| patch.from.is_estimate())
    }
}

fn starts_from(offer: &Offer, image: ShortDigest) -> bool {
    offer.base.is_some_and(|base| base.digest.short() == image)
}

fn transfer_bytes(offer: &Offer) -> u64 {
    offer.spec.layout.transfer_size()
}

/// Bytes of the full payload; of the larger one if each slot has its own.
fn full_bytes(release: &Release) -> u64 {
    let full = release.payloads.iter().filter(|offer| offer.base.is_none());
    full.map(transfer_bytes).max().unwrap_or(0)
}

/// The patches that other envelopes of the same images have, by the image that they start from.
fn beside(release: &Release, catalog: &Catalog) -> HashMap<ShortDigest, PatchBytes> {
    let same = |other: &&Release| {
        (other.class, other.sequence, &other.images) == (release.class, release.sequence, &release.images)
    };
    let offers = catalog.releases().filter(same).flat_map(|other| &other.payloads);
    let patches = offers.filter_map(|offer| {
        let bytes = transfer_bytes(offer);
        Some((offer.base?.digest.short(), PatchBytes { bytes, from: Source::Beside }))
    });
    patches.collect()
}

/// What a patch of the release would have, from the patches that there are.
fn estimate(release: &Release, catalog: &Catalog) -> Option<PatchBytes> {
    let others = catalog.releases().filter(|other| other.class == release.class);
    let own = ratio(core::iter::once(release)).map(|ratio| (ratio, Source::OwnPatches));
    let ((patches, fulls), from) =
        own.or_else(|| ratio(others).map(|ratio| (ratio, Source::OtherReleases)))?;
    let bytes = u128::from(full_bytes(release)) * patches / fulls;
    Some(PatchBytes { bytes: u64::try_from(bytes).unwrap_or(u64::MAX), from })
}

/// Bytes of all patches of some releases, and of as many full payloads.
fn ratio<'r>(releases: impl Iterator<Item = &'r Release>) -> Option<(u128, u128)> {
    let (mut patches, mut fulls) = (0, 0);
    for release in releases {
        for offer in release.payloads.iter().filter(|offer| offer.base.is_some()) {
            patches += u128::from(transfer_bytes(offer));
            fulls += u128::from(full_bytes(release));
        }
    }
    (fulls > 0).then_some((patches, fulls))
}

#[cfg(test)]
mod tests;
