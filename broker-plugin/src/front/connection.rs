//! One connection, from the first byte to the last: moves bytes between the socket, the exchange and, where the client
//! uses topics of the application, a link on the router.

use alloc::sync::Arc;
use core::future::Future;
use core::mem::MaybeUninit;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Poll, ready};
use core::time::Duration;

use bytes::{Buf, BytesMut};
use rumqttd::Notification;
use rumqttd::protocol::{Packet, Publish};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use whimbrel_protocol::ids::DeviceId;

use super::Shared;
use super::access::Publishing;
use super::codec::{Codec, Fault, Frame};
use super::config::{CONNECT_BYTES_MAX, READ_BYTES, WRITE_BATCH_BYTES};
use super::conversation::{Conversation, Noticed, Step};
use super::counters::Counters;
use super::end::End;
use super::handshake::{self, Applicant, Guest, Refused, Will};
use super::inbox::FromDevice;
use super::link::Held;
use super::output::Output;
use super::router_link::RouterLink;
use super::seats::{Claim, GivenUp};
use super::waiting::Ticket;
use crate::clock;

/// Serves one socket until it closes or `shutdown` changes. Leaves nothing behind, however it ends: also when
/// this future is dropped, its place in the exchange is given back and its link goes to the reaper.
pub(crate) async fn serve<S>(
    shared: Arc<Shared>,
    mut socket: S,
    peer: SocketAddr,
    ticket: Ticket,
    mut shutdown: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut input = BytesMut::new();
    let seated = tokio::select! {
        seated = let_in(&shared, &mut socket, &mut input, peer, ticket) => seated,
        _ = shutdown.changed() => None,
    };
    let Some(seated) = seated else { return };
    Counters::count(&shared.counters.admitted);
    Counters::count(&shared.counters.connected);
    let device = seated.guest.device.clone();
    let end = converse(&shared, socket, input, seated, shutdown).await;
    if end == End::MadeRoom {
        shared.notices.stranger_made_room(&device, peer);
    }
    tracing::debug!(%device, %peer, reason = ?end, "connection ended");
}

/// A client with a seat.
struct Seated {
    guest: Guest,
    claim: Claim,
    router: RouterLink,
}

/// Reads CONNECT and takes the seat; counts and answers whoever is not let in. As long as that takes, the socket's place
/// in the waiting room may be needed by a newer one.
async fn let_in<S>(
    shared: &Arc<Shared>,
    socket: &mut S,
    input: &mut BytesMut,
    peer: SocketAddr,
    mut ticket: Ticket,
) -> Option<Seated>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        seated = introduce(shared, socket, input, peer) => seated,
        () = ticket.evicted() => {
            Counters::count(&shared.counters.connect_evicted);
            shared.notices.made_room_before_connack(peer);
            None
        }
    }
}

async fn introduce<S>(
    shared: &Arc<Shared>,
    socket: &mut S,
    input: &mut BytesMut,
    peer: SocketAddr,
) -> Option<Seated>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let counters = &shared.counters;
    let frame = match timeout(shared.config.connect_limit, read_connect(socket, input)).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(End::PeerClosed)) => return None,
        Ok(Err(_)) => {
            Counters::count(&counters.refused_protocol);
            return None;
        }
        Err(_) => {
            Counters::count(&counters.connect_timeouts);
            return None;
        }
    };
    let (refused, mut answer) = match handshake::read(frame, peer) {
        Ok(applicant) => match timeout(shared.config.setup_limit, set_up(shared, applicant, peer)).await {
            Ok(Ok(seated)) => return Some(seated),
            Ok(Err(SetupFailed::GivenUp(why))) => {
                if let Some(counter) = End::from(why).counter(counters) {
                    Counters::count(counter);
                }
                return None;
            }
            Ok(Err(SetupFailed::Refused(refused, answer))) => (refused, answer),
            Err(_) => {
                Counters::count(&counters.setup_timeouts);
                return None;
            }
        },
        Err(refusal) => refusal,
    };
    Counters::count(refused.counter(counters));
    tracing::debug!(%peer, reason = ?refused, "client refused");
    let _told = timeout(FAREWELL_LIMIT, write_out(shared, socket, &mut answer)).await;
    None
}

/// Reads until the first packet is whole; it must look like a CONNECT from its first byte on.
async fn read_connect<S: AsyncRead + Unpin>(socket: &mut S, input: &mut BytesMut) -> Result<Frame, End> {
    loop {
        if input.first().is_some_and(|first| *first != 0x10) {
            return Err(Fault::Malformed.into());
        }
        if let Some(frame) = Frame::take(input, CONNECT_BYTES_MAX)? {
            return Ok(frame);
        }
        read_some(socket, input).await?;
    }
}

enum SetupFailed {
    /// The seat was given up before it was sat on.
    GivenUp(GivenUp),
    Refused(Refused, BytesMut),
}

