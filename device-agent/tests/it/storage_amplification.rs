//! How much is written for an update, beyond what has to be.

use alloc::sync::Arc;

use whimbrel_engine::MemoryDisk;
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_protocol::disk::{Area, Disk};
use whimbrel_protocol::manifest::Codec;

use crate::power_cut::image;
use crate::power_cut_device::{End, Medium, World};
use crate::power_cut_service::{Release, Service};
use crate::storage_support::{fixture, read};

const IMAGE_BYTES: usize = 4 * 1024 * 1024;

impl Medium for MemoryDisk {
    fn content(&self, area: Area) -> Vec<u8> {
        read(&mut self.clone(), area)
    }
}

/// On links of 2,500 B/s (NB-IoT), 37,500 B/s (LTE-M) and 1 MB/s: the faster, the fewer checkpoints.
#[test]
fn at_most_one_byte_in_twenty_is_written_beyond_staged_and_image_bytes() {
    let fixture = fixture();
    for codec in [Codec::Raw, Codec::Lzma] {
        let release = Arc::new(Release::cut(&fixture, codec, image(1, IMAGE_BYTES), 1, 12));
        let staged = if codec == Codec::Raw { 0 } else { release.payload.len() as u64 };
        let needed = staged + IMAGE_BYTES as u64;
        for rate in [2_500, 37_500, 1_000_000] {
            let service = Service::new(Arc::clone(&fixture), vec![Arc::clone(&release)]);
            let mut world = World::new(MemoryDisk::new(), EnvironmentBoot::new, service, b"the factory's");
            world.disk.reserve(Area::SlotA, 13).unwrap();
            world.disk.write(Area::SlotA, 0, b"the factory's").unwrap();
            world.rate = rate;
            assert_eq!(world.run(), Ok(End::Confirmed));
            let written = world.disk.bytes_written();
            let times = written as f64 / needed as f64;
            println!("{}, {rate} B/s: {written} bytes written for {needed}: {times:.4}", codec.name());
            assert!(written * 100 <= needed * 105, "{} at {rate} B/s: {times:.4}", codec.name());
        }
    }
}
