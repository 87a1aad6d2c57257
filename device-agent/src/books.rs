//! Closes the books where no daemon runs: what became of a deployment is entered into the record, with its signed
//! report, by the same session that a daemon would start. The report goes out when a daemon runs again.

use whimbrel_engine::storage::StoreAnswer;
use whimbrel_protocol::device::{DeviceSession, Output, StoreOp};
use whimbrel_protocol::ids::OpId;

use crate::clock::Clock;
use crate::daemon::{random, session_config};
use crate::error::AgentError;
use crate::home::Home;
use crate::identity::load_or_make_key;

/// Rounds of saving; the end of a deployment takes one.
const ROUNDS_MAX: usize = 8;

/// Lets a session see how things are, and saves what it concludes. Nothing else that it wants is done.
///
/// # Errors
/// [`AgentError`] where the medium does not do it.
pub(crate) fn close(home: &mut Home) -> Result<(), AgentError> {
    let survey = home.survey()?;
    if survey.record.deployment.is_none() {
        return Ok(());
    }
    let key = load_or_make_key(&home.config.device.key)?;
    let config = session_config(&home.config, &key, random()?);
    let clock = Clock::start();
    let (now, today) = (clock.now(), clock.today());
    let mut session = DeviceSession::new(config, survey.root, survey.boot, survey.record, None, now, today);
    for _ in 0..ROUNDS_MAX {
        let saves: Vec<(OpId, Vec<u8>)> = core::iter::from_fn(|| session.poll_output())
            .filter_map(|output| match output {
                Output::Store(op, StoreOp::SaveRecord(bytes)) => Some((op, bytes)),
                _ => None,
            })
            .collect();
        if saves.is_empty() {
            break;
        }
        for (op, bytes) in saves {
            let answer = home.storage.carry_out(StoreOp::SaveRecord(bytes));
            if answer != StoreAnswer::Stored(Ok(())) {
                let path = home.config.data.clone();
                return Err(home.failure(AgentError::Record { path }));
            }
            session.handle_input(clock.now(), answer.as_input(op));
        }
    }
    Ok(())
}
