//! The shell around the two machines: one task that owns the link, the store's handle and the operators' channel.
//!
//! [`Fleet`] decides, [`Serving`] moves bytes; this task feeds both and carries out what they put out. Everything that
//! waits happens elsewhere and comes back as an input. A second link would be a second [`Serving`] beside the first,
//! fed with the same [`serving::Input::Changed`], [`serving::Input::Publish`] and [`serving::Input::ReportStored`].
//!
//! | file | holds |
//! |---|---|
//! | `effects` | what the machines put out, carried out |
//! | `events` | what they tell, logged and counted |
//! | `pace` | when messages are taken in again, so that many are taken in together |
//! | `requests` | what operators want, and the status of the service |
//! | `doubt` | what is done about a clock, or a database, that cannot be believed |

mod doubt;
mod effects;
mod events;
mod pace;
mod requests;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until};
use whimbrel_protocol::time::{Instant, UnixTime};

pub(crate) use requests::Request;

use pace::Pace;

use crate::access::Membership;
use crate::attach::{BrokerLink, LinkError, LinkEvent};
use crate::clock::Clock;
use crate::clock_guard::ClockDoubt;
use crate::fleet::{self, Fleet};
use crate::metrics::Counters;
use crate::serving::{self, Serving};
use crate::signing::Authority;
use crate::store::{Payloads, SignedMark, Snapshot, StoreHandle};
use crate::store_guard::StoreDoubt;

/// What the service is made of, but for its link.
pub(crate) struct Parts {
    pub(crate) fleet: fleet::Settings,
    pub(crate) serving: serving::Settings,
    pub(crate) authority: Arc<Authority>,
    pub(crate) snapshot: Snapshot,
    pub(crate) store: StoreHandle,
    pub(crate) payloads: Arc<dyn Payloads>,
    pub(crate) membership: Membership,
    pub(crate) counters: Arc<Counters>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) stop: oneshot::Receiver<()>,
    /// Where signing, storing and reading happen.
    pub(crate) elsewhere: Handle,
    /// Seed of jitter.
    pub(crate) seed: u64,
    pub(crate) clock: Clock,
    /// Why the database is not believed.
    pub(crate) store_doubt: Option<StoreDoubt>,
    pub(crate) mark: Arc<SignedMark>,
}

/// The service.
pub(crate) struct Service<L> {
    link: L,
    clock: Clock,
    /// Why the clock is not believed, as the fleet was told.
    doubt: Option<ClockDoubt>,
    /// Why the database is not believed.
    store_doubt: Option<StoreDoubt>,
    mark: Arc<SignedMark>,
    now: Instant,
    today: UnixTime,
    pace: Pace,
    fleet: Fleet,
    serving: Serving,
    /// What the two machines tell each other, until the one that tells has nothing more to put out.
    for_fleet: VecDeque<fleet::Input>,
    for_serving: VecDeque<serving::Input<'static>>,
    authority: Arc<Authority>,
    store: StoreHandle,
    payloads: Arc<dyn Payloads>,
    membership: Membership,
    counters: Arc<Counters>,
    requests: mpsc::Receiver<Request>,
    stop: oneshot::Receiver<()>,
    results: mpsc::UnboundedReceiver<Done>,
    done: mpsc::UnboundedSender<Done>,
    elsewhere: Handle,
}

