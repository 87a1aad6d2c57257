//! Keys, a release and a service that rolls it out: what an operator does by hand, in one go.

use alloc::sync::Arc;
use core::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use serde::Deserialize;
use sha2::Sha256;
use whimbrel_api::{Status, routes};
use whimbrel_protocol::chunk::{ChunkSalt, Index};
use whimbrel_protocol::cose::{Algorithm, SigningKey};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::TransferDescriptor;
use whimbrel_protocol::time::UnixTime;
use whimbrel_publisher::patch::PatchOptions;
use whimbrel_publisher::release::{BuildOptions, CodecChoice, ImageSet, StoredImage, UnsignedRelease};
use whimbrel_publisher::{files, init, release};

use super::device::{FleetFacts, device_id};
use super::guest::Guest;
use super::operator::Operator;
use super::seen::PayloadFacts;
use super::start::{StartOptions, Starting};
use crate::child::{Child, ChildOptions, own_command};
use crate::disk::Originals;
use crate::report::PayloadKind;
use crate::seed::Seed;
use crate::swarm::Identity;

/// What to roll out, to whom.
#[derive(Clone, Debug)]
pub struct RolloutOptions {
    /// The image.
    pub image: Bytes,
    /// Devices of the fleet.
    pub devices: u32,
    /// Devices that the service knows, from the first one of the fleet on: all in the campaign's group.
    pub registered: u32,
    /// Lines of `[limits]` for the service's configuration.
    pub limits: String,
    /// What they run before; nothing where nothing is said.
    pub start: Option<StartOptions>,
    /// Everything is drawn from this.
    pub seed: Seed,
    /// A broker for the service to attach to, and its names there; without it the service brings its own.
    pub guest: Option<Arc<Guest>>,
    /// How long the devices' links usually hold, in seconds.
    pub mean_time_between_losses_s: u64,
    /// Spread of the campaign, in seconds.
    pub spread_s: u64,
}

/// A service that rolls a release out, in a folder of its own that is gone with this value.
#[derive(Debug)]
pub struct Rollout {
    /// The service.
    pub service: Child,
    /// Where devices connect.
    pub broker: SocketAddr,
    /// What the devices know from the start.
    pub facts: FleetFacts,
    /// SHA-256 of the image, hashed apart from everything that made the release.
    pub image_sha256: [u8; 32],
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes of the full payload.
    pub transfer_bytes: u64,
    /// Bytes of the patch from what the devices run, where there is one.
    pub patch_bytes: Option<u64>,
    /// What the service had resident before and after the devices were registered.
    pub registration_rss_bytes: (u64, u64),
    operator: Operator,
    options: RolloutOptions,
    folder: tempfile::TempDir,
}

/// The line that the service prints when it serves.
#[derive(Debug, Deserialize)]
pub struct ServiceReady {
    /// Where devices connect; none where the service is attached to another broker.
    pub mqtt: Option<SocketAddr>,
    /// The admin API.
    pub admin: SocketAddr,
}

/// The maker of all virtual devices.
pub const VENDOR: &str = "fleet.example";
/// Their hardware.
pub const CLASS: &str = "virtual-device";
/// The group of the fleet.
pub(super) const GROUP: &str = "all";
/// How long the service may take to be ready, and to end.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);

impl Rollout {
    /// How a device shows itself to the broker.
    #[must_use]
    pub fn identity(&self, number: u32) -> Identity {
        let guest = self.options.guest.as_deref();
        let client_id = guest.map_or_else(|| device_id(number).to_string(), |guest| guest.client_id(number));
        Identity { client_id, login: guest.and_then(|guest| guest.broker.login.clone()) }
    }

