//! `whimbrel release build`

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Context, Screen, bar, warn};
use crate::cli::{BuildFlags, CodecFlag};
use crate::files::{self, FileError};
use crate::output::{Fields, Value, plain};
use crate::patch::PatchOptions;
use crate::release::{
    self, BuildOptions, BuiltImage, CodecChoice, EncoderWork, IMAGE_BYTES_MAX, ImageSet, PATCH_PASSES,
    Packed, StoredImage, check_patch_memory,
};
use crate::units::{grouped, size};

/// Larger chunks are warned of: some brokers take no longer messages.
const SMALL_CHUNK_BYTES: u64 = 4096;

pub(super) fn run(context: &Context, flags: BuildFlags) -> Result<Screen> {
    // The command refuses a folder that cannot be used before the work, not after it.
    let taken = flags.output.join(release::ENVELOPE_FILE);
    if taken.exists() {
        return Err(FileError::Exists { path: taken }.into());
    }
    let config = context.config()?;
    let named = |flag: Option<String>, from_config, what| {
        flag.or(from_config)
            .with_context(|| format!("no {what} is named: give --{what}, or `{what}` in [publisher]"))
    };
    let vendor = named(flags.vendor, config.vendor, "vendor")?;
    let class = named(flags.class, config.class, "class")?;
    let bases = flags.bases.iter().map(|base| StoredImage::open(base)).collect::<Result<Vec<_>, _>>()?;
    // A file that cannot be read is refused where it is read.
    let bytes = |path: &Path| path.metadata().map_or(0, |about| about.len());
    let memory = EncoderWork {
        bases: bases.iter().map(|base| base.id().size).collect(),
        image: flags.image.iter().chain(flags.slot_images.iter().flatten()).map(|path| bytes(path)).sum(),
        jobs: flags.jobs.count(),
        decoder: flags.patch_memory,
        dictionary: flags.dictionary,
        full: true,
    };
    memory.check(flags.jobs.memory_limit)?;
    let read = |path: &Path| files::read(path, "an image", IMAGE_BYTES_MAX);
    let images = match (flags.image, flags.slot_images.as_deref()) {
        (Some(path), _) => ImageSet::Any(read(&path)?),
        (None, Some([one, other])) => ImageSet::PerSlot([read(one)?, read(other)?]),
        (None, _) => bail!("no image is named: give --image, or --slot-images with two files"),
    };
    let mut warnings = packed(&images, &bases)?;
    let work = match &images {
        ImageSet::Any(image) => image.len() as u64 * (1 + PATCH_PASSES * bases.len() as u64),
        ImageSet::PerSlot(images) => images.iter().map(|image| image.len() as u64).sum(),
    };
    let options = BuildOptions {
        images,
        vendor,
        class,
        version: flags.version.0,
        sequence: flags.sequence,
        chunk_size: flags.chunk_size,
        codec: match flags.codec {
            CodecFlag::Auto => CodecChoice::Auto,
            CodecFlag::Raw => CodecChoice::Raw,
            CodecFlag::Lzma => CodecChoice::Lzma,
        },
        dictionary_bytes: flags.dictionary,
        description: flags.description,
        bases,
        patches: PatchOptions {
            memory_bytes: check_patch_memory(flags.patch_memory)?,
            architecture: flags.arch.architecture(),
            load_address: flags.load_address,
            jobs: flags.jobs.count(),
        },
    };
    let progress = bar(if options.bases.is_empty() { "compressing" } else { "coding" }, work);
    let built = release::build(options, &mut |bytes| progress.inc(bytes))?;
    drop(progress);
    built.write(&flags.output)?;
    warnings.extend(built.images.iter().flat_map(of_no_use));
    warnings.extend(built.images.iter().find_map(large_chunks));
    warnings.iter().for_each(|warning| warn(warning));
    let mut fields = Fields::new().with("folder", flags.output.display().to_string());
    fields.extend(built.summary().clone());
    if !memory.bases.is_empty() {
        fields.add("encoder_memory_bytes", Value::Bytes(memory.memory_bytes()));
    }
    let next = format!("\nNext: whimbrel release sign {}", plain(&flags.output.display().to_string()));
    Ok(Screen::warned(fields, warnings).and(&next))
}

/// Warnings about images that are compressed already. High entropy alone leads to a warning only if patches
/// are wanted: without patches, the warning that the image does not shrink says the same.
fn packed(images: &ImageSet, bases: &[StoredImage]) -> Result<Vec<String>> {
    let images = match images {
        ImageSet::Any(image) => core::slice::from_ref(image),
        ImageSet::PerSlot(images) => &images[..],
    };
    let find = if bases.is_empty() { Packed::by_header } else { Packed::find };
    if let Some(found) = images.iter().find_map(|image| find(image)) {
        return Ok(Vec::from([found.to_string()]));
    }
    let mut warnings = Vec::new();
    for base in bases {
        if let Some(found) = Packed::find(&base.read()?) {
            warnings.push(format!("base {}: {found}", base.name()));
        }
    }
    Ok(warnings)
}

/// A chunk travels in one message, so that its size is the least that every broker on the way has to carry.
fn large_chunks(image: &BuiltImage) -> Option<String> {
    let bytes = image.transfer.layout.chunk_size();
    (bytes > SMALL_CHUNK_BYTES).then(|| {
        format!(
            "chunks have {}: a broker that takes only shorter messages carries none of them, and devices cannot ask \
             for less than a chunk; --chunk-size 4KiB passes most brokers",
            size(bytes)
        )
    })
}

/// Notes on payloads that were made and left out, because something else is smaller.
fn of_no_use(image: &BuiltImage) -> Vec<String> {
    let shrinks_not = image.lzma_bytes.map(|lzma_bytes| {
        format!(
            "the image does not shrink (LZMA: {} instead of {}), so that it is sent as it is",
            grouped(lzma_bytes),
            grouped(image.size)
        )
    });
    let full_bytes = image.payload.len() as u64;
    let dropped = image.dropped.iter().map(|patch| {
        format!(
            "the patch from {} has {} and is left out, because the full payload has {}",
            patch.name,
            size(patch.patch_bytes),
            size(full_bytes)
        )
    });
    shrinks_not.into_iter().chain(dropped).collect()
}
