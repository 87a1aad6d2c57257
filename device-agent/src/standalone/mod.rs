//! Installs a release from a folder: no broker, no service, no campaign keys. Only the release keys count.
//!
//! The folder holds what `whimbrel release build` makes: `release.suit` and the payload under its index digest.
//! The payload is checked whole before the first byte is written, goes through the same journal as a download
//! (so that the stick finishes what the link began, and the other way round), and the image is read back and
//! compared like any other.

mod error;
mod payload;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

pub use error::InstallError;
use tracing::info;
use whimbrel_engine::Inventory;
use whimbrel_engine::storage::StoreAnswer;
use whimbrel_protocol::chunk::ChunkSet;
use whimbrel_protocol::device::{
    Checkpoint, Deployment, InstallFailure, InstallOp, Opening, Place, Record, Stage, StoreFailure, StoreOp,
    Trial,
};
use whimbrel_protocol::envelope::{Envelope, Verified};
use whimbrel_protocol::ids::{CampaignId, ChunkIndex, Digest};
use whimbrel_protocol::limits::ENVELOPE_BYTES_MAX;
use whimbrel_protocol::manifest::{Codec, FetchPlan, Identity, Interpreter, Procedure, Step, version_text};
use whimbrel_protocol::message::{CampaignState, Order, Policy};
use whimbrel_protocol::time::UnixTime;

use crate::error::AgentError;
use crate::home::Home;
use crate::hooks::{Hooks, Verdict};
use payload::Payload;

/// What became of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The image is in its slot and starts with the next reboot.
    Armed {
        /// The release's version.
        version: Option<String>,
        /// Bytes of the patch that it was made from; none where it was the full payload.
        patch_bytes: Option<u64>,
    },
    /// The device runs this release already.
    Running,
}

/// Installs the release in `folder` and arms its trial. `ask` runs the hooks of `Installing_Enter`.
///
/// # Errors
/// [`AgentError::Install`], [`AgentError::Storage`]; what was written stays for the next try, and the device
/// boots what it booted before.
pub fn install(
    home: &mut Home,
    inventory: &mut Inventory,
    folder: &Path,
    ask: impl FnOnce() -> Verdict,
) -> Result<Installed, AgentError> {
    if !home.config.install.standalone {
        return Err(InstallError::Off.into());
    }
    if matches!(inventory.boot.trial, Trial::Armed | Trial::Running) {
        return Err(InstallError::OnTrial.into());
    }
    Hooks::new(&home.config.hooks).check()?;
    let envelope = read_envelope(home, inventory, &folder.join("release.suit"))?;
    if inventory.boot.running.release == Some(envelope.digest()) {
        return Ok(Installed::Running);
    }
    check_sequence(inventory, &envelope)?;
    let mut run = Run { home, inventory, folder, envelope: &envelope, verified: None, patch_bytes: None };
    let image_size = run.execute(ask)?;
    let patch_bytes = run.patch_bytes;
    arm(home, inventory, &envelope, image_size)?;
    Ok(Installed::Armed { version: envelope.manifest().version().map(version_text), patch_bytes })
}

pub(crate) fn read_envelope(
    home: &Home,
    inventory: &Inventory,
    path: &Path,
) -> Result<Envelope<Verified>, InstallError> {
    let failed = |error| InstallError::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    // One byte more than allowed, so that the envelope's own check says what is wrong.
    file.take(ENVELOPE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Envelope::decode(&bytes)
        .and_then(|envelope| envelope.verify(&inventory.root, home.accept()))
        .map_err(|error| InstallError::Envelope { path: path.to_owned(), error })
}

fn check_sequence(inventory: &Inventory, envelope: &Envelope<Verified>) -> Result<(), InstallError> {
    let got = envelope.manifest().sequence_number();
    let floor = inventory.boot.running.sequence.max(inventory.record.min_sequence);
    if got < floor { Err(InstallError::Rollback { got, floor }) } else { Ok(()) }
}

/// A manifest that is being executed.
struct Run<'a> {
    home: &'a mut Home,
    inventory: &'a Inventory,
    folder: &'a Path,
    envelope: &'a Envelope<Verified>,
    /// What was installed and read back, so that it is not hashed once more.
    verified: Option<(Digest, u64)>,
    /// Bytes of the patch that gave the image, if one did.
    patch_bytes: Option<u64>,
}

