//! Builds an unsigned release of an image.

use std::path::Path;

use whimbrel_protocol::envelope::{Envelope, Unverified};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::limits::{CHUNK_SIZE_LOG2_MAX, CHUNK_SIZE_LOG2_MIN};
use whimbrel_protocol::manifest::{
    ComponentId, Filter, Image, Images, PatchSource, ReleaseManifest, Summary, Text, TransferDescriptor,
    version_text,
};

use super::codec::{Compressed, check_dictionary};
use super::folder::{ENVELOPE_FILE, SUMMARY_FILE, payload_file};
use super::full::{Cutting, FullPayload};
use super::patches::{BuiltPatch, DroppedPatch, check_bases, payloads};
use super::{IMAGE_BYTES_MAX, Progress, ReleaseError, StoredImage};
use crate::files::{Existing, NewFolder, Secrecy, Staging};
use crate::output::{Fields, Value};
use crate::patch::PatchOptions;

/// How to code an image before it is cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecChoice {
    /// LZMA; but the image goes raw if LZMA saves less than a chunk.
    Auto,
    /// Nothing.
    Raw,
    /// LZMA, even if it saves nothing.
    Lzma,
}

/// The image, or one for each slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSet {
    /// The same image whatever the slot.
    Any(Vec<u8>),
    /// Position-dependent images for slots 0 and 1.
    PerSlot([Vec<u8>; 2]),
}

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// The image or images; each 1 byte to [`IMAGE_BYTES_MAX`].
    pub images: ImageSet,
    /// The maker of the devices, as [`VendorId::named`] reads it: a domain in lower case, or the id in 32 hexadecimal
    /// digits.
    pub vendor: String,
    /// Class of the devices, as [`ClassId::named`] reads it: what their maker calls it in 1 to 64 visible characters,
    /// or the id in 32 hexadecimal digits.
    pub class: String,
    /// Version, as [`parse_version`](whimbrel_protocol::manifest::parse_version) gives it.
    pub version: Vec<i64>,
    /// Anti-rollback counter of the class, from 1.
    pub sequence: u64,
    /// Bytes of a chunk, a power of two from 1 KiB to 64 KiB. If it is `None`, the payload's size decides.
    pub chunk_size: Option<u64>,
    /// How to compress.
    pub codec: CodecChoice,
    /// Most bytes of the dictionary, a power of two from 4 KiB to 8 MiB. A device needs at least as much
    /// memory to decode.
    pub dictionary_bytes: u64,
    /// Description of the release, for people; at most 512 bytes. If it is `None`, class and version stand
    /// there.
    pub description: Option<String>,
    /// Images that devices run, to make patches from: at most 8, none twice, none with an image for each slot.
    pub bases: Vec<StoredImage>,
    /// How to make patches. Its number of threads holds for the whole build.
    pub patches: PatchOptions,
}

/// An image with the payload that was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// The slot that the image is bound to, if any.
    pub slot: Option<u64>,
    /// SHA-256 of the image.
    pub digest: Digest,
    /// Bytes of the image.
    pub size: u64,
    /// How it is transferred.
    pub transfer: TransferDescriptor,
    /// The branch filter, if it was compressed.
    pub filter: Option<Filter>,
    /// Bytes that LZMA would have taken, if the image goes raw because that was no gain.
    pub lzma_bytes: Option<u64>,
    /// The bytes to transfer.
    pub payload: Vec<u8>,
    /// Patches that make the image, the shortest first.
    pub patches: Vec<BuiltPatch>,
    /// Patches that are no shorter than the payload.
    pub dropped: Vec<DroppedPatch>,
}

/// A release that nobody has signed yet.
#[derive(Clone, Debug)]
pub struct UnsignedRelease {
    /// The envelope.
    pub envelope: Envelope<Unverified>,
    /// The images: one, or one for each slot.
    pub images: Vec<BuiltImage>,
    summary: Fields,
}

