//! Links the protocol crate without `std`.
#![no_std]

extern crate whimbrel_protocol as _;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
