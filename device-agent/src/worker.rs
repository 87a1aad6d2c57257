//! The medium's own thread: what takes long there holds nothing else up.
//!
//! Operations are carried out one after the other in the order in which they are handed over; each gives one
//! answer, so that both queues stay as short as the agent lets them be.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use whimbrel_engine::storage::{Storage, StoreAnswer};
use whimbrel_protocol::device::{Input, InstallFailure, InstallOp, StoreFailure, StoreOp};
use whimbrel_protocol::ids::OpId;

use crate::disk::{FileDisk, FileError};

/// The thread, with the medium in its hands.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
    answers: mpsc::Receiver<Answer>,
    thread: JoinHandle<Storage<FileDisk>>,
}

/// Something to do.
#[derive(Debug)]
pub(crate) enum Job {
    Store(OpId, StoreOp),
    Install(OpId, InstallOp),
}

/// It is done.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) op: OpId,
    pub(crate) what: Done,
    /// What the file system said, where it failed.
    pub(crate) error: Option<FileError>,
}

#[derive(Debug)]
pub(crate) enum Done {
    Store(StoreAnswer),
    Install(Result<(), InstallFailure>),
}

impl Answer {
    /// The answer as the session takes it.
    pub(crate) fn as_input(&self) -> Input<'_> {
        match &self.what {
            Done::Store(answer) => answer.as_input(self.op),
            Done::Install(result) => Input::Installed { op: self.op, result: *result },
        }
    }

    /// Whether the medium failed.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(
            self.what,
            Done::Store(
                StoreAnswer::Stored(Err(StoreFailure::Failed | StoreFailure::NoRoom))
                    | StoreAnswer::Opened(Err(_))
            ) | Done::Install(Err(InstallFailure::Failed | InstallFailure::NoRoom | InstallFailure::Boot))
        )
    }
}

/// Jobs that are handed over ahead.
const JOBS_MAX: usize = 16;

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start(mut storage: Storage<FileDisk>) -> io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_MAX);
        let (sender, answers) = mpsc::channel(JOBS_MAX);
        let thread = std::thread::Builder::new().name("storage".to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                // Nobody listens any more once the agent ends: what was handed over is still done.
                drop(sender.blocking_send(carry_out(&mut storage, job)));
            }
            storage
        })?;
        Ok(Self { jobs, answers, thread })
    }

    /// Where jobs go in and answers come out. Both ends close when the thread panics, and only then.
    pub(crate) fn parts(&mut self) -> (&mpsc::Sender<Job>, &mut mpsc::Receiver<Answer>) {
        (&self.jobs, &mut self.answers)
    }

    /// Finishes what was handed over and gives the medium back. `None` where the thread panicked.
    pub(crate) async fn finish(self) -> Option<Storage<FileDisk>> {
        let Self { jobs, answers, thread } = self;
        drop(jobs);
        drop(answers);
        tokio::task::spawn_blocking(move || thread.join().ok()).await.ok().flatten()
    }
}

fn carry_out(storage: &mut Storage<FileDisk>, job: Job) -> Answer {
    let (op, what) = match job {
        Job::Store(op, what) => (op, Done::Store(storage.carry_out(what))),
        Job::Install(op, what) => (op, Done::Install(storage.install(what))),
    };
    Answer { op, what, error: storage.disk_mut().take_error() }
}
