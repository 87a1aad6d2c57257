//! The medium's own thread: work that takes long there holds nothing else up.
//!
//! Jobs are done one after the other, in the order in which they are handed over; each gives one answer, so that both
//! queues stay as short as the agent lets them be.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use whimbrel_engine::storage::{Done, Job};

use crate::disk::FileError;
use crate::home::Medium;

/// The thread, which owns the medium while it runs.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
    answers: mpsc::Receiver<Answer>,
    thread: JoinHandle<Medium>,
}

/// A job is done.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) done: Done,
    /// What the file system said, if it failed.
    pub(crate) error: Option<FileError>,
}

/// Jobs that are handed over ahead.
const JOBS_MAX: usize = 16;

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(mut storage: Medium) -> io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_MAX);
        let (sender, answers) = mpsc::channel(JOBS_MAX);
        let thread = std::thread::Builder::new().name("storage".to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                let done = storage.work(job);
                let answer = Answer { done, error: storage.disk_mut().take_error() };
                // Nobody listens any more once the agent ends: what was handed over is still done.
                drop(sender.blocking_send(answer));
            }
            storage
        })?;
        Ok(Self { jobs, answers, thread })
    }

    /// Where jobs go in and answers come out. Both ends close when the thread panics, and only then.
    pub(crate) fn parts(&mut self) -> (&mpsc::Sender<Job>, &mut mpsc::Receiver<Answer>) {
        (&self.jobs, &mut self.answers)
    }

    /// Finishes what was handed over and gives the medium back. `None` if the thread panicked.
    pub(crate) async fn finish(self) -> Option<Medium> {
        let Self { jobs, answers, thread } = self;
        drop(jobs);
        drop(answers);
        tokio::task::spawn_blocking(move || thread.join().ok()).await.ok().flatten()
    }
}
