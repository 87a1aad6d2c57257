//! The releases that the service has, and which of their payloads are complete.

use alloc::collections::BTreeMap;
use std::collections::HashMap;

use bytes::Bytes;
use thiserror::Error;
use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::envelope::{Envelope, VerifyError};
use whimbrel_protocol::ids::{ClassId, Digest, ShortDigest, VendorId};
use whimbrel_protocol::manifest::{ImageId, ManifestError, version_text};
use whimbrel_protocol::server::LivePayload;
use whimbrel_protocol::time::UnixTime;
use whimbrel_protocol::trust::Root;

use crate::store::{PayloadRow, PayloadSpec, ReleaseRow};

/// A release that release keys signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Digest of its manifest: its name.
    pub digest: Digest,
    /// The envelope as it is sent: without the text.
    pub envelope: Bytes,
    /// Anti-rollback counter of the class.
    pub sequence: u64,
    /// The version, as people write it.
    pub version: String,
    /// The maker.
    pub vendor: VendorId,
    /// The hardware.
    pub class: ClassId,
    /// Bytes of the image.
    pub image_size: u64,
    /// What it installs: one image, or one for each slot.
    pub images: Vec<ImageId>,
    /// What has to be uploaded: patches first, the full payload last.
    pub payloads: Vec<Offer>,
    /// When it came.
    pub added: UnixTime,
}

/// One way to an image of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The payload.
    pub spec: PayloadSpec,
    /// For a patch the image that it starts from.
    pub base: Option<ImageId>,
}

/// Why an envelope is not taken as a release.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReleaseError {
    /// It is malformed, or not signed by the release keys of the root.
    #[error("the release is refused: {0}")]
    Envelope(#[from] VerifyError),
    /// Devices would refuse its manifest.
    #[error("devices would refuse the release: {0}")]
    Manifest(#[from] ManifestError),
    /// The manifest leaves something out that the service needs.
    #[error("the manifest names no {what}")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// A campaign says one size for all slots.
    #[error("the images for the two slots have {one} and {other} bytes: pad them to the same size")]
    ImageSizes {
        /// Bytes of the first.
        one: u64,
        /// Bytes of another.
        other: u64,
    },
}

impl Release {
    /// Verifies an envelope against the release keys of `root` and reads what the service needs.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn read(envelope: &[u8], root: &Root, added: UnixTime) -> Result<Self, ReleaseError> {
        let mut envelope = Envelope::decode(envelope)?.verify(root, Accept::STRICT)?;
        let manifest = envelope.manifest();
        // No device reads the text, so that nobody would refuse it after the service.
        manifest.languages().map_err(VerifyError::from)?;
        manifest.walk()?;
        let missing = |what| ReleaseError::Missing { what };
        let images = manifest.images();
        let image_size = images.first().ok_or(missing("image"))?.size;
        if let Some(other) = images.iter().map(|image| image.size).find(|size| *size != image_size) {
            return Err(ReleaseError::ImageSizes { one: image_size, other });
        }
        let digests: Vec<Digest> = images.iter().map(|image| image.digest).collect();
        let payloads: Vec<Offer> = manifest
            .payloads()
            .iter()
            .map(|payload| {
                let (index, layout) = (payload.transfer.index_digest, payload.transfer.layout);
                Offer { spec: PayloadSpec { index, layout, images: digests.clone() }, base: payload.base }
            })
            .collect();
        if payloads.is_empty() {
            return Err(missing("payload"));
        }
        let (vendor, class) = (manifest.vendor(), manifest.class());
        let (sequence, version) =
            (manifest.sequence_number(), version_text(manifest.version().unwrap_or_default()));
        let digest = envelope.digest();
        envelope.strip_text();
        Ok(Self {
            digest,
            envelope: Bytes::copy_from_slice(envelope.bytes()),
            sequence,
            version,
            vendor: vendor.ok_or(missing("vendor"))?,
            class: class.ok_or(missing("class"))?,
            image_size,
            images,
            payloads,
            added,
        })
    }

    /// The offer whose index digest begins with `payload`.
    #[must_use]
    pub fn offer(&self, payload: ShortDigest) -> Option<&Offer> {
        self.payloads.iter().find(|offer| offer.spec.index.short() == payload)
    }

    /// Whether an image that names itself by its first bytes is one that this release installs.
    #[must_use]
    pub fn installs(&self, image: ShortDigest) -> bool {
        self.images.iter().any(|own| own.digest.short() == image)
    }

    /// The row to store.
    #[must_use]
    pub fn row(&self) -> ReleaseRow {
        ReleaseRow { digest: self.digest, envelope: self.envelope.clone(), added: self.added }
    }
}

/// All releases and payloads.
#[derive(Debug)]
pub struct Catalog {
    releases: BTreeMap<Digest, Release>,
    releases_max: usize,
    payloads: HashMap<Digest, PayloadNumber>,
    rows: Vec<PayloadRow>,
}

/// A payload's number in this process: small, and never two payloads with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadNumber(u32);

