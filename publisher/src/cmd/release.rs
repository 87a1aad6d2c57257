//! `whimbrel release`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use whimbrel_api::{Release, ReleaseState, routes};
use whimbrel_protocol::ids::{Digest, KeyId};
use whimbrel_protocol::manifest::version_text;
use whimbrel_protocol::trust::Role;

use super::key::warn_if_open;
use super::table::{short, table};
use super::{Context, Progress, Screen, bar, warn_of};
use crate::cli::{AttachFlags, ReleaseCommand, TbsFlags};
use crate::files::{self, Existing, Secrecy};
use crate::keys;
use crate::output::{Fields, Value, plain};
use crate::release::{
    self, ReleaseError, ReleaseFolder, Signed, StoredImage, images_of, payload_file, read_payload,
};
use crate::service::Client;
use crate::units::grouped;

pub(super) fn run(context: &Context, command: ReleaseCommand) -> Result<Screen> {
    match command {
        ReleaseCommand::Build(flags) => super::build::run(context, flags),
        ReleaseCommand::Diff(flags) => super::patch::diff(&flags),
        ReleaseCommand::Apply(flags) => super::patch::apply(&flags),
        ReleaseCommand::Sign { release, keys, root } => sign(context, &release, keys, root.as_deref()),
        ReleaseCommand::Tbs(flags) => tbs(&flags),
        ReleaseCommand::Attach(flags) => attach(context, &flags),
        ReleaseCommand::Verify { release, root, bases } => verify(context, &release, root.as_deref(), &bases),
        ReleaseCommand::Publish { release } => publish(context, &release),
        ReleaseCommand::List => list(context),
        ReleaseCommand::Bases(flags) => super::bases::run(context, &flags),
        ReleaseCommand::Inspect(flags) => super::inspect::run(context, &flags),
    }
}

fn sign(context: &Context, path: &Path, flags: Vec<PathBuf>, root: Option<&Path>) -> Result<Screen> {
    let files = if flags.is_empty() { context.config()?.release_keys } else { flags };
    if files.is_empty() {
        bail!("no key is named: give --key FILE, or `release-keys` in [publisher]");
    }
    let mut release = ReleaseFolder::open(path)?;
    let secrets = files.iter().map(|file| keys::read_private(file)).collect::<Result<Vec<_>, _>>()?;
    files.iter().for_each(|file| warn_if_open(file));
    if let Some((root_path, root)) = context.root(root)? {
        for (file, secret) in files.iter().zip(&secrets) {
            release::check_signer(file, &secret.public(), &root_path, &root)?;
        }
    }
    let signed = release::sign_into(&mut release, &secrets)?;
    signed_screen(&release, &signed)
}

/// Shows whoever signs what was signed.
fn signed_screen(release: &ReleaseFolder, signed: &[Signed]) -> Result<Screen> {
    let manifest = release.manifest()?;
    let images = manifest.images().into_iter().map(|image| image.digest.to_hex().into());
    let keys = signed.iter().map(|signed| {
        let done = if signed.already { "had signed before" } else { "signed" };
        Value::Fields(Fields::new().with("key_id", signed.key.to_hex()).with("result", done))
    });
    let fields = Fields::new()
        .with("file", release.path.display().to_string())
        .with("release", manifest.digest().to_hex())
        .with("version", manifest.version().map(version_text))
        .with("sequence", Value::Count(manifest.sequence_number()))
        .with("class_id", manifest.class().map(|id| id.to_hex()))
        .with("image_digests", images.collect::<Vec<Value>>())
        .with("keys", keys.collect::<Vec<_>>())
        .with("signatures", release.envelope.blocks().map_or(0, |blocks| blocks.len()));
    Ok(fields.into())
}

