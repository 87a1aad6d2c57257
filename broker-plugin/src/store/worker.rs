//! The task that owns the database.
//!
//! Jobs are done in the order in which they came. What is submitted waits up to 10 ms for more, and is committed
//! together with it: 300 reports a second cost 100 syncs, and a thousand at once a few. Nothing is acknowledged before
//! its commit is synced. What an operator waits for is done at once, with all that waits before it. If a batch fails,
//! each of its jobs is tried alone, so that a job answers for itself only.

use alloc::sync::Arc;
use core::future::Future;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;
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
    /// Somebody waits for a job: it is not gathered for any longer.
    urgent: Arc<Notify>,
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
/// What is submitted waits this long for more.
const GATHER: Duration = Duration::from_millis(10);

impl StoreHandle {
    /// Gives `store` a task of its own. Must be called inside a tokio runtime.
    pub fn start(store: impl Store) -> (Self, JoinHandle<()>) {
        Self::start_gathering(store, || sleep(GATHER))
    }

    /// The same; what is submitted waits for more until the future that `gather` makes is ready.
    fn start_gathering<G: Future<Output = ()> + Send + 'static>(
        store: impl Store,
        gather: impl Fn() -> G + Send + 'static,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, to_do) = mpsc::channel(JOBS_MAX);
        let (commits, urgent) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let worker = tokio::spawn(work(store, to_do, Arc::clone(&commits), Arc::clone(&urgent), gather));
        (Self { jobs, commits, urgent }, worker)
    }

    /// Transactions that were made durable since the start.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Hands over a job that somebody waits for.
    async fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        self.urgent.notify_one();
        Ok(())
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
        self.send(Job::Apply { changes, done }).await?;
        told.await.map_err(closed)?
    }

    /// The next version of each series, as [`Store::next_versions`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_versions(&self, of: Vec<Series>) -> Result<Vec<u64>, StoreError> {
        let (tell, told) = oneshot::channel();
        self.send(Job::Versions(of, tell)).await?;
        told.await.map_err(|_| StoreError::Closed)?
    }

    /// Counts the deployments of campaigns that were replaced.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tally_replaced(&self) -> Result<Vec<TallyRow>, StoreError> {
        let (tell, told) = oneshot::channel();
        self.send(Job::Tally(tell)).await?;
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
        self.send(Job::Deployments(query, tell)).await?;
        told.await.map_err(|_| StoreError::Closed)?
    }
}

async fn work<G: Future<Output = ()>>(
    mut store: impl Store,
    mut to_do: mpsc::Receiver<Job>,
    commits: Arc<AtomicU64>,
    urgent: Arc<Notify>,
    gather: impl Fn() -> G,
) {
    let mut jobs = Vec::new();
    while to_do.recv_many(&mut jobs, BATCH_JOBS_MAX).await > 0 {
        // One wake-up for all that comes in this time.
        if jobs.len() < BATCH_JOBS_MAX && !to_do.is_closed() {
            tokio::select! {
                () = gather() => {}
                () = urgent.notified() => {}
            }
        }
        while jobs.len() < BATCH_JOBS_MAX
            && let Ok(job) = to_do.try_recv()
        {
            jobs.push(job);
        }
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

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;
    use whimbrel_protocol::time::UnixTime;

    use super::*;
    use crate::store::{MemoryStore, Snapshot};

    /// Counts commits.
    struct Counting(MemoryStore, Arc<AtomicU64>);

    impl Store for Counting {
        async fn load(&mut self) -> Result<Snapshot, StoreError> {
            self.0.load().await
        }

        async fn apply(&mut self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
            let applied = self.0.apply(changes).await;
            self.1.fetch_add(1, Ordering::SeqCst);
            applied
        }

        async fn next_versions(&mut self, of: &[Series]) -> Result<Vec<u64>, StoreError> {
            self.0.next_versions(of).await
        }

        async fn tally_replaced(&mut self) -> Result<Vec<TallyRow>, StoreError> {
            self.0.tally_replaced().await
        }

        async fn deployments(
            &mut self,
            campaign: CampaignId,
            after: Option<DeviceId>,
            limit: u32,
        ) -> Result<Vec<DeploymentRow>, StoreError> {
            self.0.deployments(campaign, after, limit).await
        }

        async fn close(self) {
            self.0.close().await;
        }
    }

    /// A store whose time to gather is over when it gets a permit; and its number of commits.
    struct Rig {
        handle: StoreHandle,
        over: Arc<Semaphore>,
        commits: Arc<AtomicU64>,
        tell: mpsc::UnboundedSender<u64>,
        told: mpsc::UnboundedReceiver<u64>,
    }

    impl Rig {
        fn start() -> Self {
            let (over, commits) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
            let store = Counting(MemoryStore::default(), Arc::clone(&commits));
            let permits = Arc::clone(&over);
            let gather = move || {
                let permits = Arc::clone(&permits);
                async move { permits.acquire().await.unwrap().forget() }
            };
            let (handle, _worker) = StoreHandle::start_gathering(store, gather);
            let (tell, told) = mpsc::unbounded_channel();
            Self { handle, over, commits, tell, told }
        }

        /// A fact; when it is acknowledged, the number of commits so far is told.
        fn submit(&self) {
            let (tell, commits) = (self.tell.clone(), Arc::clone(&self.commits));
            assert!(self.handle.submit(fact(), move |applied| {
                applied.unwrap();
                tell.send(commits.load(Ordering::SeqCst)).unwrap();
            }));
        }
    }

    fn fact() -> Vec<Change> {
        vec![Change::Beacon { version: 1, issued: UnixTime::from_secs(1) }]
    }

    /// Lets every task run until it waits.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn facts_that_come_within_ten_milliseconds_are_one_commit_and_acknowledged_after_it() {
        let mut rig = Rig::start();
        for round in 1..=3 {
            for _ in 0..100 {
                rig.submit();
                settle().await;
            }
            assert!(rig.told.try_recv().is_err(), "acknowledged before it was durable");
            rig.over.add_permits(1);
            for _ in 0..100 {
                assert_eq!(rig.told.recv().await, Some(round));
            }
        }
        assert_eq!(rig.commits.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn what_somebody_waits_for_is_committed_at_once_with_all_before_it() {
        let mut rig = Rig::start();
        rig.submit();
        settle().await;
        rig.submit();
        rig.handle.apply(fact()).await.unwrap();
        assert_eq!((rig.told.recv().await, rig.told.recv().await), (Some(1), Some(1)));
        rig.submit();
        settle().await;
        assert_eq!(rig.handle.tally_replaced().await.unwrap(), []);
        assert_eq!(rig.told.recv().await, Some(2));
    }

    #[tokio::test]
    async fn a_full_batch_waits_for_no_more() {
        let mut rig = Rig::start();
        for _ in 0..BATCH_JOBS_MAX {
            rig.submit();
        }
        assert_eq!(rig.told.recv().await, Some(1));
    }
}