/// Asks whether the client may come in, then takes its seat and a place in the house, in this order: who takes
/// over an old connection gets its place. A
/// will on a topic of the application needs a link on the router before it can be left.
async fn set_up(shared: &Arc<Shared>, applicant: Applicant, peer: SocketAddr) -> Result<Seated, SetupFailed> {
    let admitted = applicant.admit(shared).await;
    let guest = admitted.map_err(|(refused, answer)| SetupFailed::Refused(refused, answer))?;
    let refuse = |refused: Refused, codec: &Codec| {
        let mut answer = BytesMut::new();
        refused.write_connack(codec, &mut answer);
        SetupFailed::Refused(refused, answer)
    };
    let Some(mut claim) = shared.seats.claim(&guest.device, guest.role, peer, &*shared.access) else {
        shared.notices.no_seat(&guest.device, shared.config.devices_max);
        return Err(refuse(Refused::DevicesMax, &guest.codec));
    };
    let seat = claim.take().await.map_err(SetupFailed::GivenUp)?;
    let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
        shared.notices.no_place(&guest.device, shared.config.connections_max);
        return Err(refuse(Refused::Full, &guest.codec));
    };
    // In this order: whoever waits for the seat must find the place free.
    let held: Held = Box::new((place, seat));
    let mut router = RouterLink::none(guest.role.link_id(&guest.device), held);
    let for_router = guest.will.as_ref().is_some_and(|will| will.publishing == Publishing::Application);
    if for_router && router.link(shared).await.is_err() {
        return Err(refuse(Refused::NoLink, &guest.codec));
    }
    Ok(Seated { guest, claim, router })
}

/// The time after CONNACK.
async fn converse<S>(
    shared: &Arc<Shared>,
    socket: S,
    input: BytesMut,
    seated: Seated,
    mut shutdown: watch::Receiver<bool>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Seated { guest, mut claim, router } = seated;
    let Guest { device, role, codec, terms, silence_max, will } = guest;
    let mut output = Output::default();
    handshake::write_welcome(shared, &codec, silence_max, output.packets());
    let client = shared.exchange.enter(&device, role);
    let mut connection = Connection {
        stranger: claim.is_stranger.then(|| device.clone()),
        conversation: Conversation::new(Arc::clone(shared), device, codec, terms, client),
        shared: Arc::clone(shared),
        socket,
        input,
        output,
        router,
        silence_max,
    };
    let end = tokio::select! {
        end = connection.run() => end,
        why = claim.given_up() => why.into(),
        _ = shutdown.changed() => End::ShuttingDown,
    };
    Counters::lower(&shared.counters.connected);
    if let Some(counter) = end.counter(&shared.counters) {
        Counters::count(counter);
    }
    let Connection { conversation, mut socket, mut output, mut router, .. } = connection;
    if let Some(will) = will.filter(|_| end.leaves_will()) {
        leave(shared, will, &mut router).await;
    }
    let codec = conversation.into_codec();
    // First the seat, so that whoever takes over need not wait for this client to listen.
    drop(router);
    if let Some(reason) = end.farewell() {
        codec.write_farewell(reason, output.packets());
        output.seal();
        let _told = timeout(FAREWELL_LIMIT, write_out(shared, &mut socket, &mut output)).await;
    }
    end
}

/// Publishes a will.
async fn leave(shared: &Arc<Shared>, will: Will, router: &mut RouterLink) {
    let Will { publishing, topic, payload } = will;
    let left = match publishing {
        Publishing::Ours => {
            let sent = shared.exchange.inbox().send(FromDevice { topic, payload });
            sent.await.is_ok()
        }
        Publishing::Application => {
            // The link's end hands over what is queued.
            router.queue(Packet::Publish(Publish::new(topic, payload, false), None));
            true
        }
        Publishing::Refused => false,
    };
    if left {
        Counters::count(&shared.counters.wills_published);
    }
}

