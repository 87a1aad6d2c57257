//! Any bytes as a patch.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    whimbrel_protocol_fuzz::patch(data);
});