fn tbs(flags: &TbsFlags) -> Result<Screen> {
    let release = ReleaseFolder::open(&flags.release)?;
    let manifest = release.manifest()?;
    let bytes = release
        .envelope
        .authentication_tbs(flags.alg.into())
        .map_err(|source| ReleaseError::Envelope { path: release.path.clone(), source })?;
    files::write(&flags.output, &bytes, Secrecy::Public, Existing::Refuse)?;
    let fields = Fields::new()
        .with("file", flags.output.display().to_string())
        .with("algorithm", keys::algorithm_name(flags.alg.into()))
        .with("size", Value::Bytes(bytes.len() as u64))
        .with("sha256", Digest::of(&bytes).to_hex())
        .with("release", manifest.digest().to_hex())
        .with("version", manifest.version().map(version_text))
        .with("sequence", Value::Count(manifest.sequence_number()));
    Ok(fields.into())
}

fn attach(context: &Context, flags: &AttachFlags) -> Result<Screen> {
    let mut release = ReleaseFolder::open(&flags.release)?;
    let key = match (&flags.public_key, &flags.key_id) {
        (Some(file), _) => keys::read_public(file)?,
        (None, Some(id)) => {
            let id = parse_key_id(id)?;
            let (path, root) = context.required_root(flags.root.as_deref())?;
            let mut known = root.role(Role::Release).keys.iter();
            known.find(|key| key.id() == id).cloned().ok_or(ReleaseError::NoSuchKey { root: path, id })?
        }
        (None, None) => bail!("no key is named: give --public-key FILE or --key-id HEX"),
    };
    if let (Some(file), Some((root_path, root))) = (&flags.public_key, context.root(flags.root.as_deref())?) {
        release::check_signer(file, &key, &root_path, &root)?;
    }
    let bytes = files::read(&flags.signature, "a signature", SIGNATURE_FILE_BYTES_MAX)?;
    let signature = release::parse_signature(key.algorithm(), &bytes)
        .with_context(|| flags.signature.display().to_string())?;
    let signed = release::attach(&mut release, &key, &signature, &flags.signature)?;
    signed_screen(&release, &[signed])
}

/// Most bytes of a signature's file.
const SIGNATURE_FILE_BYTES_MAX: u64 = 1024;

fn parse_key_id(text: &str) -> Result<KeyId> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(KeyId).with_context(|| {
        format!("--key-id `{text}` is not 8 hexadecimal digits, as `whimbrel key show` prints them")
    })
}

fn verify(context: &Context, path: &Path, root: Option<&Path>, bases: &[PathBuf]) -> Result<Screen> {
    let release = ReleaseFolder::open(path)?;
    let (root_path, root) = context.required_root(root)?;
    let bases = bases.iter().map(|base| StoredImage::open(base)).collect::<Result<Vec<_>, _>>()?;
    let payloads = images_of(&release.manifest()?);
    for base in &bases {
        if !payloads.iter().any(|(_, payload)| payload.base == Some(base.id())) {
            bail!("{}: no patch starts from {}", release.path.display(), base.name());
        }
    }
    let size = payloads.iter().map(|(image, _)| image.size).sum();
    let progress = bar("checking", size);
    let found = release::verify(&release, &root, &bases, &mut |bytes| progress.inc(bytes))?;
    drop(progress);
    let images = found.images.iter().map(|checked| {
        let mut fields = Fields::new()
            .with("payload", payload_file(&checked.payload.transfer.index_digest))
            .with("codec", checked.payload.transfer.codec.name())
            .with("transfer_size", Value::Bytes(checked.payload.transfer.layout.transfer_size()))
            .with("index", "right");
        if let Some(base) = checked.payload.base {
            fields.add("base_digest", base.digest.to_hex());
        }
        Value::Fields(
            fields
                .with("image_digest", checked.image.digest.to_hex())
                .with("image_size", Value::Bytes(checked.image.size))
                .with("image", if checked.became { "right" } else { "not checked: --base names its base" }),
        )
    });
    let fields = Fields::new()
        .with("verified", true)
        .with("file", release.path.display().to_string())
        .with("root", root_path.display().to_string())
        .with("root_version", Value::Count(root.version))
        .with("release", found.manifest.digest().to_hex())
        .with("version", found.manifest.version().map(version_text))
        .with("sequence", Value::Count(found.manifest.sequence_number()))
        .with("signed_by", found.signed_by.iter().map(|id| id.to_hex().into()).collect::<Vec<Value>>())
        .with("threshold", found.threshold)
        .with("images", images.collect::<Vec<_>>());
    Ok(fields.into())
}

