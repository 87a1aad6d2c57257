//! What the devices of a fleet run before their update.

use bytes::Bytes;

use crate::disk::Originals;
use crate::seed::{Draws, Seed, Stream};

/// The images that a fleet begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartOptions {
    /// The image that the release has a patch for.
    pub base: Bytes,
    /// How many of a hundred devices run another image, which nobody knows.
    pub unknown_percent: u32,
    /// How many of a hundred devices run the base with one wrong bit in their slot.
    pub flipped_percent: u32,
}

/// What one device runs before its update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The image that the release has a patch for.
    Base,
    /// The same with one wrong bit.
    Flipped,
    /// Another image.
    Unknown,
}

/// The images that a fleet begins with, and who has which.
#[derive(Clone, Debug)]
pub struct Starting {
    /// By the device's number.
    starts: Vec<Start>,
    /// What disks hold that get the image by patch.
    patched: Originals,
    /// The image of those that nobody knows.
    unknown: Bytes,
}

impl Starting {
    /// A fleet that begins as drawn; `patched` is what those devices hold in the end that get their image by patch.
    #[must_use]
    pub fn new(options: &StartOptions, devices: u32, seed: Seed, patched: Originals) -> Self {
        Self { starts: options.draw(devices, seed), patched, unknown: options.unknown_image() }
    }

    /// What a device runs at first, and what its disk is expected to hold in the end; `full` is what that is for a
    /// device that gets the full payload.
    #[must_use]
    pub fn of(&self, device: u32, full: &Originals) -> (Start, Originals) {
        let start = self.starts.get(device as usize).copied().unwrap_or(Start::Base);
        let factory = match start {
            Start::Base => return (start, self.patched.clone()),
            Start::Flipped => self.patched.factory.clone(),
            Start::Unknown => self.unknown.clone(),
        };
        (start, Originals { factory, ..full.clone() })
    }

    /// Devices that begin with an image that the release has a patch for, unspoilt.
    #[must_use]
    pub fn by_patch(&self) -> u32 {
        let by_patch = self.starts.iter().filter(|start| **start == Start::Base).count();
        u32::try_from(by_patch).unwrap_or(u32::MAX)
    }
}

impl StartOptions {
    /// What each of `devices` runs: the shares are exact, who belongs to which is drawn.
    #[must_use]
    pub fn draw(&self, devices: u32, seed: Seed) -> Vec<Start> {
        let share = |percent: u32| (u64::from(devices) * u64::from(percent)).div_ceil(100);
        let (unknown, flipped) = (share(self.unknown_percent), share(self.flipped_percent));
        let mut order: Vec<u32> = (0..devices).collect();
        order.sort_by_key(|device| Draws::new(seed, *device, Stream::Image).word());
        let mut starts = vec![Start::Base; order.len()];
        for (place, device) in (0..).zip(order) {
            let start = match place {
                place if place < unknown => Start::Unknown,
                place if place < unknown + flipped => Start::Flipped,
                _ => Start::Base,
            };
            if let Some(of_device) = starts.get_mut(device as usize) {
                *of_device = start;
            }
        }
        starts
    }

    /// The image that nobody knows: as long as the base, and equal in no byte.
    #[must_use]
    pub fn unknown_image(&self) -> Bytes {
        self.base.iter().map(|byte| !byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(devices: u32, unknown_percent: u32, flipped_percent: u32, seed: u64) -> [usize; 3] {
        let options = StartOptions { base: Bytes::from_static(b"base"), unknown_percent, flipped_percent };
        let drawn = options.draw(devices, Seed(seed));
        [Start::Base, Start::Flipped, Start::Unknown]
            .map(|start| drawn.iter().filter(|drawn| **drawn == start).count())
    }

    #[test]
    fn shares_are_exact_and_rounded_up() {
        assert_eq!(starts(200, 0, 0, 1), [200, 0, 0]);
        assert_eq!(starts(200, 10, 5, 1), [170, 10, 20]);
        assert_eq!(starts(3, 1, 1, 1), [1, 1, 1], "a share is never nobody");
        assert_eq!(starts(7, 100, 0, 1), [0, 0, 7]);
        assert_eq!(starts(1, 50, 50, 1), [0, 0, 1], "and never more than there are");
    }

    #[test]
    fn who_runs_what_is_drawn_from_the_seed() {
        let options =
            StartOptions { base: Bytes::from_static(b"base"), unknown_percent: 50, flipped_percent: 0 };
        assert_eq!(options.draw(100, Seed(1)), options.draw(100, Seed(1)));
        assert_ne!(options.draw(100, Seed(1)), options.draw(100, Seed(2)));
    }

    #[test]
    fn the_unknown_image_shares_no_byte_with_the_base() {
        let options =
            StartOptions { base: Bytes::from_static(&[0, 1, 255]), unknown_percent: 1, flipped_percent: 0 };
        assert_eq!(options.unknown_image(), Bytes::from_static(&[255, 254, 0]));
    }
}
