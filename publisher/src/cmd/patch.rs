//! `whimbrel release diff` and `whimbrel release apply`

use anyhow::Result;

use super::{Screen, bar, warn};
use crate::cli::{ApplyFlags, DiffFlags};
use crate::clock::Stopwatch;
use crate::files::{self, Existing, FileError, Secrecy};
use crate::output::{Fields, Value};
use crate::patch::{Patch, PatchOptions};
use crate::release::{
    EncoderWork, FULL_IMAGE_BYTES_MAX, PATCH_PASSES, Packed, PatchFile, StoredImage, check_patch_memory,
    compare,
};

pub(super) fn diff(flags: &DiffFlags) -> Result<Screen> {
    // The command refuses a name that cannot be used before the work, not after it.
    if let Some(path) = flags.output.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        return Err(FileError::Exists { path: path.clone() }.into());
    }
    let options = PatchOptions {
        memory_bytes: check_patch_memory(flags.memory)?,
        architecture: flags.arch.architecture(),
        load_address: flags.load_address,
        jobs: flags.jobs.count(),
    };
    let watch = Stopwatch::start();
    let old = StoredImage::open(&flags.old)?;
    let image = StoredImage::open(&flags.new)?;
    let work = EncoderWork {
        bases: vec![old.id().size],
        image: image.id().size,
        jobs: options.jobs,
        decoder: options.memory_bytes.into(),
        dictionary: flags.dictionary,
        full: image.id().size <= FULL_IMAGE_BYTES_MAX,
    };
    work.check(flags.jobs.memory_limit)?;
    let new = image.read()?;
    let packed = Packed::find(&new).map(|packed| format!("{}: {packed}", image.name()));
    let progress = bar("comparing", image.id().size * (PATCH_PASSES + 1));
    let compared = compare(&old, &new, &options, flags.dictionary, &mut |bytes| progress.inc(bytes))?;
    drop(progress);
    let Patch { header, bytes, modes, architecture, load_address } = compared.patch;
    if let Some(path) = &flags.output {
        files::write(path, &bytes, Secrecy::Public, Existing::Refuse)?;
    }
    let (patch_bytes, full_bytes) = (bytes.len() as u64, compared.full_bytes);
    let mut warnings = Vec::new();
    if patch_bytes >= full_bytes {
        warnings.push("the patch is not smaller than the full payload: a release would do without it".into());
    }
    warnings.extend(packed);
    warnings.iter().for_each(|warning| warn(warning));
    let mut by_mode = Fields::new();
    modes.into_iter().for_each(|(name, bytes)| {
        by_mode.add(name, Value::Bytes(bytes));
    });
    let fields = Fields::new()
        .with("file", flags.output.as_ref().map(|path| path.display().to_string()))
        .with("old_bytes", Value::Bytes(header.base.size))
        .with("new_bytes", Value::Bytes(header.image.size))
        .with("patch_bytes", Value::Bytes(patch_bytes))
        .with("full_bytes", Value::Bytes(full_bytes))
        .with("full_estimated", compared.full_estimated)
        .with("percent_of_full", Value::Decimal(percent(patch_bytes, full_bytes)))
        .with("percent_of_new", Value::Decimal(percent(patch_bytes, header.image.size)))
        .with("decoder_memory_bytes", Value::Bytes(header.memory_bytes().into()))
        .with("encoder_memory_bytes", Value::Bytes(work.memory_bytes()))
        .with("architecture", architecture.name())
        .with("load_address", load_address.map(|address| format!("{address:#x}")))
        .with("modes", by_mode)
        .with("base_digest", header.base.digest.to_hex())
        .with("image_digest", header.image.digest.to_hex())
        .with("seconds", Value::Decimal(watch.seconds()));
    Ok(Screen::warned(fields, warnings))
}

#[allow(clippy::cast_precision_loss, reason = "a percentage, for people")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

pub(super) fn apply(flags: &ApplyFlags) -> Result<Screen> {
    let patch = PatchFile::open(&flags.patch)?;
    let header = *patch.header();
    let old = StoredImage::open(&flags.old)?;
    let progress = bar("applying", header.image.size);
    patch.apply(&old, &flags.output, &mut |bytes| progress.inc(bytes))?;
    drop(progress);
    let fields = Fields::new()
        .with("file", flags.output.display().to_string())
        .with("image_digest", header.image.digest.to_hex())
        .with("image_size", Value::Bytes(header.image.size))
        .with("base_digest", header.base.digest.to_hex())
        .with("base_size", Value::Bytes(header.base.size))
        .with("decoder_memory_bytes", Value::Bytes(header.memory_bytes().into()));
    Ok(fields.into())
}
