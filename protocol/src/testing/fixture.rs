//! Keys, releases and signed documents to test with. The keys are derived from constants, so they are for
//! tests only.

use alloc::vec::Vec;

use crate::chunk::{ChunkSalt, Index, Layout};
use crate::cose::{Kind, SigningKey, sign_attached};
use crate::envelope::{Envelope, Unverified};
use crate::ids::{CampaignId, ClassId, DeviceId, Digest, GroupName, PayloadTag, Prefix, VendorId};
use crate::manifest::{
    DecoderMemory, Image, ImageId, Images, PatchSource, RUNNING_COMPONENT, ReleaseManifest,
    TransferDescriptor,
};
use crate::message::{Assignment, Beacon, Campaign, CampaignState, HelloAnswer, Order, Policy, Validity};
use crate::time::UnixTime;
use crate::trust::{RoleKeys, Root};

/// The keys of all roles and of one device, and the names of the device, its maker and its group.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Signs roots.
    pub root_key: SigningKey,
    /// Signs releases.
    pub release_key: SigningKey,
    /// Signs campaigns and assignments.
    pub campaign_key: SigningKey,
    /// Signs beacons and hello answers.
    pub beacon_key: SigningKey,
    /// Signs the device's reports.
    pub device_key: SigningKey,
    /// The device.
    pub device: DeviceId,
    /// Its maker.
    pub vendor: VendorId,
    /// Its hardware.
    pub class: ClassId,
    /// Its group.
    pub group: GroupName,
    /// When everything here was signed.
    pub issued: UnixTime,
}

/// A release with its payload.
#[derive(Clone, Debug)]
pub struct Release {
    /// The signed envelope.
    pub envelope: Vec<u8>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its sequence number.
    pub sequence: u64,
    /// The image.
    pub image: Vec<u8>,
    /// What is transferred: here the image.
    pub payload: Vec<u8>,
    /// How it is cut.
    pub layout: Layout,
    /// Its index.
    pub index: Index,
    /// Patches that make the image.
    pub patches: Vec<Part>,
}

/// A payload that a release offers beside the image.
#[derive(Clone, Debug)]
pub struct Part {
    /// What is transferred.
    pub bytes: Vec<u8>,
    /// How it is cut.
    pub layout: Layout,
    /// Its index.
    pub index: Index,
}

/// A patch that a test gives to a release.
#[derive(Clone, Debug)]
pub struct FixturePatch {
    /// The image that it starts from.
    pub base: ImageId,
    /// What is transferred.
    pub bytes: Vec<u8>,
    /// What the manifest says about its decoder.
    pub decoder: DecoderMemory,
}

impl Part {
    /// The payload's short name.
    #[must_use]
    pub fn tag(&self) -> PayloadTag {
        PayloadTag::of(&self.index.digest)
    }
}

impl Release {
    /// The payload's short name.
    #[must_use]
    pub fn tag(&self) -> PayloadTag {
        PayloadTag::of(&self.index.digest)
    }

    /// All payloads of the release: the full one and the patches.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let image = Part { bytes: self.payload.clone(), layout: self.layout, index: self.index.clone() };
        [image].into_iter().chain(self.patches.iter().cloned()).collect()
    }
}

/// The parts of an order that a test chooses. The rest follows from the release.
#[derive(Clone, Copy, Debug)]
pub struct OrderOptions {
    /// Version of the document.
    pub version: u64,
    /// Attempt of the campaign.
    pub attempt: u64,
    /// Whether it runs.
    pub state: CampaignState,
    /// First byte of the campaign's id.
    pub campaign: u8,
    /// The minimum sequence: releases below it are withdrawn.
    pub min_sequence: u64,
    /// Life time after [`Fixture::issued`], in seconds.
    pub life_s: u64,
    /// Spread, in seconds.
    pub spread_s: u64,
    /// Priority among groups.
    pub priority: u64,
}

