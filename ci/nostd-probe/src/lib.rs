//! Links the protocol crate and the device engine without `std`.
#![no_std]

extern crate whimbrel_engine as _;
extern crate whimbrel_protocol as _;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