fn publish(context: &Context, path: &Path) -> Result<Screen> {
    let client = context.client()?;
    let release = ReleaseFolder::open(path)?;
    let manifest = release.manifest()?;
    if release.envelope.blocks().is_ok_and(|blocks| blocks.is_empty()) {
        bail!(
            "{}: nobody has signed this release: `whimbrel release sign {}` does",
            release.path.display(),
            path.display()
        );
    }
    let mut stored = client.post_release(release.envelope.bytes())?;
    if stored.release != manifest.digest().to_hex() {
        return Err(client.wrong("it named another release than the one that was sent".into()).into());
    }
    let mut sent = 0;
    if !stored.missing.is_empty() {
        for missing in &stored.missing {
            sent += upload(&client, &release, &missing.index_digest)?;
        }
        // The envelope is sent once more, because the answer says what the service has by now.
        stored = client.post_release(release.envelope.bytes())?;
    }
    if stored.state != ReleaseState::Complete {
        bail!("the service still lacks {} payloads of {}", stored.missing.len(), release.path.display());
    }
    warn_of(&stored.warnings);
    let warnings = stored.warnings.iter().map(|warning| {
        let fields = Fields::new().with("kind", warning.kind.name());
        Value::Fields(fields.with("devices", warning.devices).with("text", warning.text.as_str()))
    });
    let warnings: Vec<Value> = warnings.collect();
    let fields = Fields::new()
        .with("release", stored.release)
        .with("version", manifest.version().map(version_text))
        .with("sequence", Value::Count(manifest.sequence_number()))
        .with("state", stored.state.name())
        .with("sent", Value::Bytes(sent));
    let path = plain(&path.display().to_string());
    let screen = Screen { human: fields.human(), json: fields.with("warnings", warnings).json() };
    Ok(screen.and(&format!("\nNext: whimbrel campaign create --release {path} --group all")))
}

fn list(context: &Context) -> Result<Screen> {
    let client = context.client()?;
    let _waiting = Progress::open_ended("waiting for the service");
    let mut releases: Vec<Release> = client.get(routes::RELEASES)?;
    releases.sort_by(|one, other| (&one.class, one.sequence).cmp(&(&other.class, other.sequence)));
    let rows = releases.iter().map(|release| {
        [
            short(&release.release),
            release.version.clone(),
            release.sequence.to_string(),
            short(&release.class),
            grouped(release.image_size),
            release.state.to_string(),
            release.missing.len().to_string(),
        ]
    });
    let headings = ["RELEASE", "VERSION", "SEQUENCE", "CLASS", "IMAGE BYTES", "STATE", "MISSING"];
    let none = "no releases: `whimbrel release publish` hands one to the service";
    Ok(Screen::of(table(headings, &rows.collect::<Vec<_>>(), none), &releases))
}

/// Checks that the file with this index digest has the right payload, and sends it. Returns its size.
fn upload(client: &Client, release: &ReleaseFolder, index_digest: &str) -> Result<u64> {
    let manifest = release.manifest()?;
    let known = images_of(&manifest)
        .into_iter()
        .find(|(_, payload)| payload.transfer.index_digest.to_hex() == index_digest);
    let (image, payload) = known.ok_or_else(|| {
        client.wrong(format!("it lacks payload {index_digest}, which the release does not name"))
    })?;
    let path = release.payload_path(&payload.transfer.index_digest);
    let bytes = read_payload(&path, image, &payload)?;
    let progress = bar("sending", bytes.len() as u64);
    client.put_payload(index_digest, &bytes, &mut |sent| progress.inc(sent))?;
    drop(progress);
    Ok(bytes.len() as u64)
}
