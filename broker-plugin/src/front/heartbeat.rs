//! Wakes the router, and notices when it is dead.
//!
//! Two faults of the router make this thread necessary. When a connection has gone, its number stays in the
//! router's queue of work; when it comes to the head, the router may go to sleep with work ready behind it, until
//! the next event of any link. A beat every 10 ms is that event. And when the router's thread has panicked,
//! sockets are still accepted and nothing is ever delivered: a process in that state must end, so that
//! whatever supervises it starts it again.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread::{self, JoinHandle};

use rumqttd::local::{LinkError, LinkRx};
use rumqttd::protocol::{Packet, PingReq};
use whimbrel_settings::daemon::log;

use super::error::FrontError;
use super::link::{Link, RouterHandle, is_pong};
use crate::clock;

/// How the router died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterDeath {
    /// Its thread has ended.
    Stopped,
    /// It has not answered for this many beats of 10 ms.
    Silent {
        /// Beats without an answer.
        beats: u32,
    },
}

impl fmt::Display for RouterDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the MQTT router has stopped"),
            Self::Silent { beats } => {
                write!(f, "the MQTT router has not answered for {beats} beats of 10 ms")
            }
        }
    }
}

/// What to do when the router is dead: called once, on the heartbeat's thread.
pub type OnRouterDeath = Box<dyn FnOnce(RouterDeath) + Send>;

/// Ends the process with a message and exit status 70 (EX_SOFTWARE of sysexits.h): nothing can be served any more.
pub fn end_process(death: RouterDeath) {
    tracing::error!(reason = %death, "router is dead");
    log::say(&format!("whimbreld: {death}; nothing can be served any more, ending with status 70"));
    std::process::exit(70);
}

/// The thread. Dropping it stops it.
pub(crate) struct Heartbeat {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts beating on a link of its own.
    pub(crate) fn start(router: &RouterHandle, on_death: OnRouterDeath) -> Result<Self, FrontError> {
        let (link, rx) = router.link(".heartbeat")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("mqtt-heartbeat".to_owned())
            .spawn(move || {
                if let Err(death) = beat(link, rx, || stopped.load(Ordering::Relaxed)) {
                    on_death(death);
                }
            })
            .map_err(|source| FrontError::Start { what: "the heartbeat thread", source })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Beats until it is told to stop, which is asked before every beat. Never blocks on the router: a router that hangs must be noticed too.
fn beat(
    mut link: Link,
    mut rx: LinkRx,
    mut is_told_to_stop: impl FnMut() -> bool,
) -> Result<(), RouterDeath> {
    // Beats are counted, not time: a process that was frozen for a while has a router that was frozen with it.
    let mut unanswered = 0;
    for beat in 0u64.. {
        if is_told_to_stop() {
            break;
        }
        if beat % BEATS_PER_PING == 0 {
            link.queue([Packet::PingReq(PingReq)]);
        }
        match link.try_notify() {
            Ok(true) => {}
            Ok(false) => link.forget_queued(), // Full of events: the router is awake.
            Err(_) => return Err(RouterDeath::Stopped),
        }
        unanswered += 1;
        if unanswered >= BEATS_SILENT {
            return Err(RouterDeath::Silent { beats: unanswered });
        }
        if wait_for_pong(&mut rx)? {
            unanswered = 0;
        }
    }
    Ok(())
}

/// Waits for one beat; true when the router has answered in it.
fn wait_for_pong(rx: &mut LinkRx) -> Result<bool, RouterDeath> {
    let next_beat = clock::now() + BEAT;
    let mut answered = false;
    loop {
        match rx.recv_deadline(next_beat) {
            Ok(Some(notification)) => answered |= is_pong(notification),
            Ok(None) => {}
            Err(LinkError::RecvTimeout(flume::RecvTimeoutError::Timeout)) => return Ok(answered),
            Err(_) => return Err(RouterDeath::Stopped),
        }
    }
}

/// Time between beats; costs about 1 % of a core.
const BEAT: Duration = Duration::from_millis(10);
/// The router is asked for an answer at every 100th beat, each second.
const BEATS_PER_PING: u64 = 100;
/// A router that has not answered for this many beats, 60 s, is dead.
const BEATS_SILENT: u32 = 6_000;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rumqttd::protocol::{Disconnect, DisconnectReasonCode};

    use super::*;
    use crate::front::FrontConfig;

    /// What the door never does: a `Ready` from a link that has disconnected itself.
    fn kill(router: &RouterHandle) {
        let (mut link, mut rx) = router.link(".assassin").unwrap();
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        link.queue([Packet::Disconnect(Disconnect { reason_code }, None)]);
        link.notify().unwrap();
        while rx.recv().is_ok() {}
        rx.ready().unwrap();
    }

    #[test]
    fn a_living_router_is_not_taken_for_dead() {
        let router = RouterHandle::start(FrontConfig::default().router()).unwrap();
        let (link, rx) = router.link(".heartbeat").unwrap();
        // As many beats as it takes to ask twice, and some more.
        let mut beats = 0;
        let enough = || {
            beats += 1;
            beats > BEATS_PER_PING + 20
        };
        assert_eq!(beat(link, rx, enough), Ok(()));
    }

    #[test]
    fn a_dead_router_is_noticed_once() {
        let router = RouterHandle::start(FrontConfig::default().router()).unwrap();
        let (tell, told) = mpsc::channel();
        let heartbeat = Heartbeat::start(&router, Box::new(move |death| tell.send(death).unwrap())).unwrap();
        kill(&router);
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(RouterDeath::Stopped));
        drop(heartbeat);
        assert!(told.recv().is_err());
    }

    #[test]
    fn a_stopped_heartbeat_reports_no_death() {
        let router = RouterHandle::start(FrontConfig::default().router()).unwrap();
        let (tell, told) = mpsc::channel();
        let heartbeat = Heartbeat::start(&router, Box::new(move |death| tell.send(death).unwrap())).unwrap();
        drop(heartbeat);
        assert!(told.recv().is_err());
    }
}