/// Why a release is not entered, or not found.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CatalogError {
    /// Another release of the class has the sequence number, and installs something else.
    #[error(
        "release {other} of this class has sequence {sequence} too, with another image: build this one with a higher number"
    )]
    Sequence {
        /// The other release.
        other: Digest,
        /// The number.
        sequence: u64,
    },
    /// There are too many.
    #[error("{limit} releases are stored, more are not possible (limits.releases)")]
    Full {
        /// Allowed.
        limit: usize,
    },
    /// What is asked for is not written as digits of a digest.
    #[error("{got:?} names no {what}: expected at least 4 hexadecimal digits of its name")]
    Prefix {
        /// Release or campaign.
        what: &'static str,
        /// What was given.
        got: String,
    },
    /// There is none.
    #[error("there is no {what} {got}")]
    None {
        /// Release or campaign.
        what: &'static str,
        /// What was given.
        got: String,
    },
    /// There are several.
    #[error("several {what}s begin with {got}: give more digits")]
    Several {
        /// Release or campaign.
        what: &'static str,
        /// What was given.
        got: String,
    },
}

impl Catalog {
    /// An empty catalog with room for `releases_max`.
    #[must_use]
    pub fn new(releases_max: usize) -> Self {
        Self { releases: BTreeMap::new(), releases_max, payloads: HashMap::new(), rows: Vec::new() }
    }

    /// Every release, in the order of digests.
    pub fn releases(&self) -> impl ExactSizeIterator<Item = &Release> {
        self.releases.values()
    }

    /// One release.
    #[must_use]
    pub fn release(&self, digest: &Digest) -> Option<&Release> {
        self.releases.get(digest)
    }

    /// Finds a release by the first digits of its digest.
    ///
    /// # Errors
    /// [`CatalogError::Prefix`], [`CatalogError::None`], [`CatalogError::Several`].
    pub fn find(&self, prefix: &str) -> Result<&Release, CatalogError> {
        find_by_hex(
            "release",
            self.releases.values().map(|release| (release.digest.to_hex(), release)),
            prefix,
        )
    }

    /// Checks whether a release can be entered; `false` if it is here already.
    ///
    /// # Errors
    /// [`CatalogError::Sequence`], [`CatalogError::Full`].
    pub fn check(&self, release: &Release) -> Result<bool, CatalogError> {
        if self.releases.contains_key(&release.digest) {
            return Ok(false);
        }
        // Another envelope of the same images may bring other payloads, such as patches; devices take either.
        let clashes = |other: &&Release| {
            other.class == release.class
                && other.sequence == release.sequence
                && other.images != release.images
        };
        if let Some(other) = self.releases.values().find(clashes) {
            return Err(CatalogError::Sequence { other: other.digest, sequence: release.sequence });
        }
        if self.releases.len() >= self.releases_max {
            return Err(CatalogError::Full { limit: self.releases_max });
        }
        Ok(true)
    }

    /// Enters a release.
    pub fn enter(&mut self, release: Release) {
        self.releases.insert(release.digest, release);
    }

    /// Enters a payload that is complete.
    pub fn enter_payload(&mut self, row: PayloadRow) {
        let next = PayloadNumber(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        if let std::collections::hash_map::Entry::Vacant(place) = self.payloads.entry(row.index) {
            place.insert(next);
            self.rows.push(row);
        }
    }

    /// Forgets a payload whose file turned out to be damaged.
    pub fn forget_payload(&mut self, number: PayloadNumber) {
        if let Some(row) = self.payload(number) {
            let index = row.index;
            self.payloads.remove(&index);
        }
    }

    /// The payload with this number.
    #[must_use]
    pub fn payload(&self, number: PayloadNumber) -> Option<&PayloadRow> {
        self.rows.get(number.0 as usize)
    }

    /// The newest release of a class that installs an image which names itself by its first bytes.
    #[must_use]
    pub fn of_image(&self, class: ClassId, image: ShortDigest) -> Option<&Release> {
        let releases = self.releases.values();
        let known = releases.filter(|release| release.class == class && release.installs(image));
        known.max_by_key(|release| (release.sequence, release.added))
    }

    /// What the releases say about the payload with this index digest.
    #[must_use]
    pub fn spec(&self, index: &Digest) -> Option<&PayloadSpec> {
        let offers = self.releases.values().flat_map(|release| &release.payloads);
        offers.map(|offer| &offer.spec).find(|spec| spec.index == *index)
    }

    /// What has to be uploaded before a release can go out.
    #[must_use]
    pub fn missing<'r>(&self, release: &'r Release) -> Vec<&'r PayloadSpec> {
        let specs = release.payloads.iter().map(|offer| &offer.spec);
        specs.filter(|spec| !self.payloads.contains_key(&spec.index)).collect()
    }

    /// The payloads of a release that can be served, with their numbers.
    #[must_use]
    pub fn live(&self, release: &Release) -> Vec<(LivePayload, PayloadNumber)> {
        let known = release.payloads.iter().filter_map(|Offer { spec, .. }| {
            let number = *self.payloads.get(&spec.index)?;
            let tag = whimbrel_protocol::ids::PayloadTag::of(&spec.index);
            Some((LivePayload { tag, layout: spec.layout }, number))
        });
        known.collect()
    }
}

/// Finds the only thing whose name begins with `prefix`.
pub(crate) fn find_by_hex<T>(
    what: &'static str,
    named: impl Iterator<Item = (String, T)>,
    prefix: &str,
) -> Result<T, CatalogError> {
    let got = prefix.to_ascii_lowercase();
    if !(4..=64).contains(&got.len()) || !got.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let got: String = prefix.chars().take(80).collect();
        return Err(CatalogError::Prefix { what, got });
    }
    let mut matches = named.filter(|(name, _)| name.starts_with(&got));
    match (matches.next(), matches.next()) {
        (Some((_, found)), None) => Ok(found),
        (None, _) => Err(CatalogError::None { what, got }),
        (Some(_), Some(_)) => Err(CatalogError::Several { what, got }),
    }
}

#[cfg(test)]
mod tests;