/// Builds a release. The same options give the same bytes.
///
/// `progress` counts every byte of every image once when it is compressed, and once more for each base.
///
/// # Errors
/// [`ReleaseError::Option`], [`ReleaseError::ImageSize`], [`ReleaseError::SameImages`], [`ReleaseError::TooManyBases`],
/// [`ReleaseError::SameBases`], [`ReleaseError::BaseIsImage`], [`ReleaseError::Layout`], [`ReleaseError::Manifest`], and
/// those of [`make_patch`](super::make_patch).
pub fn build(options: BuildOptions, progress: Progress<'_>) -> Result<UnsignedRelease, ReleaseError> {
    let settings = Settings::check(&options)?;
    let bases = &options.bases[..];
    let images = match options.images {
        ImageSet::Any(image) => Vec::from([settings.build(image, None, bases, progress)?]),
        ImageSet::PerSlot([one, other]) if one == other => return Err(ReleaseError::SameImages),
        ImageSet::PerSlot([one, other]) => {
            let one = settings.build(one, Some(0), &[], progress)?;
            Vec::from([one, settings.build(other, Some(1), &[], progress)?])
        }
    };
    let Settings { vendor, class, .. } = settings;
    let version = version_text(&options.version);
    let description = options.description.unwrap_or_else(|| format!("{} {version}", options.class));
    let manifest = ReleaseManifest {
        vendor,
        class,
        version: options.version,
        sequence: options.sequence,
        images: manifest_images(&images),
        text: Some(Text::english(
            ComponentId::app(),
            Summary {
                description,
                vendor_domain: options.vendor.clone(),
                class_name: options.class.clone(),
                version: version.clone(),
            },
        )),
    }
    .build()?;
    let envelope = Envelope::unsigned(&manifest)
        .map_err(|source| ReleaseError::Envelope { path: ENVELOPE_FILE.into(), source })?;
    let summary = Fields::new()
        .with("release", manifest.digest().to_hex())
        .with("version", version)
        .with("sequence", Value::Count(options.sequence))
        .with("vendor", options.vendor)
        .with("vendor_id", vendor.to_hex())
        .with("class", options.class)
        .with("class_id", class.to_hex())
        .with("images", images.iter().map(|image| Value::Fields(image.summary())).collect::<Vec<_>>());
    Ok(UnsignedRelease { envelope, images, summary })
}

fn manifest_images(images: &[BuiltImage]) -> Images {
    let image = |image: &BuiltImage| Image {
        patches: image.patches.iter().map(|patch| PatchSource::new(patch.base, patch.transfer)).collect(),
        ..Image::new(image.digest, image.size, image.transfer)
    };
    match images {
        [one, other] => Images::PerSlot([(0, image(one)), (1, image(other))]),
        [only, ..] => Images::Any(image(only)),
        [] => unreachable!("build makes one image or two"),
    }
}

/// The options that hold for every image, checked.
struct Settings {
    vendor: VendorId,
    class: ClassId,
    cutting: Cutting,
    codec: CodecChoice,
    dictionary_bytes: u32,
    patches: PatchOptions,
}

/// Most bytes of the description.
const DESCRIPTION_BYTES_MAX: usize = 512;

impl Settings {
    fn check(options: &BuildOptions) -> Result<Self, ReleaseError> {
        let wrong = |what, got: &str, want| Err(ReleaseError::Option { what, got: got.into(), want });
        // As devices read their configuration. A name that the two sides read in two ways would match no device.
        let Some(vendor) = VendorId::named(&options.vendor) else {
            return wrong(
                "vendor",
                &options.vendor,
                "a domain that you own, in lower case, such as example.com, or 32 hexadecimal digits",
            );
        };
        let Some(class) = ClassId::named(vendor, &options.class) else {
            let want = "a name of 1 to 64 visible characters, or 32 hexadecimal digits";
            return wrong("class", &options.class, want);
        };
        if options.sequence == 0 {
            return wrong("sequence", "0", "1 or more; it rises with every release of the class");
        }
        if let Some(text) = options.description.as_ref().filter(|text| text.len() > DESCRIPTION_BYTES_MAX) {
            let start: String = text.chars().take(20).collect();
            return wrong("description", &format!("{start}..."), "at most 512 bytes long");
        }
        let dictionary_bytes = check_dictionary(options.dictionary_bytes)?;
        let fixed_log2 = match options.chunk_size {
            None => None,
            Some(bytes) => match u8::try_from(bytes.trailing_zeros()) {
                Ok(log2 @ CHUNK_SIZE_LOG2_MIN..=CHUNK_SIZE_LOG2_MAX) if bytes.is_power_of_two() => Some(log2),
                _ => return wrong("chunk size", &bytes.to_string(), "a power of two from 1KiB to 64KiB"),
            },
        };
        if matches!(options.images, ImageSet::PerSlot(_)) && !options.bases.is_empty() {
            return wrong("base", "with slot images", "possible: what runs is always for the other slot");
        }
        let (codec, patches) = (options.codec, options.patches.clone());
        Ok(Self { vendor, class, cutting: Cutting { fixed_log2 }, codec, dictionary_bytes, patches })
    }

