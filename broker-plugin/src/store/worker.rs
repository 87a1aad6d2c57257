//! The task that owns the database.
//!
//! Jobs are done in the order in which they came. Those that wait while a commit is being synced are committed
//! together after it: a thousand reports cost a few syncs, not a thousand. If a batch fails, each of its jobs
//! is tried alone, so that a job answers for itself only.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use whimbrel_protocol::ids::{CampaignId, DeviceId};

use super::rows::DeploymentRow;
use crate::metrics::Counters;

use super::{Change, Series, Store, StoreError, TallyRow};

/// What became of a job: for each of its changes whether it changed anything.
pub type Applied = Result<Vec<bool>, Arc<StoreError>>;

type Done = Box<dyn FnOnce(Applied) + Send>;

/// Hands jobs to the store. The store ends when the last handle is gone and everything is done.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    jobs: mpsc::Sender<Job>,
    commits: Arc<AtomicU64>,
}

enum Job {
    Apply { changes: Vec<Change>, done: Done },
    Versions(Vec<Series>, oneshot::Sender<Result<Vec<u64>, StoreError>>),
    Tally(oneshot::Sender<Result<Vec<TallyRow>, StoreError>>),
    Deployments(DeploymentsQuery, oneshot::Sender<Result<Vec<DeploymentRow>, StoreError>>),
}

struct DeploymentsQuery {
    campaign: CampaignId,
    after: Option<DeviceId>,
    limit: u32,
}

/// Jobs that may wait.
const JOBS_MAX: usize = 8192;
/// Jobs committed together.
const BATCH_JOBS_MAX: usize = 512;

impl StoreHandle {
    /// Gives `store` a task of its own. Must be called inside a tokio runtime.
    pub fn start(store: impl Store) -> (Self, JoinHandle<()>) {
        let (jobs, to_do) = mpsc::channel(JOBS_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        (Self { jobs, commits: commits.clone() }, tokio::spawn(work(store, to_do, commits)))
    }

    /// Transactions that were made durable since the start.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Hands over changes without waiting; `done` is called on the store's task. `false` if so many wait
    /// already that this one is not taken.
    #[must_use]
    pub fn submit(&self, changes: Vec<Change>, done: impl FnOnce(Applied) + Send + 'static) -> bool {
        self.jobs.try_send(Job::Apply { changes, done: Box::new(done) }).is_ok()
    }

    /// Applies changes, all or none.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub async fn apply(&self, changes: Vec<Change>) -> Applied {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |applied| {
            let _nobody_waits = tell.send(applied);
        });
        let closed = |_| Arc::new(StoreError::Closed);
        self.jobs.send(Job::Apply { changes, done }).await.map_err(|_| Arc::new(StoreError::Closed))?;
        told.await.map_err(closed)?
    }

    /// The next version of each series, as [`Store::next_versions`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_versions(&self, of: Vec<Series>) -> Result<Vec<u64>, StoreError> {
        let (tell, told) = oneshot::channel();
        self.jobs.send(Job::Versions(of, tell)).await.map_err(|_| StoreError::Closed)?;
        told.await.map_err(|_| StoreError::Closed)?
    }

    /// Counts the deployments of campaigns that were replaced.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tally_replaced(&self) -> Result<Vec<TallyRow>, StoreError> {
        let (tell, told) = oneshot::channel();
        self.jobs.send(Job::Tally(tell)).await.map_err(|_| StoreError::Closed)?;
        told.await.map_err(|_| StoreError::Closed)?
    }

    /// The deployments of a campaign, as [`Store::deployments`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deployments(
        &self,
        campaign: CampaignId,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeploymentRow>, StoreError> {
        let (tell, told) = oneshot::channel();
        let query = DeploymentsQuery { campaign, after, limit };
        self.jobs.send(Job::Deployments(query, tell)).await.map_err(|_| StoreError::Closed)?;
        told.await.map_err(|_| StoreError::Closed)?
    }
}

async fn work(mut store: impl Store, mut to_do: mpsc::Receiver<Job>, commits: Arc<AtomicU64>) {
    let mut jobs = Vec::new();
    while to_do.recv_many(&mut jobs, BATCH_JOBS_MAX).await > 0 {
        let mut batch = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Apply { changes, done } => batch.push((changes, done)),
                Job::Versions(of, tell) => {
                    apply_batch(&mut store, &mut batch, &commits).await;
                    let versions = store.next_versions(&of).await;
                    match &versions {
                        Ok(_) => Counters::count(&commits),
                        Err(error) => tracing::error!(reason = %error, "store failed"),
                    }
                    let _nobody_waits = tell.send(versions);
                }
                Job::Tally(tell) => {
                    apply_batch(&mut store, &mut batch, &commits).await;
                    let _nobody_waits = tell.send(store.tally_replaced().await);
                }
                Job::Deployments(query, tell) => {
                    apply_batch(&mut store, &mut batch, &commits).await;
                    let found = store.deployments(query.campaign, query.after, query.limit).await;
                    let _nobody_waits = tell.send(found);
                }
            }
        }
        apply_batch(&mut store, &mut batch, &commits).await;
    }
    store.close().await;
}

async fn apply_batch(store: &mut impl Store, batch: &mut Vec<(Vec<Change>, Done)>, commits: &AtomicU64) {
    let jobs = core::mem::take(batch);
    if jobs.len() > 1 {
        let all: Vec<Change> = jobs.iter().flat_map(|(changes, _)| changes.iter().cloned()).collect();
        if let Ok(changed) = store.apply(&all).await {
            Counters::count(commits);
            let mut changed = changed.into_iter();
            for (changes, done) in jobs {
                done(Ok(changed.by_ref().take(changes.len()).collect()));
            }
            return;
        }
    }
    for (changes, done) in jobs {
        let applied = store.apply(&changes).await;
        match &applied {
            Ok(_) => Counters::count(commits),
            Err(error) => tracing::error!(reason = %error, "store failed"),
        }
        done(applied.map_err(Arc::new));
    }
}