    /// Makes everything and starts the campaign.
    ///
    /// # Errors
    /// What failed, where; nothing is left behind.
    pub async fn start(options: RolloutOptions, today: UnixTime) -> anyhow::Result<Self> {
        // First, so that a wrong address is told at once.
        let elsewhere = match options.guest.as_ref().map(|guest| &guest.broker) {
            Some(broker) => Some(broker.find().await.with_context(|| format!("no broker at {broker}"))?),
            None => None,
        };
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let made = init::create(&folder.path().join("whimbrel"), Algorithm::Ed25519, today)?;
        let home = folder.path().join("whimbrel");
        let release = build(&options, folder.path(), 1)?;
        let signed = sign(&home, &release)?;
        let root_bytes = files::read(&home.join("root.cbor"), "root", 4096)?;
        configure(&home, &options)?;
        if let Some(guest) = &options.guest {
            guest.starts();
        }
        let (service, ready) = start_service(&home).await?;
        let broker = elsewhere.or(ready.mqtt).context("the service has no broker of its own")?;
        let image = release.images.first().context("a release has an image")?;
        let full = Part::of(image.digest, &image.transfer, &image.payload, PayloadKind::Full);
        let patch = image.patches.first();
        let patch =
            patch.map(|patch| Part::of(image.digest, &patch.transfer, &patch.payload, PayloadKind::Patch));
        let image_bytes = options.image.clone();
        let originals = |factory: &Bytes, part: &Part| Originals {
            factory: factory.clone(),
            image: image_bytes.clone(),
            transfer: part.bytes.clone(),
            index: part.index.clone(),
        };
        let starting = options.start.as_ref().map(|start| {
            // Without a patch that is worth it all devices get the full payload, whatever they run.
            let patched = originals(&start.base, patch.as_ref().unwrap_or(&full));
            Starting::new(start, options.devices, options.seed, patched)
        });
        let parts: Vec<Part> = patch.into_iter().chain([full.clone()]).collect();
        let vendor = VendorId::from_domain(VENDOR);
        let facts = FleetFacts {
            root: made.root,
            root_bytes,
            vendor,
            class: ClassId::from_name(vendor, CLASS),
            prefix: options.guest.as_ref().map(|guest| guest.prefix.clone()).unwrap_or_default(),
            originals: originals(&Bytes::new(), &full),
            starting,
            payloads: parts.iter().map(|part| part.facts).collect(),
            mean_time_between_losses_s: options.mean_time_between_losses_s,
            message_bytes: None,
            seed: options.seed,
        };
        let patch_bytes = parts.iter().find(|part| part.facts.kind == PayloadKind::Patch);
        let patch_bytes = patch_bytes.map(|patch| patch.facts.layout.transfer_size());
        let operator =
            Operator { address: ready.admin.to_string(), token: home.join("admin.token"), group: GROUP };
        operator.publish(signed, parts).await?;
        let before = service.usage()?.rss_bytes;
        operator.import(&facts, options.registered).await?;
        let registration_rss_bytes = (before, service.usage()?.rss_bytes);
        operator.order(release.envelope.claimed_digest().to_hex(), options.spread_s).await?;
        Ok(Self {
            service,
            broker,
            facts,
            image_sha256: <Sha256 as sha2::Digest>::digest(&options.image).into(),
            image_bytes: options.image.len() as u64,
            transfer_bytes: full.facts.layout.transfer_size(),
            patch_bytes,
            registration_rss_bytes,
            operator,
            options,
            folder,
        })
    }

    /// Publishes one more release, with this image and sequence number, and orders it for the fleet.
    ///
    /// # Errors
    /// What failed, where.
    pub async fn next_release(&self, image: Bytes, sequence: u64) -> anyhow::Result<()> {
        let options = RolloutOptions { image, start: None, ..self.options.clone() };
        let release = build(&options, self.folder.path(), sequence)?;
        let signed = sign(&self.home(), &release)?;
        let image = release.images.first().context("a release has an image")?;
        let full = Part::of(image.digest, &image.transfer, &image.payload, PayloadKind::Full);
        self.operator.publish(signed, vec![full]).await?;
        self.operator.order(release.envelope.claimed_digest().to_hex(), options.spread_s).await
    }

    /// What the service has counted.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn status(&self) -> anyhow::Result<Status> {
        self.operator.ask(|client| Ok(client.get(routes::STATUS)?)).await
    }

    /// Where the service's keys and settings are.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("whimbrel")
    }

    /// Bytes that the fleet of so many devices has to fetch.
    #[must_use]
    pub fn total_bytes(&self, devices: u32) -> u64 {
        let starting = self.facts.starting.as_ref();
        let (by_patch, patch_bytes) = match (starting, self.patch_bytes) {
            (Some(starting), Some(bytes)) => (starting.by_patch(), bytes),
            _ => (0, 0),
        };
        u64::from(by_patch) * patch_bytes + u64::from(devices.saturating_sub(by_patch)) * self.transfer_bytes
    }

    /// Stops the service and removes its folder.
    ///
    /// # Errors
    /// Where either does not go.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.service.stop().await?;
        self.folder.close().context("cannot remove the temporary folder")
    }
}