    fn build(
        &self,
        image: Vec<u8>,
        slot: Option<u64>,
        bases: &[StoredImage],
        progress: Progress<'_>,
    ) -> Result<BuiltImage, ReleaseError> {
        let size = image.len() as u64;
        if size == 0 || size > IMAGE_BYTES_MAX {
            return Err(ReleaseError::ImageSize { got: size, limit: IMAGE_BYTES_MAX });
        }
        let digest = Digest::of(&image);
        check_bases(bases, &digest)?;
        let make_full = |progress: Progress<'_>| {
            FullPayload::make(&image, self.codec, self.dictionary_bytes, self.cutting, progress)
        };
        let (full, made) = payloads(&image, make_full, bases, &self.patches, progress)?;
        let (patches, dropped) = made.choose(digest, full.size(size), self.cutting)?;
        let (header, payload) = match full.compressed {
            Some(Compressed { header, payload }) => (Some(header), payload),
            None => (None, image),
        };
        let (layout, index) = self.cutting.cut(digest, &payload)?;
        let transfer = match &header {
            Some(header) => TransferDescriptor::lzma(layout, index, header.decoder()),
            None => TransferDescriptor::raw(layout, index),
        };
        let filter = header.map(|header| header.filter);
        let lzma_bytes = full.lzma_bytes;
        Ok(BuiltImage { slot, digest, size, transfer, filter, lzma_bytes, payload, patches, dropped })
    }
}

impl BuiltImage {
    fn summary(&self) -> Fields {
        let mut fields = Fields::new();
        if let Some(slot) = self.slot {
            fields.add("slot", Value::Count(slot));
        }
        fields
            .add("image_digest", self.digest.to_hex())
            .add("image_size", Value::Bytes(self.size))
            .add("payload", payload_file(&self.transfer.index_digest))
            .add("codec", self.transfer.codec.name())
            .add("transfer_size", Value::Bytes(self.transfer.layout.transfer_size()))
            .add("chunk_size", Value::Bytes(self.transfer.layout.chunk_size()))
            .add("chunks", self.transfer.layout.chunk_count());
        if let Some(decoder) = self.transfer.decoder {
            fields
                .add("filter", self.filter.map(Filter::name))
                .add("dictionary_bytes", Value::Bytes(decoder.dictionary_bytes.into()))
                .add("decoder_memory_bytes", Value::Bytes(decoder.memory_bytes.into()));
        }
        let patches = self.patches.iter().map(|patch| Value::Fields(patch.summary()));
        fields.add("patches", patches.collect::<Vec<_>>());
        if !self.dropped.is_empty() {
            let dropped = self.dropped.iter().map(|patch| Value::Fields(patch.summary()));
            fields.add("dropped_patches", dropped.collect::<Vec<_>>());
        }
        fields
    }
}

impl UnsignedRelease {
    /// What was built, without its bytes: the content of `release.json`.
    #[must_use]
    pub fn summary(&self) -> &Fields {
        &self.summary
    }

    /// Writes envelope, payloads and summary into `folder`, which is made if need be.
    ///
    /// # Errors
    /// [`ReleaseError::File`], also if the folder holds a release already; nothing is left behind.
    pub fn write(&self, folder: &Path) -> Result<(), ReleaseError> {
        let made = NewFolder::create(folder, Secrecy::Public)?;
        let mut staging = Staging::new();
        let mut add = |name: &str, bytes: &[u8], existing| {
            staging.add(&folder.join(name), bytes, Secrecy::Public, existing)
        };
        for image in &self.images {
            // A payload is named after its content. So one that an interrupted build left behind is the same
            // file.
            add(&payload_file(&image.transfer.index_digest), &image.payload, Existing::Replace)?;
            for patch in &image.patches {
                add(&payload_file(&patch.transfer.index_digest), &patch.payload, Existing::Replace)?;
            }
        }
        let summary = serde_json::to_string_pretty(&self.summary).expect("fields have a JSON form") + "\n";
        add(SUMMARY_FILE, summary.as_bytes(), Existing::Refuse)?;
        // The envelope comes last, because a folder that has one counts as a release.
        add(ENVELOPE_FILE, self.envelope.bytes(), Existing::Refuse)?;
        staging.commit()?;
        made.keep();
        Ok(())
    }
}