/// Something that was done elsewhere. As many are on the way as jobs are, and those have limits.
enum Done {
    Fleet(fleet::Input),
    Serving(serving::Input<'static>),
    /// An operator's word about the database is stored, or is not.
    StoreAccepted(doubt::Accepting),
}

enum Wake {
    Link(LinkEvent),
    Request(Request),
    Done(Done),
    Flushed,
    Timer,
    Stop,
}

/// Messages of devices that are taken in before the answers go out.
const BATCH_MESSAGES: usize = 64;

impl<L: BrokerLink> Service<L> {
    /// The service as it was when it stopped, or a new one.
    pub(crate) fn new(link: L, parts: Parts) -> Self {
        let mut snapshot = parts.snapshot;
        let clock = parts.clock;
        let (now, today) = (clock.now(), clock.today());
        snapshot.payloads.retain(|row| {
            let held = parts.payloads.holds(row);
            if !held {
                tracing::error!(payload = %row.index, "stored payload damaged, upload it again");
            }
            held
        });
        let mut link = link;
        for device in &snapshot.devices {
            link.device_is(&device.id, device.assignment());
        }
        let (done, results) = mpsc::unbounded_channel();
        let root = parts.authority.root().clone();
        let mut service = Self {
            link,
            clock,
            doubt: None,
            store_doubt: parts.store_doubt,
            mark: parts.mark,
            now,
            today,
            pace: Pace::default(),
            fleet: Fleet::restore(parts.fleet, root, snapshot, now),
            serving: Serving::new(parts.serving, Arc::clone(&parts.counters), parts.seed, now),
            for_fleet: VecDeque::new(),
            for_serving: VecDeque::new(),
            authority: parts.authority,
            store: parts.store,
            payloads: parts.payloads,
            membership: parts.membership,
            counters: parts.counters,
            requests: parts.requests,
            stop: parts.stop,
            results,
            done,
            elsewhere: parts.elsewhere,
        };
        service.settle();
        service.tell_of_clock();
        service.tell_of_store();
        service
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// [`LinkError`] if the broker is gone for good.
    pub(crate) async fn run(mut self) -> Result<(), LinkError> {
        loop {
            let wake = self.wake().await?;
            (self.now, self.today) = (self.clock.now(), self.clock.today());
            self.tell_of_clock();
            match wake {
                Wake::Stop => return self.finish().await,
                Wake::Link(event) => self.link_event(event),
                Wake::Request(request) => self.request(request),
                Wake::Done(done) => self.done(done),
                Wake::Flushed => self.serve(serving::Input::Flushed),
                Wake::Timer => {}
            }
            let all = self.take_in_what_came().await?;
            self.pace.turned(self.now, all);
            if self.fleet.poll_timeout() <= self.now {
                self.decide(fleet::Input::Timeout);
            }
            self.serve(serving::Input::Timeout);
            if let Some(flushed) = already(self.link.flush()).await {
                flushed?;
                self.serve(serving::Input::Flushed);
            }
        }
    }

    /// Waits for something to happen. While the broker is behind, no messages are taken in.
    async fn wake(&mut self) -> Result<Wake, LinkError> {
        let timer = self.fleet.poll_timeout().min(self.serving.poll_timeout());
        let timer = sleep_until(self.clock.timer(timer));
        let queued = self.serving.queued() > 0;
        let paced = (!queued).then(|| sleep_until(self.clock.timer(self.pace.not_before())));
        let wake = tokio::select! {
            biased;
            _ = &mut self.stop => Wake::Stop,
            Some(done) = self.results.recv() => Wake::Done(done),
            request = self.requests.recv() => request.map_or(Wake::Stop, Wake::Request),
            event = move_on(&mut self.link, paced) => event?.map_or(Wake::Flushed, Wake::Link),
            () = timer => Wake::Timer,
        };
        Ok(wake)
    }

    /// Takes in what has come already, up to a limit, so that one flush does for all of it. `true`: it was all.
    async fn take_in_what_came(&mut self) -> Result<bool, LinkError> {
        while self.serving.has_room()
            && let Ok(done) = self.results.try_recv()
        {
            self.done(done);
        }
        for _ in 0..BATCH_MESSAGES {
            if !self.serving.has_room() {
                break;
            }
            match already(self.link.next()).await {
                Some(event) => self.link_event(event?),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Message(message) => self.serve(serving::Input::Message(&message)),
            // The link itself logs both, because only it knows which has been said already.
            LinkEvent::Up => self.serve(serving::Input::Up),
            LinkEvent::Down { .. } => self.serve(serving::Input::Down),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Fleet(input) => self.decide(input),
            Done::Serving(input) => self.serve(input),
            Done::StoreAccepted(accepting) => self.store_accepted(accepting),
        }
    }

    /// Stops: what is not stored yet is handed over, what is queued goes out. The store finishes by itself.
    async fn finish(mut self) -> Result<(), LinkError> {
        self.decide(fleet::Input::Stop);
        self.link.flush().await
    }
}

/// Goes on with whatever the link is to do next: hands over what is queued (`None`), else waits until it is time for
/// messages, and then for an event.
async fn move_on<L: BrokerLink>(link: &mut L, paced: Option<Sleep>) -> Result<Option<LinkEvent>, LinkError> {
    let Some(paced) = paced else {
        link.flush().await?;
        return Ok(None);
    };
    paced.await;
    link.next().await.map(Some)
}

/// What a future that can be dropped gives right now; `None` if it would have to wait.
async fn already<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}