impl Run<'_> {
    /// Runs the manifest to its end; gives the image's size.
    fn execute(&mut self, ask: impl FnOnce() -> Verdict) -> Result<u64, AgentError> {
        let device = &self.home.config.device;
        let target_slot = self.inventory.boot.target_slot;
        let identity = Identity { vendor: device.vendor, class: device.class, target_slot };
        let mut ask = Some(ask);
        for procedure in [Procedure::Update, Procedure::Invoke] {
            let mut interpreter =
                Interpreter::new(self.envelope, &identity, procedure).map_err(InstallError::from)?;
            loop {
                match interpreter.step().map_err(InstallError::from)? {
                    Step::ImageMatch { component, digest, size, negate } => {
                        let equal = self.matches(Place::of(component), digest, size)?;
                        interpreter.answer(equal != negate);
                    }
                    Step::Fetch(plan) => {
                        self.fetch(&plan, &mut ask)?;
                        interpreter.answer(true);
                    }
                    Step::Done { invoke } => {
                        if procedure == Procedure::Invoke && !invoke {
                            return Err(InstallError::NotStarted.into());
                        }
                        break;
                    }
                }
            }
        }
        self.verified.map(|(_, size)| size).ok_or_else(|| InstallError::NotStarted.into())
    }

    fn matches(&mut self, place: Place, image: Digest, size: u64) -> Result<bool, AgentError> {
        if place == Place::Target && self.verified == Some((image, size)) {
            return Ok(true);
        }
        match self.home.storage.install(InstallOp::Match { place, image, size }) {
            Ok(()) => {
                if place == Place::Target {
                    self.verified = Some((image, size));
                }
                Ok(true)
            }
            Err(InstallFailure::Mismatch) => Ok(false),
            Err(_) => Err(self.failed("reading the slot")),
        }
    }

    /// Brings the payload onto the medium and makes the image of it. A patch that is not there, does not apply or wants
    /// too much memory counts as fetched: the match behind it fails, and the manifest goes on to the next way.
    fn fetch(
        &mut self,
        plan: &FetchPlan,
        ask: &mut Option<impl FnOnce() -> Verdict>,
    ) -> Result<(), AgentError> {
        let running = &self.inventory.boot.running;
        let sequence = self.envelope.manifest().sequence_number();
        if sequence == running.sequence && sequence > 0 && running.image != Some(plan.image_digest) {
            return Err(InstallError::Equivocation { sequence }.into());
        }
        let is_patch = plan.transfer.codec == Codec::Patch;
        let payload = match self.payload(plan) {
            Ok(payload) => payload,
            Err(error) if is_patch => {
                info!(reason = %error, "patch not used");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match ask.take().map_or(Verdict::Good, |ask| ask()) {
            Verdict::Good => {}
            Verdict::Later => return Err(InstallError::Hook("asks to wait: try again later").into()),
            Verdict::Bad => return Err(InstallError::Hook("refuses").into()),
        }
        let opening = Opening {
            envelope: self.envelope.bytes().to_vec(),
            release: self.envelope.digest(),
            sequence,
            image: plan.image_digest,
            image_size: plan.image_size,
            transfer: plan.transfer,
            base: plan.base,
        };
        let found = match self.home.storage.carry_out(StoreOp::Open(Box::new(opening))) {
            StoreAnswer::Opened(Ok(found)) => found,
            StoreAnswer::Opened(Err(StoreFailure::NoRoom)) => return Err(self.no_room()),
            _ => return Err(self.failed("making room")),
        };
        self.write_payload(&payload, found.held)?;
        match self.home.storage.install(InstallOp::Install) {
            Ok(()) => {
                self.verified = Some((plan.image_digest, plan.image_size));
                self.patch_bytes = is_patch.then(|| plan.transfer.layout.transfer_size());
                Ok(())
            }
            Err(InstallFailure::Decode | InstallFailure::Mismatch) if is_patch => {
                info!(reason = "it does not give the image", "patch not used");
                Ok(())
            }
            Err(InstallFailure::NoRoom) => Err(self.no_room()),
            Err(InstallFailure::Decode) => Err(self.failed("decoding the payload")),
            Err(InstallFailure::Mismatch) => Err(self.failed("comparing the image with its signed digest")),
            Err(_) => Err(self.failed("writing the image")),
        }
    }

    /// The payload's file, where it is what was signed and this device can decode it.
    fn payload(&self, plan: &FetchPlan) -> Result<Payload, InstallError> {
        let need = plan.transfer.decoder.map_or(0, |decoder| u64::from(decoder.memory_bytes));
        let limit = self.home.config.download.decoder_memory_bytes_max;
        if need > limit {
            return Err(InstallError::Memory { need, limit });
        }
        Payload::check(self.folder, plan)
    }

    /// Writes the index and the chunks that are missing.
    fn write_payload(&mut self, payload: &Payload, mut held: ChunkSet) -> Result<(), AgentError> {
        for (page, bytes) in payload.pages_by_number() {
            self.store(StoreOp::WritePage { page, bytes })?;
        }
        let missing: Vec<u32> = held.missing_in(0..payload.layout.chunk_count()).collect();
        for chunk in missing.into_iter().map(ChunkIndex) {
            let bytes = payload.chunk(chunk)?;
            self.store(StoreOp::WriteChunks { first: chunk, bytes })?;
            held.insert(chunk);
        }
        self.store(StoreOp::SaveCheckpoint(Checkpoint::of(&held)))
    }

    fn store(&mut self, op: StoreOp) -> Result<(), AgentError> {
        match self.home.storage.carry_out(op) {
            StoreAnswer::Stored(Ok(())) => Ok(()),
            StoreAnswer::Stored(Err(StoreFailure::NoRoom)) => Err(self.no_room()),
            _ => Err(self.failed("writing the payload")),
        }
    }

    fn no_room(&mut self) -> AgentError {
        let path = self.home.config.storage.data.clone();
        self.home.failure(InstallError::NoRoom { path }.into())
    }

    fn failed(&mut self, what: &'static str) -> AgentError {
        let path = self.home.config.storage.data.clone();
        self.home.failure(InstallError::Failed { what, path }.into())
    }
}

/// Enters the installation into the record and arms the trial, each durable before the next.
fn arm(
    home: &mut Home,
    inventory: &mut Inventory,
    envelope: &Envelope<Verified>,
    image_size: u64,
) -> Result<(), AgentError> {
    let begun = inventory.record.deployment.take();
    let mut deployment =
        begun.filter(|known| known.order.release == envelope.digest()).unwrap_or_else(|| {
            let order = local_order(home, &inventory.record, envelope, image_size);
            Deployment::new(order, Stage::Installed)
        });
    deployment.stage = Stage::Installed;
    inventory.record.deployment = Some(deployment.clone());
    home.save(&inventory.record)?;
    if home.storage.install(InstallOp::Activate).is_err() {
        let path = home.config.storage.data.clone();
        return Err(home.failure(AgentError::Boot { path }));
    }
    (deployment.stage, deployment.arms) = (Stage::Armed, 1);
    inventory.record.deployment = Some(deployment);
    home.save(&inventory.record)
}

/// What stands for an order where nobody ordered: the campaign of all zeros, and an attempt for each time.
fn local_order(home: &Home, record: &Record, envelope: &Envelope<Verified>, image_size: u64) -> Order {
    let campaign = CampaignId::default();
    let before = record.outcomes.iter().find(|past| past.campaign == campaign);
    Order {
        campaign,
        attempt: before.map_or(1, |past| past.attempt + 1),
        state: CampaignState::Active,
        release: envelope.digest(),
        sequence: envelope.manifest().sequence_number(),
        envelope_size: envelope.bytes().len() as u64,
        image_size,
        min_sequence: 0,
        class: home.config.device.class,
        not_before: UnixTime::from_secs(0),
        spread_s: 0,
        policy: Policy::Forced,
        priority: 0,
    }
}
