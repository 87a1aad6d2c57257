//! Keys, a release and a service that rolls it out: what an operator does by hand, in one go.

use core::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use serde::Deserialize;
use sha2::Sha256;
use whimbrel_api::{Campaign, CampaignOrder, Imported, routes};
use whimbrel_protocol::chunk::{ChunkSalt, Index};
use whimbrel_protocol::codec::Writer;
use whimbrel_protocol::cose::{Algorithm, SigningKey};
use whimbrel_protocol::ids::{ClassId, Digest, VendorId};
use whimbrel_protocol::manifest::TransferDescriptor;
use whimbrel_protocol::time::UnixTime;
use whimbrel_publisher::patch::PatchOptions;
use whimbrel_publisher::release::{BuildOptions, CodecChoice, ImageSet, StoredImage, UnsignedRelease};
use whimbrel_publisher::service::Client;
use whimbrel_publisher::{files, init, release};

use super::device::{FleetFacts, device_id, device_key};
use super::seen::PayloadFacts;
use super::start::{StartOptions, Starting};
use crate::broker::BrokerAddress;
use crate::child::{Child, ChildOptions, own_command};
use crate::disk::Originals;
use crate::report::PayloadKind;
use crate::seed::Seed;

/// What to roll out, to whom.
#[derive(Clone, Debug)]
pub struct RolloutOptions {
    /// The image.
    pub image: Bytes,
    /// Devices of the fleet.
    pub devices: u32,
    /// What they run before; nothing where nothing is said.
    pub start: Option<StartOptions>,
    /// Everything is drawn from this.
    pub seed: Seed,
    /// A broker for the service to attach to; without it the service brings its own.
    pub broker: Option<BrokerAddress>,
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

const VENDOR: &str = "fleet.example";
const CLASS: &str = "virtual-device";
const GROUP: &str = "all";
/// How long the service may take to be ready, and to end.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);

impl Rollout {
    /// Makes everything and starts the campaign.
    ///
    /// # Errors
    /// What failed, where; nothing is left behind.
    pub async fn start(options: RolloutOptions, today: UnixTime) -> anyhow::Result<Self> {
        // First, so that a wrong address is told at once.
        let elsewhere = match &options.broker {
            Some(broker) => Some(broker.find().await.with_context(|| format!("no broker at {broker}"))?),
            None => None,
        };
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let made = init::create(&folder.path().join("whimbrel"), Algorithm::Ed25519, today)?;
        let home = folder.path().join("whimbrel");
        let release = build(&options, folder.path())?;
        let signed = sign(&home, &release)?;
        let root_bytes = files::read(&home.join("root.cbor"), "root", 4096)?;
        configure(&home, options.broker.as_ref())?;
        let (service, ready) = start_service(&home).await?;
        let broker = elsewhere.or(ready.mqtt).context("the service has no broker of its own")?;
        let image = release.images.first().context("a release has an image")?;
        let full = Part::of(image.digest, &image.transfer, &image.payload, PayloadKind::Full);
        let patch = image.patches.first();
        let patch =
            patch.map(|patch| Part::of(image.digest, &patch.transfer, &patch.payload, PayloadKind::Patch));
        let originals = |factory: &Bytes, part: &Part| Originals {
            factory: factory.clone(),
            image: options.image.clone(),
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
            prefix: whimbrel_protocol::ids::Prefix::default(),
            originals: originals(&Bytes::new(), &full),
            starting,
            payloads: parts.iter().map(|part| part.facts).collect(),
            mean_time_between_losses_s: options.mean_time_between_losses_s,
            message_bytes: None,
            seed: options.seed,
        };
        let fleet = enrolment_csv(&facts, options.devices);
        let (devices, spread_s, token) = (options.devices, options.spread_s, home.join("admin.token"));
        let digest = release.envelope.claimed_digest().to_hex();
        let patch_bytes = parts.iter().find(|part| part.facts.kind == PayloadKind::Patch);
        let patch_bytes = patch_bytes.map(|patch| patch.facts.layout.transfer_size());
        tokio::task::spawn_blocking(move || {
            let client = Client::new(&ready.admin.to_string(), &token)?;
            client.post_release(&signed)?;
            for part in &parts {
                client.put_payload(&part.index_digest.to_string(), &part.bytes, &mut |_| {})?;
            }
            let imported: Imported =
                client.post_bytes(routes::DEVICES_IMPORT, "text/csv", fleet.as_bytes())?;
            anyhow::ensure!(
                imported.imported == u64::from(devices),
                "{} in place of {devices} devices",
                imported.imported
            );
            let order = CampaignOrder {
                release: digest,
                group: GROUP.to_owned(),
                spread_s,
                ..CampaignOrder::default()
            };
            let _campaign: Campaign = client.post(routes::CAMPAIGNS, &order)?;
            Ok(())
        })
        .await
        .context("the operator's part did not end")??;
        Ok(Self {
            service,
            broker,
            facts,
            image_sha256: <Sha256 as sha2::Digest>::digest(&options.image).into(),
            image_bytes: options.image.len() as u64,
            transfer_bytes: full.facts.layout.transfer_size(),
            patch_bytes,
            folder,
        })
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
struct Part {
    facts: PayloadFacts,
    index_digest: Digest,
    bytes: Bytes,
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

fn build(what: &RolloutOptions, folder: &Path) -> anyhow::Result<UnsignedRelease> {
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
        version: vec![1, 0, 0],
        sequence: 1,
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
    let key = files::read(&home.join("keys/release.cose"), "key", 256)?;
    let key = SigningKey::decode_file(&key)?;
    let mut envelope = release.envelope.clone();
    release::sign(&mut envelope, &key)?;
    Ok(envelope.bytes().to_vec())
}

/// Lets the system choose the ports, and sets the broker.
fn configure(home: &Path, broker: Option<&BrokerAddress>) -> anyhow::Result<()> {
    let path = home.join("whimbrel.toml");
    let listen = match broker {
        None => "listen = \"127.0.0.1:0\"\nopen = true\n".to_owned(),
        Some(broker) => {
            let mut lines = format!("connect = \"mqtt://{}:{}\"\n", broker.host, broker.port);
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
         campaign-key = \"keys/campaign.cose\"\nbeacon-key = \"keys/beacon.cose\"\n[broker]\n{listen}"
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

/// The fleet, as `whimbrel device import` takes it.
fn enrolment_csv(facts: &FleetFacts, devices: u32) -> String {
    let mut csv = String::new();
    for number in 0..devices {
        let mut key = Writer::new();
        device_key(facts.seed, number).public().encode(&mut key);
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{},{hex},{},{GROUP}\n", device_id(number), facts.class.to_hex());
        csv.push_str(&line);
    }
    csv
}