impl Default for OrderOptions {
    fn default() -> Self {
        Self {
            version: 1,
            attempt: 1,
            state: CampaignState::Active,
            campaign: 1,
            min_sequence: 0,
            life_s: 30 * 24 * 3600,
            spread_s: 0,
            priority: 0,
        }
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// The usual keys, device `dev-0001`, group `all`.
    #[must_use]
    pub fn new() -> Self {
        let key = |byte: u8| SigningKey::ed25519(&[byte; 32]);
        let vendor = VendorId::from_domain("example.com");
        Self {
            root_key: key(1),
            release_key: SigningKey::p256(&[2; 32]).expect("a valid secret"),
            campaign_key: key(3),
            beacon_key: key(4),
            device_key: key(5),
            device: DeviceId::new("dev-0001").expect("a valid id"),
            vendor,
            class: ClassId::from_name(vendor, "gateway"),
            group: GroupName::new("all").expect("a valid name"),
            issued: UnixTime::from_secs(1_800_000_000),
        }
    }

    /// The root that names the keys, one a role.
    #[must_use]
    pub fn root(&self) -> Root {
        let role = |key: &SigningKey| RoleKeys { threshold: 1, epoch: 0, keys: Vec::from([key.public()]) };
        Root {
            version: 1,
            issued: self.issued,
            expires: self.issued.plus_secs(10 * 365 * 24 * 3600),
            roles: [
                role(&self.root_key),
                role(&self.release_key),
                role(&self.campaign_key),
                role(&self.beacon_key),
            ],
        }
    }

    /// `root.cbor`.
    #[must_use]
    pub fn root_bytes(&self) -> Vec<u8> {
        self.root().sign(&[&self.root_key])
    }

    /// A release of `image`, transferred raw in chunks of `2^chunk_size_log2` bytes.
    #[must_use]
    pub fn release(&self, image: Vec<u8>, sequence: u64, chunk_size_log2: u64) -> Release {
        self.release_for(self.class, &self.release_key, image, sequence, chunk_size_log2)
    }

    /// The same with patches that are tried before it, cut the same way.
    ///
    /// # Panics
    /// For a patch that can't be cut, and for more than there may be.
    #[must_use]
    pub fn release_with_patches(
        &self,
        image: Vec<u8>,
        sequence: u64,
        chunk_size_log2: u64,
        patches: &[FixturePatch],
    ) -> Release {
        let digest = Digest::of(&image);
        let part = |bytes: &[u8]| {
            let size = bytes.len() as u64;
            let layout = Layout::new(chunk_size_log2, size).expect("something that can be cut");
            let index = Index::build(ChunkSalt { image: digest, transfer_size: size }, layout, bytes);
            Part { bytes: bytes.to_vec(), layout, index }
        };
        let parts: Vec<Part> = patches.iter().map(|patch| part(&patch.bytes)).collect();
        let full = part(&image);
        let sources = patches.iter().zip(&parts).map(|(patch, part)| {
            let index = part.index.digest;
            let transfer = TransferDescriptor::patch(part.layout, index, RUNNING_COMPONENT, patch.decoder);
            PatchSource::new(patch.base, transfer)
        });
        let transfer = TransferDescriptor::raw(full.layout, full.index.digest);
        let described =
            Image { patches: sources.collect(), ..Image::new(digest, image.len() as u64, transfer) };
        let (envelope, release) = self.sign_release(self.class, &self.release_key, described, sequence);
        let Part { layout, index, .. } = full;
        let payload = image.clone();
        Release { envelope, digest: release, sequence, image, payload, layout, index, patches: parts }
    }

    /// A release for another class, or signed by another key.
    ///
    /// # Panics
    /// For an image that can't be cut.
    #[must_use]
    pub fn release_for(
        &self,
        class: ClassId,
        key: &SigningKey,
        image: Vec<u8>,
        sequence: u64,
        chunk_size_log2: u64,
    ) -> Release {
        let digest = Digest::of(&image);
        let size = image.len() as u64;
        let layout = Layout::new(chunk_size_log2, size).expect("an image that can be cut");
        let index = Index::build(ChunkSalt { image: digest, transfer_size: size }, layout, &image);
        let transfer = TransferDescriptor::raw(layout, index.digest);
        let (envelope, digest) = self.sign_release(class, key, Image::new(digest, size, transfer), sequence);
        let patches = Vec::new();
        Release { envelope, digest, sequence, payload: image.clone(), image, layout, index, patches }
    }

    fn sign_release(
        &self,
        class: ClassId,
        key: &SigningKey,
        image: Image,
        sequence: u64,
    ) -> (Vec<u8>, Digest) {
        let manifest = ReleaseManifest {
            vendor: self.vendor,
            class,
            version: Vec::from([1, 0, i64::try_from(sequence).unwrap_or(0)]),
            sequence,
            images: Images::Any(image),
            text: None,
        };
        let manifest = manifest.build().expect("a manifest of our own template");
        let mut envelope = Envelope::<Unverified>::unsigned(&manifest).expect("a small manifest");
        envelope.sign(key).expect("room for one signature");
        (envelope.bytes().to_vec(), envelope.claimed_digest())
    }

    /// An order for `release`.
    #[must_use]
    pub fn order(&self, release: &Release, options: OrderOptions) -> Order {
        Order {
            campaign: CampaignId([options.campaign; 8]),
            attempt: options.attempt,
            state: options.state,
            release: release.digest,
            sequence: release.sequence,
            envelope_size: release.envelope.len() as u64,
            image_size: release.image.len() as u64,
            min_sequence: options.min_sequence,
            class: self.class,
            not_before: self.issued,
            spread_s: options.spread_s,
            policy: Policy::Soft,
            priority: options.priority,
        }
    }

    fn validity(&self, version: u64, life_s: u64) -> Validity {
        Validity { version, issued: self.issued, expires: self.issued.plus_secs(life_s) }
    }

    /// The campaign document of the device's group.
    #[must_use]
    pub fn campaign(&self, release: &Release, options: OrderOptions) -> Vec<u8> {
        self.campaign_of(&self.group, self.order(release, options), options)
    }

    /// A campaign document of any group with any order.
    #[must_use]
    pub fn campaign_of(&self, group: &GroupName, order: Order, options: OrderOptions) -> Vec<u8> {
        let campaign = Campaign {
            prefix: Prefix::default(),
            group: group.clone(),
            validity: self.validity(options.version, options.life_s),
            order,
        };
        sign_attached(&self.campaign_key, Kind::Campaign, None, &campaign.encode())
    }

    /// The device's assignment to `groups`.
    #[must_use]
    pub fn assignment(&self, version: u64, groups: &[GroupName], order: Option<Order>) -> Vec<u8> {
        let assignment = Assignment {
            prefix: Prefix::default(),
            device: self.device.clone(),
            validity: self.validity(version, 10 * 365 * 24 * 3600),
            groups: groups.to_vec(),
            root: 1,
            order,
        };
        sign_attached(&self.campaign_key, Kind::Assignment, None, &assignment.encode())
    }

    /// A beacon that names `groups`.
    #[must_use]
    pub fn beacon(&self, version: u64, groups: &[(GroupName, u64)], life_s: u64) -> Vec<u8> {
        let groups =
            groups.iter().map(|(group, version)| (crate::message::group_hash(group), *version)).collect();
        let validity = self.validity(version, life_s);
        let beacon = Beacon { prefix: Prefix::default(), validity, groups, root: 1 };
        sign_attached(&self.beacon_key, Kind::Beacon, None, &beacon.encode())
    }

    /// The answer to a hello, signed.
    #[must_use]
    pub fn answer(&self, answer: &HelloAnswer) -> Vec<u8> {
        sign_attached(&self.beacon_key, Kind::Answer, None, &answer.encode())
    }
}
