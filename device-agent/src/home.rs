//! The data folder, opened: the medium, and what it says about this device.
//!
//! The daemon holds it for as long as it runs, a command for a moment if no daemon runs; never two at once.

use core::time::Duration;
use std::path::PathBuf;

use tracing::{error, info, warn};
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::slot::Slot;
use whimbrel_engine::storage::{PatchOptions, Storage, StorageOptions, StoreAnswer};
use whimbrel_engine::{Accepts, Finding, Inventory, StartError};
use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::device::{InstallOp, Record, Stage, StoreOp, Trial};
use whimbrel_protocol::message::{FailureCode, State};

use crate::config::{Config, StorageConfig};
use crate::disk::FileDisk;
use crate::error::AgentError;
use crate::hooks::{Edge, HookContext, Hooks, Moment, Verdict};
use crate::identity::{self, load_root};
use crate::local_trust::{Folder, check_path, check_way};

/// The data folder as a medium, with the boot loader beside it.
pub type Medium = Storage<FileDisk, EnvironmentBoot>;

/// An opened data folder.
#[derive(Debug)]
pub struct Home {
    /// The agent's settings.
    pub config: Config,
    /// The medium.
    pub storage: Medium,
}

/// How long somebody may hold the folder who only does something quickly, in steps of [`LOCK_PAUSE`].
pub const LOCK_TRIES: u32 = 50;
/// How long to wait before looking again whether the folder is free.
pub const LOCK_PAUSE: Duration = Duration::from_millis(100);

