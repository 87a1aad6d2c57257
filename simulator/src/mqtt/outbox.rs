//! Packets on their way to the stream, each remembered by its class until its last byte is taken.

use alloc::collections::VecDeque;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::v4::Packet;
use tokio::io::AsyncWrite;

use crate::error::ClientError;
use crate::meter::{Class, Ledger};

/// Most bytes that wait for the link.
pub(super) const OUTBOX_BYTES_MAX: usize = 16 * 1024;

/// What was written and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: BytesMut,
    /// Length and class of each packet, in order; the lengths add up to `bytes`.
    packets: VecDeque<(usize, Class)>,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a packet at the end, or nothing at all.
    pub(super) fn push(&mut self, packet: &Packet, class: Class) -> Result<(), ClientError> {
        let got = packet.size();
        if got > OUTBOX_BYTES_MAX {
            return Err(ClientError::TooLong {
                what: "a packet to the broker",
                got,
                limit: OUTBOX_BYTES_MAX,
            });
        }
        if self.len() + got > OUTBOX_BYTES_MAX {
            return Err(ClientError::Full { what: "bytes", queued: self.len(), limit: OUTBOX_BYTES_MAX });
        }
        let before = self.len();
        packet.write(&mut self.bytes, OUTBOX_BYTES_MAX).map_err(ClientError::Packet)?;
        self.packets.push_back((self.len() - before, class));
        Ok(())
    }

    /// Writes some of it, and counts what the stream took.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        ledger: &mut Ledger,
    ) -> Poll<io::Result<()>> {
        let taken = ready!(Pin::new(stream).poll_write(cx, &self.bytes))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        ledger.wrote(taken as u64);
        self.bytes.advance(taken);
        let mut left = taken;
        while let Some((length, class)) = self.packets.front_mut() {
            let part = left.min(*length);
            ledger.sent(part as u64, *class);
            *length -= part;
            left -= part;
            if *length > 0 {
                break;
            }
            self.packets.pop_front();
        }
        if self.bytes.is_empty() {
            // An idle device keeps no buffer.
            *self = Self::default();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use core::task::Waker;

    use super::*;
    use crate::control::Control;
    use crate::meter::Part;

    /// Takes so many bytes at a time.
    struct Narrow(usize);

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len().min(self.0)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    const CONTROL: Class = Class::Control(Control::Ping);
    const DATA: Class = Class::Data { part: Part::Request, header_bytes: 0 };

    #[test]
    fn a_packet_that_went_half_is_booked_half() {
        let mut outbox = Outbox::default();
        let mut ledger = Ledger::default();
        let mut cx = Context::from_waker(Waker::noop());
        outbox.push(&Packet::PingReq, CONTROL).unwrap();
        outbox.push(&Packet::PingReq, DATA).unwrap();
        outbox.push(&Packet::PingReq, CONTROL).unwrap();
        let mut booked = Vec::new();
        while !outbox.is_empty() {
            assert!(outbox.poll_write(&mut Narrow(3), &mut cx, &mut ledger).is_ready());
            booked.push((ledger.control_bytes_up, ledger.data_bytes_up));
        }
        assert_eq!(booked, [(2, 1), (4, 2)]);
        assert_eq!(ledger.check(), Ok(()));
    }

    #[test]
    fn a_full_outbox_takes_nothing_more_and_keeps_what_it_has() {
        let mut outbox = Outbox::default();
        for _ in 0..OUTBOX_BYTES_MAX / 2 {
            outbox.push(&Packet::PingReq, CONTROL).unwrap();
        }
        assert!(matches!(outbox.push(&Packet::PingReq, CONTROL), Err(ClientError::Full { .. })));
        assert_eq!(outbox.len(), OUTBOX_BYTES_MAX);
        assert_eq!(outbox.packets.len(), OUTBOX_BYTES_MAX / 2);
    }
}
