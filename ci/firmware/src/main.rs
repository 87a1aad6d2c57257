//! The smallest host of the device engine, to see what the engine takes on a microcontroller.
//!
//! It is linked and never run. Whatever a host would bring passes through `black_box`, so that the linker must keep
//! all that a device can do; the flash and the radio behind it are empty, because each board has its own.

#![no_std]
#![no_main]

extern crate alloc;

use core::hint::black_box;

use cortex_m_rt::entry;
use static_alloc::Bump;
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_engine::storage::{Storage, StorageOptions};
use whimbrel_engine::{Device, Input, Output, Verdict};
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::SessionConfig;
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::ids::{ClassId, DeviceId, VendorId};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::topic::Channel;
use whimbrel_protocol::trust::Root;

/// Gives memory out and never takes it back: an allocator's own code is the board's choice and not counted.
#[global_allocator]
static HEAP: Bump<[u8; 64 * 1024]> = Bump::uninit();

/// A medium of which nobody knows anything.
struct Flash;

impl Disk for Flash {
    #[inline(never)]
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        black_box(area);
        black_box(Ok(0))
    }

    #[inline(never)]
    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        black_box((area, len));
        black_box(Ok(()))
    }

    #[inline(never)]
    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        black_box((area, len));
        black_box(Ok(()))
    }

    #[inline(never)]
    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        black_box((area, offset, into));
        black_box(Ok(()))
    }

    #[inline(never)]
    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        black_box((area, offset, bytes));
        black_box(Ok(()))
    }

    #[inline(never)]
    fn flush(&mut self, area: Area) -> Result<(), DiskError> {
        black_box(area);
        black_box(Ok(()))
    }

    #[inline(never)]
    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        black_box(area);
        black_box(Ok(()))
    }
}

/// The device's key, of the one algorithm that is linked, or of P-256.
fn key() -> Option<SigningKey> {
    let secret = black_box(&[7; 32]);
    #[cfg(feature = "p256")]
    return SigningKey::p256(secret).ok();
    #[cfg(not(feature = "p256"))]
    Some(SigningKey::ed25519(secret))
}

/// A device that was never given a root, or whose medium failed, has nothing to do.
fn device() -> Option<Device<Flash>> {
    let storage = Storage::start(Flash, EnvironmentBoot::new(), StorageOptions::default()).ok()?;
    let name = DeviceId::new(black_box("device")).ok()?;
    let config = SessionConfig::new(
        name,
        VendorId(black_box([1; 16])),
        ClassId(black_box([2; 16])),
        key()?,
        black_box([3; 32]),
    );
    let anchor = |_pinned: &[u8]| Root::verify(black_box(&[])).map(|root| (root, alloc::vec::Vec::new()));
    Device::start(storage, config, anchor, Instant::ZERO, black_box(UnixTime::from_secs(0))).ok()
}

#[entry]
fn main() -> ! {
    let Some(mut device) = device() else { stop() };
    loop {
        let now = black_box(Instant::from_millis(0));
        let input = match black_box(0) {
            0 => Input::Connected,
            1 => Input::Disconnected,
            2 => Input::Message { channel: black_box(Channel::Answers), payload: black_box(&[]) },
            3 => Input::Activity,
            4 => Input::WallClock(black_box(UnixTime::from_secs(0))),
            5 => Input::Check,
            _ => Input::Timeout,
        };
        device.handle_input(now, input);
        while let Some(output) = device.poll_output() {
            if let Output::Ask(op, _gate) = &output {
                device.handle_input(now, Input::Verdict { op: *op, verdict: black_box(Verdict::Good) });
            }
            black_box(&output);
        }
        black_box(device.poll_timeout());
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    stop()
}

fn stop() -> ! {
    loop {}
}