/// A payload with its index.
#[derive(Clone, Debug)]
pub(super) struct Part {
    facts: PayloadFacts,
    pub(super) index_digest: Digest,
    pub(super) bytes: Bytes,
    index: Bytes,
}

impl Part {
    fn of(image: Digest, transfer: &TransferDescriptor, bytes: &[u8], kind: PayloadKind) -> Self {
        let (layout, index_digest) = (transfer.layout, transfer.index_digest);
        let salt = ChunkSalt { image, transfer_size: bytes.len() as u64 };
        Self {
            facts: PayloadFacts { tag: transfer.tag(), layout, kind },
            index_digest,
            bytes: Bytes::copy_from_slice(bytes),
            index: Bytes::from(Index::build(salt, layout, bytes).pages),
        }
    }
}

fn build(what: &RolloutOptions, folder: &Path, sequence: u64) -> anyhow::Result<UnsignedRelease> {
    let mut bases = Vec::new();
    if let Some(start) = &what.start {
        let path = folder.join("base.bin");
        std::fs::write(&path, &start.base).with_context(|| format!("cannot write {}", path.display()))?;
        bases.push(StoredImage::open(&path)?);
    }
    let jobs = std::thread::available_parallelism().map_or(1, core::num::NonZero::get);
    let options = BuildOptions {
        images: ImageSet::Any(what.image.to_vec()),
        vendor: VENDOR.to_owned(),
        class: CLASS.to_owned(),
        version: vec![1, 0, i64::try_from(sequence).unwrap_or(i64::MAX)],
        sequence,
        chunk_size: None,
        codec: CodecChoice::Auto,
        dictionary_bytes: 1 << 20,
        description: None,
        bases,
        patches: PatchOptions { jobs, ..PatchOptions::default() },
    };
    Ok(release::build(options, &mut |_| {})?)
}

/// The envelope, signed and without its text, as a service sends it.
fn sign(home: &Path, release: &UnsignedRelease) -> anyhow::Result<Vec<u8>> {
    let key = files::read(&home.join("offline-keys/release.cose"), "key", 256)?;
    let key = SigningKey::decode_file(&key)?;
    let mut envelope = release.envelope.clone();
    release::sign(&mut envelope, &key)?;
    Ok(envelope.bytes().to_vec())
}

/// Lets the system choose the ports, and sets the broker.
fn configure(home: &Path, options: &RolloutOptions) -> anyhow::Result<()> {
    let path = home.join("whimbrel.toml");
    let guest = options.guest.as_deref();
    let prefix = guest.map(|guest| format!("prefix = \"{}\"\n", guest.prefix)).unwrap_or_default();
    let listen = match guest {
        None => "listen = \"127.0.0.1:0\"\nopen = true\n".to_owned(),
        Some(Guest { broker, service_id, .. }) => {
            let mut lines = format!("connect = \"{broker}\"\nclient-id = {service_id:?}\n");
            if let Some((user, password)) = &broker.login {
                writeln!(lines, "user = {user:?}\npassword-file = \"broker.password\"")?;
                files::write(
                    &home.join("broker.password"),
                    password.as_bytes(),
                    files::Secrecy::Secret,
                    files::Existing::Refuse,
                )?;
            }
            lines
        }
    };
    let text = format!(
        "[service]\ndata = \"data\"\nadmin = \"127.0.0.1:0\"\ntoken-file = \"admin.token\"\nroot = \"root.cbor\"\n\
         campaign-key = \"keys/campaign.cose\"\nbeacon-key = \"keys/beacon.cose\"\n{prefix}[broker]\n{listen}[limits]\n{}",
        options.limits
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

async fn start_service(home: &Path) -> anyhow::Result<(Child, ServiceReady)> {
    let mut command = own_command("service").context("cannot find this program")?;
    command.arg("--config").arg(home.join("whimbrel.toml")).arg("--ready-json");
    let log: PathBuf = home.join("service.log");
    let options =
        ChildOptions { name: "whimbreld", log, ready_within: READY_WITHIN, stop_within: STOP_WITHIN };
    Ok(Child::start(command, options).await?)
}
