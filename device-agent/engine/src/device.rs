//! A whole device: what it decides, and its medium.

use alloc::vec::Vec;

use whimbrel_protocol::cose::Accept;
use whimbrel_protocol::device::{DeviceSession, SessionConfig};
use whimbrel_protocol::disk::Disk;
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::trust::Root;

use crate::boot::{BootControl, EnvironmentBoot};
use crate::controller::{Controller, Effect, Input, Output};
use crate::inventory::{Accepts, Inventory, StartError};
use crate::storage::{Done, Job, Storage};

/// A device on its medium. What it wants of the medium is done while its outputs are polled.
#[derive(Debug)]
pub struct Device<D, B = EnvironmentBoot> {
    controller: Controller,
    storage: Storage<D, B>,
    now: Instant,
}

impl<D: Disk, B: BootControl> Device<D, B> {
    /// Starts a device: takes the [`Inventory`] of its medium, and begins a session with it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start<E>(
        mut storage: Storage<D, B>,
        config: SessionConfig,
        anchor: impl FnOnce(&[u8]) -> Result<(Root, Vec<u8>), E>,
        now: Instant,
        today: UnixTime,
    ) -> Result<Self, StartError<E>> {
        let controller = begin(&mut storage, config, anchor, now, today)?;
        Ok(Self { controller, storage, now })
    }

    /// Starts it anew, as [`Output::Reboot`] asks for, on hosts that take the boot loader's step themselves.
    ///
    /// # Errors
    /// [`StartError`]; the device is then as it was, and only good for another try.
    pub fn restart<E>(
        &mut self,
        config: SessionConfig,
        anchor: impl FnOnce(&[u8]) -> Result<(Root, Vec<u8>), E>,
        now: Instant,
        today: UnixTime,
    ) -> Result<(), StartError<E>> {
        self.storage.boot()?;
        self.controller = begin(&mut self.storage, config, anchor, now, today)?;
        self.now = now;
        Ok(())
    }

    /// Tells the device what happened.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        self.now = self.now.max(now);
        self.controller.handle_input(self.now, input);
    }

    /// The next thing that the host is to do; `None` if there is nothing. Does what there is to do on the medium
    /// before it.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            match self.poll_effect()? {
                Effect::Host(output) => return Some(output),
                Effect::Work(job) => drop(self.carry_out(job)),
            }
        }
    }

    /// When to feed [`Input::Timeout`], if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.controller.poll_timeout()
    }

    /// As [`Device::poll_output`], for hosts that want to see each job: the next thing to do. A job is for
    /// [`Device::carry_out`].
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.controller.poll_effect()
    }

    /// Does a job, tells the session, and shows what became of it.
    pub fn carry_out(&mut self, job: Job) -> Done {
        let done = self.storage.work(job);
        self.controller.handle_input(self.now, Input::Done(&done));
        done
    }

    /// The session, to look at.
    #[must_use]
    pub fn session(&self) -> &DeviceSession {
        self.controller.session()
    }

    /// The medium and what is known of it.
    #[must_use]
    pub fn storage(&self) -> &Storage<D, B> {
        &self.storage
    }

    /// The medium and what is known of it.
    pub fn storage_mut(&mut self) -> &mut Storage<D, B> {
        &mut self.storage
    }
}

fn begin<D: Disk, B: BootControl, E>(
    storage: &mut Storage<D, B>,
    config: SessionConfig,
    anchor: impl FnOnce(&[u8]) -> Result<(Root, Vec<u8>), E>,
    now: Instant,
    today: UnixTime,
) -> Result<Controller, StartError<E>> {
    let signatures = if config.accept_es256 { Accept::WITH_ES256 } else { Accept::STRICT };
    let accepts = Accepts { vendor: config.vendor, class: config.class, signatures };
    let inventory = Inventory::take(storage, &accepts, anchor)?;
    Ok(Controller::new(inventory, config, now, today))
}
