//! Enters what became of a deployment into the record if no daemon runs.
//!
//! The session that does it is the one that a daemon would start. Its signed report is kept in the record, and sent when
//! a daemon runs again.

use whimbrel_engine::{Controller, Effect, Input, Job};
use whimbrel_protocol::device::StoreOp;

use crate::clock::Clock;
use crate::daemon::{random, session_config};
use crate::error::AgentError;
use crate::home::Home;
use crate::identity::load_or_make_key;

/// Lets a session see what the medium holds, and saves what it concludes. Nothing else that it wants is done.
///
/// # Errors
/// [`AgentError`] if the medium does not do it.
pub(crate) fn record(home: &mut Home) -> Result<(), AgentError> {
    let mut inventory = home.inventory()?;
    // A manifest that waits for its download is the next daemon's to execute.
    inventory.envelope = None;
    if inventory.record.deployment.is_none() {
        return Ok(());
    }
    let key = load_or_make_key(&home.config.device.key)?;
    let config = session_config(&home.config, &key, random()?);
    let clock = Clock::start();
    let mut controller = Controller::new(inventory, config, clock.now(), clock.today());
    while let Some(effect) = controller.poll_effect() {
        let Effect::Work(job @ Job::Store(_, StoreOp::SaveRecord(_))) = effect else {
            continue;
        };
        let done = home.storage.work(job);
        if done.is_failure() {
            let path = home.config.storage.data.clone();
            return Err(home.failure(AgentError::Record { path }));
        }
        controller.handle_input(clock.now(), Input::Done(&done));
    }
    Ok(())
}