impl Home {
    /// Opens and locks the folder, which is made if there is none.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn open(config: Config) -> Result<Self, AgentError> {
        let (mode, buffer_bytes) = (config.install.patch, config.install.patch_buffer_bytes);
        let patch = PatchOptions { mode, buffer_bytes, ..PatchOptions::default() };
        let options = StorageOptions { patch, ..StorageOptions::default() };
        let storage = start(&config.storage, options)?;
        Ok(Self { config, storage })
    }

    /// Reads what a session starts from, and pins the trust anchor if none is pinned.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn inventory(&mut self) -> Result<Inventory, AgentError> {
        let device = &self.config.device;
        let accepts = Accepts { vendor: device.vendor, class: device.class, signatures: self.accept() };
        let anchor = |pinned: &[u8]| load_root(&device.root, pinned);
        let inventory =
            Inventory::take(&mut self.storage, &accepts, anchor).map_err(|error| match error {
                StartError::Storage(error) => self.failure(error.into()),
                StartError::Anchor(error) => error.into(),
                StartError::Record => self.record_failure(),
            })?;
        for finding in &inventory.findings {
            match finding {
                Finding::RecordDamaged => {
                    error!("the device's record is damaged: versions seen before are forgotten");
                }
                Finding::RootPinned { version } => info!(version, "root pinned"),
                Finding::EnvelopeUnreadable { slot } => {
                    let slot = slot_name(*slot);
                    error!(slot, "the envelope of a slot cannot be read: what is in the slot is not known");
                }
                Finding::NotConfirmed { slot } => {
                    let slot = slot_name(*slot);
                    warn!(
                        slot,
                        "nobody has confirmed what runs: no update begins until it is committed or rolled back"
                    );
                }
                Finding::EnvelopeRefused { slot, error } => {
                    warn!(slot = slot_name(*slot), reason = %error, "a slot's envelope does not count");
                }
            }
        }
        Ok(inventory)
    }

    /// The file that is `slot`.
    #[must_use]
    pub fn slot_file(&mut self, slot: Slot) -> PathBuf {
        self.storage.disk_mut().path(slot.area())
    }

    /// Runs the hooks of `Installing_Enter` for an installation by hand.
    pub fn ask_hooks(&mut self) -> impl Future<Output = Verdict> + Send + use<> {
        let slot = self.storage.target();
        let context = HookContext {
            device: self.config.device.id.clone(),
            campaign: None,
            release: None,
            slot: (slot_name(slot), self.slot_file(slot)),
            reason: Some("local"),
            goes_back: false,
        };
        let hooks = Hooks::new(&self.config.hooks);
        let moment = Moment { state: State::Installing, edge: Edge::Enter };
        async move { hooks.run(moment, &context).await.verdict }
    }

    /// Which signatures on releases count.
    #[must_use]
    pub fn accept(&self) -> Accept {
        if self.config.download.accept_es256 { Accept::WITH_ES256 } else { Accept::STRICT }
    }

    /// Saves the record durably.
    ///
    /// # Errors
    /// [`AgentError::Storage`] with the file if the medium did not do it, else [`AgentError::Record`].
    pub fn save(&mut self, record: &Record) -> Result<(), AgentError> {
        match self.storage.carry_out(StoreOp::SaveRecord(record.encode())) {
            StoreAnswer::Stored(Ok(())) => Ok(()),
            _ => Err(self.record_failure()),
        }
    }

    fn record_failure(&mut self) -> AgentError {
        self.failure(AgentError::Record { path: self.config.storage.data.clone() })
    }

    /// Makes the running trial permanent.
    ///
    /// # Errors
    /// [`AgentError`] if the boot control does not do it.
    pub fn confirm(&mut self) -> Result<(), AgentError> {
        self.boot_control(InstallOp::Confirm)
    }

    /// Enters into the record that the trial is given up, for `reason`: the session that starts next does it.
    /// An armed trial is disarmed here, since it does not run in any session.
    ///
    /// The record says so before the boot environment does: after a power cut between the two the trial starts,
    /// and is given up then.
    ///
    /// # Errors
    /// [`AgentError`] if the medium does not do it.
    pub fn give_up(&mut self, inventory: &mut Inventory, reason: FailureCode) -> Result<(), AgentError> {
        let deployment = inventory.record.deployment.as_mut().filter(|known| known.stage != Stage::Fetching);
        let known = deployment.is_some();
        if let Some(deployment) = deployment {
            deployment.stage = Stage::Reverting(reason);
            self.save(&inventory.record)?;
        }
        if inventory.boot.trial == Trial::Armed || !known { self.disarm() } else { Ok(()) }
    }

    /// Makes the old image the next to start.
    ///
    /// # Errors
    /// [`AgentError`] if the boot control does not do it.
    pub fn disarm(&mut self) -> Result<(), AgentError> {
        self.boot_control(InstallOp::Revert)
    }

    fn boot_control(&mut self, op: InstallOp) -> Result<(), AgentError> {
        let result = self.storage.install(op);
        result.map_err(|_| self.failure(AgentError::Boot { path: self.config.storage.data.clone() }))
    }

    /// What the file system said, or `other` if it said nothing.
    pub(crate) fn failure(&mut self, other: AgentError) -> AgentError {
        match self.storage.disk_mut().take_error() {
            Some(error) => AgentError::Folder(error.into()),
            None => other,
        }
    }
}

/// The one place where a medium and its boot control come together.
fn start(config: &StorageConfig, options: StorageOptions) -> Result<Medium, AgentError> {
    Ok(Storage::start(FileDisk::open(&config.data)?, EnvironmentBoot::new(), options)?)
}

/// Looks whether the folders and files that `config` names are safe from others, and whether every hook can run. Makes
/// and changes nothing.
///
/// # Errors
/// [`AgentError`]: the first thing that is wrong.
pub fn check(config: &Config) -> Result<(), AgentError> {
    match Folder::open(&config.storage.data) {
        Err(error) if error.is_missing() => check_way(&config.storage.data)?,
        data => drop(data?),
    }
    identity::check(&config.device, &config.storage.data)?;
    config.broker.password_file.as_deref().map_or(Ok(()), check_path)?;
    Ok(Hooks::new(&config.hooks).check()?)
}

/// Takes the boot loader's step on the medium, and gives the file of the slot to start. Needs nothing
/// else: a wrong key or trust anchor keeps no device from starting.
///
/// # Errors
/// [`AgentError::Storage`].
pub fn boot(config: &StorageConfig) -> Result<PathBuf, AgentError> {
    let mut storage = start(config, StorageOptions::default())?;
    let slot = storage.boot()?;
    Ok(storage.disk_mut().path(slot.area()))
}

/// `a` or `b`.
#[must_use]
pub const fn slot_name(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "a",
        Slot::B => "b",
    }
}