/// A connection that converses.
struct Connection<S> {
    shared: Arc<Shared>,
    conversation: Conversation,
    socket: S,
    /// What the client has sent and is not a whole packet yet.
    input: BytesMut,
    /// What is to be written.
    output: Output,
    router: RouterLink,
    silence_max: Duration,
    /// The device, if the operator did not know it when it came.
    stranger: Option<DeviceId>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Runs until the connection ends. Reads nothing while it writes, so that a client that does not read is not
    /// served either; and reads nothing while its last message waits for the service.
    async fn run(&mut self) -> End {
        match self.run_to_error().await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn run_to_error(&mut self) -> Result<core::convert::Infallible, End> {
        let outbox = Arc::clone(self.conversation.client().outbox());
        let mut silence = core::pin::pin!(sleep_until(clock::timer_now() + self.silence_max));
        self.flush().await?;
        self.receive().await?; // What came together with CONNECT.
        let mut heard = clock::timer_now();
        loop {
            let has_room = self.conversation.has_room();
            tokio::select! {
                read = read_some(&mut self.socket, &mut self.input) => {
                    let count = read?;
                    Counters::add_len(&self.shared.counters.bytes_in, count);
                    if let Some(device) = &self.stranger {
                        self.shared.seats.heard(device);
                    }
                    self.receive().await?;
                    // Now, and not before the message waited for its place: nothing was read meanwhile.
                    heard = clock::timer_now();
                }
                () = outbox.filled() => self.deliver().await?,
                notification = self.router.next(), if has_room => self.notice(notification?).await?,
                () = &mut silence => {
                    let deadline = heard + self.silence_max;
                    if deadline <= clock::timer_now() {
                        return Err(End::KeepAlive);
                    }
                    silence.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Passes on what the client has said, also what came before the packet that ends the connection, and writes what
    /// may be written now.
    async fn receive(&mut self) -> Result<(), End> {
        let outcome = self.receive_all().await;
        if self.input.is_empty() {
            self.input = BytesMut::new(); // An idle connection owns no read buffer.
        }
        self.router.notify()?;
        outcome?;
        self.deliver().await
    }

    async fn receive_all(&mut self) -> Result<(), End> {
        while let Some(step) = self.conversation.take(&mut self.input, &mut self.output)? {
            match step {
                Step::Answered => {}
                Step::Service(message, pkid) => {
                    self.shared.exchange.inbox().send(message).await?;
                    self.conversation.acknowledge(pkid, &mut self.output)?;
                }
                Step::Router(packet, pkid) => {
                    self.router.link(&self.shared).await?;
                    self.router.queue(*packet);
                    self.conversation.acknowledge(pkid, &mut self.output)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what waits in the outbox, as much as goes out at once: what the client says is read in between.
    async fn deliver(&mut self) -> Result<(), End> {
        let mut all = false;
        while !all && self.output.len() < WRITE_BATCH_BYTES {
            match self.conversation.next_message() {
                Some(message) => self.conversation.deliver(message, &mut self.output)?,
                None => all = true,
            }
        }
        self.flush().await?;
        let outbox = self.conversation.client().outbox();
        outbox.written();
        if !all {
            outbox.wake();
        }
        Ok(())
    }

    /// Takes this notification of the router and all that are ready behind it, and writes what comes of them.
    async fn notice(&mut self, first: Option<Notification>) -> Result<(), End> {
        let mut next = first;
        let mut parked = false;
        loop {
            if let Some(notification) = next.take() {
                match self.conversation.notice(notification, &mut self.output)? {
                    Noticed::Done => {}
                    Noticed::Message(message) => self.conversation.deliver(message, &mut self.output)?,
                    Noticed::Parked => parked = true,
                }
            }
            if self.output.len() >= WRITE_BATCH_BYTES {
                self.flush().await?;
            }
            if !self.conversation.has_room() {
                break; // The rest waits in the router's log.
            }
            match poll_once(self.router.next()).await {
                Some(notification) => next = notification?,
                None => break,
            }
        }
        self.flush().await?;
        if parked {
            // After the write: a client that takes nothing must not make the router prepare more for it.
            Counters::count(&self.shared.counters.links_unparked);
            self.router.wake().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.output.seal();
        write_out(&self.shared, &mut self.socket, &mut self.output).await
    }
}

/// Reads what there is, at least a byte. The scratch space lives on the stack of one poll, not in the future.
async fn read_some<S: AsyncRead + Unpin>(socket: &mut S, input: &mut BytesMut) -> Result<usize, End> {
    core::future::poll_fn(|context| {
        let mut scratch = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut scratch);
        match ready!(Pin::new(&mut *socket).poll_read(context, &mut read)) {
            Ok(()) if !read.filled().is_empty() => {
                input.extend_from_slice(read.filled());
                Poll::Ready(Ok(read.filled().len()))
            }
            _ => Poll::Ready(Err(End::PeerClosed)),
        }
    })
    .await
}

/// Writes all of `output`. The time limit is for progress, not for the whole: a window of 64 KiB takes half a
/// minute on a slow link.
async fn write_out<S: AsyncWrite + Unpin>(
    shared: &Shared,
    socket: &mut S,
    output: &mut impl Buf,
) -> Result<(), End> {
    while output.has_remaining() {
        match timeout(shared.config.write_limit, socket.write_buf(output)).await {
            Ok(Ok(count)) if count > 0 => Counters::add_len(&shared.counters.bytes_out, count),
            Ok(_) => return Err(End::PeerClosed),
            Err(_) => return Err(End::WriteStalled),
        }
    }
    Ok(())
}

/// Polls a cancel-safe future once; `None` if it is not ready.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = core::future::ready(()) => None,
    }
}

/// A client that is being turned away or thrown out has this long to hear why.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
