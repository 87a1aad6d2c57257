#![no_std]
#![no_main]

extern crate alloc;

use core::hint::black_box;
use cortex_m_rt::entry;
use whimbrel_protocol::cose::SigningKey;
use whimbrel_protocol::device::{BootView, DeviceSession, Input, Output, Record, Running, SessionConfig, StoreOp, Trial};
use whimbrel_protocol::ids::{ClassId, DeviceId, Digest, OpId, VendorId};
use whimbrel_protocol::time::{Instant, UnixTime};
use whimbrel_protocol::trust::Root;
use whimbrel_protocol::topic::Channel;

#[global_allocator]
static HEAP: static_alloc::Bump<[u8; 65536]> = static_alloc::Bump::uninit();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[entry]
fn main() -> ! {
    let Ok(root) = Root::verify(black_box(&[])) else { loop {} };
    let Ok(key) = SigningKey::p256(black_box(&[7; 32])) else { loop {} };
    let device = DeviceId::new(black_box("dev")).unwrap_or_else(|_| loop {});
    let config = SessionConfig::new(device, VendorId([3; 16]), ClassId([4; 16]), key, black_box([1; 32]));
    let boot = BootView { running: Running { image: None, release: None, sequence: 0 }, target_slot: 0, trial: Trial::None };
    let record = Record::decode(black_box(&[])).unwrap_or_default();
    let mut session = DeviceSession::new(config, root, boot, record, None, Instant::from_millis(0), black_box(UnixTime::from_secs(0)));
    loop {
        let mut op = OpId(0);
        while let Some(output) = session.poll_output() {
            match &output {
                Output::Store(at, StoreOp::SaveCheckpoint(_)) => op = *at,
                Output::Install(at, _) => op = *at,
                _ => {}
            }
            black_box(&output);
        }
        let input = match black_box(3) {
            0 => Input::Connected,
            1 => Input::Disconnected,
            2 => Input::Timeout,
            3 => Input::Message { channel: black_box(Channel::Answers), payload: black_box(&[]) },
            4 => Input::Stored { op, result: black_box(Ok(())) },
            5 => Input::Installed { op, result: black_box(Ok(())) },
            6 => Input::Loaded { op, bytes: black_box(None) },
            7 => Input::Opened { op, result: black_box(Err(whimbrel_protocol::device::StoreFailure::NoRoom)) },
            _ => Input::Check,
        };
        session.handle_input(black_box(Instant::from_millis(5)), input);
        black_box(session.poll_timeout());
        let _ = black_box(Digest([0; 32]));
    }
}
