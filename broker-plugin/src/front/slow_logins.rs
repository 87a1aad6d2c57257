//! Passwords that are slow to check, one after the other.
//!
//! A password that a person chose takes tens of milliseconds and tens of MiB to check, on purpose. If each client could
//! start such a check at once, logins would take the machine. So they wait in a line that has few places, and an address
//! has only some of these. Whoever guesses passwords from one address keeps nobody else waiting for long; from four
//! addresses it fills the line, and a device whose password was not checked before is told to come back.

use alloc::sync::Arc;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::shares::Origin;

/// The line.
#[derive(Debug)]
pub(crate) struct SlowLogins {
    turn: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    by_origin: HashMap<Origin, usize>,
}

/// A place in the line; dropping it frees it.
struct Place<'a> {
    line: &'a SlowLogins,
    origin: Origin,
}

/// Checks that run at the same time.
pub(crate) const AT_ONCE: usize = 1;
/// Clients that may wait.
const WAITING_MAX: usize = 64;
/// Clients of one address that may wait.
const WAITING_MAX_OF_ORIGIN: usize = 16;

impl Default for SlowLogins {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(AT_ONCE)), waiting: Mutex::default() }
    }
}

impl SlowLogins {
    /// Runs `check` on a thread that may wait, when it is its turn; `None` if too many wait already.
    pub(crate) async fn check<T: Send + 'static>(
        &self,
        origin: Origin,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let _place = self.line_up(origin)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await.expect("the semaphore is never closed");
        let checked = tokio::task::spawn_blocking(move || {
            let checked = check();
            // Not before: a client that goes meanwhile does not let the next one in beside this one.
            drop(turn);
            checked
        });
        checked.await.ok()
    }

    fn line_up(&self, origin: Origin) -> Option<Place<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { all, by_origin } = &mut *waiting;
        let of_origin = by_origin.get(&origin).copied().unwrap_or_default();
        if *all >= WAITING_MAX || of_origin >= WAITING_MAX_OF_ORIGIN {
            return None;
        }
        *all += 1;
        by_origin.insert(origin, of_origin + 1);
        Some(Place { line: self, origin })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.all -= 1;
        let of_origin = waiting.by_origin.remove(&self.origin).unwrap_or_default();
        if of_origin > 1 {
            waiting.by_origin.insert(self.origin, of_origin - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, SocketAddr};
    use std::sync::mpsc;

    use super::*;

    fn origin(last: u8) -> Origin {
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 1)).into()
    }

    #[tokio::test]
    async fn who_guesses_passwords_takes_only_some_places_of_the_line() {
        let line = Arc::new(SlowLogins::default());
        let (go_on, wait) = mpsc::channel::<()>();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let slow = Arc::clone(&line);
        let running = tokio::spawn(async move {
            slow.check(origin(1), move || {
                tell.send(()).unwrap();
                wait.recv()
            })
            .await
        });
        told.recv().await.unwrap();
        let guesses: Vec<_> = (1..100).map_while(|_| line.line_up(origin(1))).collect();
        assert_eq!(guesses.len(), WAITING_MAX_OF_ORIGIN - 1);
        assert_eq!(line.check(origin(1), || ()).await, None);
        // Somebody else waits for the one that runs, and for nothing else.
        let other = Arc::clone(&line);
        let other = tokio::spawn(async move { other.check(origin(2), || 7).await });
        go_on.send(()).unwrap();
        assert_eq!(running.await.unwrap(), Some(Ok(())));
        assert_eq!(other.await.unwrap(), Some(7));
        drop(guesses);
        assert_eq!(line.waiting.lock().unwrap().all, 0);
        assert!(line.waiting.lock().unwrap().by_origin.is_empty());
        let many: Vec<_> = (0..=255).filter_map(|last| line.line_up(origin(last))).collect();
        assert_eq!(many.len(), WAITING_MAX);
    }
}
