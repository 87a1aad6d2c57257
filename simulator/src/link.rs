//! A shaped byte stream over a real TCP connection.
//!
//! All decisions are in [`Shaper`]; here is only the socket and one timer. What the link has not let through yet waits
//! in the kernel, unread and uncounted, in a receive buffer of fixed size, and beyond that at the service.
//! A cut resets the connection (`SO_LINGER` 0): what was not read is lost, and the service learns of it at once.

use core::future::Future as _;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Sleep;

use crate::clock::{Clock, Moment};
use crate::shape::{Grant, Path, Shaper};

/// One connection of one device.
///
/// Reading and writing belong to one task: a wake-up that either of them waits for may be used by the other. While the
/// device waits to read, what it wrote goes on its way by itself; nothing else is needed to move it.
#[derive(Debug)]
pub struct Link {
    /// `None` once it was cut.
    stream: Option<TcpStream>,
    shaper: Shaper,
    clock: Clock,
    timer: Pin<Box<Sleep>>,
    /// For when the timer is set.
    alarm: Option<Moment>,
    /// When a reader that waits has credit again.
    may_read_at: Option<Moment>,
    /// When a writer that waits has credit again.
    may_write_at: Option<Moment>,
    wakes: u64,
}

/// The link was cut by the plan of the run, not by the service or the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulated link was cut")]
pub struct WasCut;

impl Link {
    /// Connects to a broker; takes one round trip, as a handshake would.
    ///
    /// # Errors
    /// What the system says where no connection comes about.
    pub async fn connect(address: SocketAddr, path: &Path, clock: Clock) -> io::Result<Self> {
        if !path.round_trip.is_zero() {
            clock.sleep_until(clock.now() + path.round_trip).await;
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(bytes) = receive_buffer(path) {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let now = clock.now();
        Ok(Self {
            stream: Some(stream),
            shaper: Shaper::new(path, now),
            timer: Box::pin(clock.sleep_until(now)),
            clock,
            alarm: None,
            may_read_at: None,
            may_write_at: None,
            wakes: 0,
        })
    }

    /// Whether the plan of the run cut this connection.
    #[must_use]
    pub const fn was_cut(&self) -> bool {
        self.stream.is_none()
    }

    /// Bytes that reached the device in this connection.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.shaper.received()
    }

    /// How often the link's own timer woke the device.
    #[must_use]
    pub const fn wakes(&self) -> u64 {
        self.wakes
    }

    /// This end of the connection.
    ///
    /// # Errors
    /// [`WasCut`], or what the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.as_ref().ok_or_else(cut_error)?.local_addr()
    }

    /// Resets the connection.
    fn cut(&mut self) -> io::Error {
        if let Some(stream) = self.stream.take() {
            // Without it the kernel would say good-bye in order. Where it fails, the connection is gone already.
            stream.set_zero_linger().ok();
        }
        cut_error()
    }

    /// Hands what is due to the socket, as far as it takes it.
    fn hand_over(&mut self, cx: &mut Context<'_>, now: Moment) -> io::Result<()> {
        loop {
            let stream = self.stream.as_mut().ok_or_else(cut_error)?;
            let due = self.shaper.due(now);
            if due.is_empty() {
                return Ok(());
            }
            match Pin::new(stream).poll_write(cx, due) {
                Poll::Ready(written) => self.shaper.handed_over(written?),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Sees to it that the task wakes at the next event, or when reading or writing may go on.
    fn set_alarm(&mut self, cx: &mut Context<'_>, now: Moment) {
        let event = self.shaper.next_event(now);
        let Some(moment) = [event, self.may_read_at, self.may_write_at].into_iter().flatten().min() else {
            return;
        };
        if self.alarm != Some(moment) {
            self.alarm = Some(moment);
            self.clock.reset(self.timer.as_mut(), moment);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            // It is that late already. The task comes again, and both directions see what the time has brought.
            cx.waker().wake_by_ref();
        }
    }

    /// What time it is; an alarm that has passed is spent.
    fn wake(&mut self) -> Moment {
        let now = self.clock.now();
        if self.alarm.is_some_and(|moment| moment <= now) {
            self.alarm = None;
            self.wakes += 1;
        }
        now
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = self.wake();
        self.hand_over(cx, now)?;
        self.may_read_at = None;
        match self.shaper.may_read(now) {
            Grant::Cut => return Poll::Ready(Err(self.cut())),
            Grant::Wait(moment) => self.may_read_at = Some(moment),
            Grant::Bytes(granted) => {
                let granted = granted.min(buf.remaining());
                let stream = self.stream.as_mut().ok_or_else(cut_error)?;
                let outcome = poll_read_at_most(Pin::new(stream), cx, buf, granted);
                let read = if let Poll::Ready(Ok(read)) = outcome { read } else { 0 };
                self.shaper.was_read(granted, read);
                if let Poll::Ready(outcome) = outcome {
                    return Poll::Ready(outcome.map(|_| ()));
                }
            }
        }
        self.set_alarm(cx, now);
        Poll::Pending
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let now = self.wake();
        self.hand_over(cx, now)?;
        let accepted = self.shaper.write(now, bytes);
        // A byte without a delay goes at once; the others need the alarm, also where the device reads nothing.
        self.hand_over(cx, now)?;
        let waits = accepted == 0 && !bytes.is_empty();
        self.may_write_at = if waits { self.shaper.may_write_at(now) } else { None };
        self.set_alarm(cx, now);
        if waits { Poll::Pending } else { Poll::Ready(Ok(accepted)) }
    }

    /// Waits until everything that was written is with the kernel, one round trip later.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.wake();
        if matches!(self.shaper.may_read(now), Grant::Cut) {
            return Poll::Ready(Err(self.cut()));
        }
        self.hand_over(cx, now)?;
        if self.shaper.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        self.set_alarm(cx, now);
        Poll::Pending
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let stream = self.stream.as_mut().ok_or_else(cut_error)?;
        Pin::new(stream).poll_shutdown(cx)
    }
}

/// Reads at most `limit` bytes (at least 1) into `buf`, and says how many; 0 is the end of the stream.
fn poll_read_at_most(
    stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let before = buf.filled().len();
    if limit >= buf.remaining() {
        ready!(stream.poll_read(cx, buf))?;
        return Poll::Ready(Ok(buf.filled().len().saturating_sub(before)));
    }
    let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
    ready!(stream.poll_read(cx, &mut part))?;
    let read = part.filled().len();
    buf.advance(read);
    Poll::Ready(Ok(read))
}

fn cut_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, WasCut)
}

/// The receive buffer to ask for; the kernel doubles it for its own overhead. `None` leaves it to the kernel.
///
/// At least what a session may have outstanding: with less, a slow reader closes the window after every message, and
/// the kernel probes it open again with waits of its own (3 probes a second for each device with 4 KiB, none with
/// 64). At least four quanta of the rate: a fast device must find a quantum each time it wakes.
fn receive_buffer(path: &Path) -> Option<u32> {
    let rates = path.rates.as_ref()?;
    let quantum_bytes = u128::from(rates.down_bytes_s).saturating_mul(path.quantum.as_micros()) / 1_000_000;
    let bytes = u32::try_from(quantum_bytes.saturating_mul(4)).unwrap_or(u32::MAX);
    Some(bytes.clamp(RECEIVE_BUFFER_MIN, RECEIVE_BUFFER_MAX))
}

/// A session's largest window.
const RECEIVE_BUFFER_MIN: u32 = 64 * 1024;
const RECEIVE_BUFFER_MAX: u32 = 256 * 1024;
