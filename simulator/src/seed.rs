//! Random draws that depend on nothing but who draws: (seed, device, stream, counter).
//!
//! A generator that devices share would make what one device draws depend on when the others ran, and no run
//! could be repeated. Here each device has a stream of its own for each purpose, so that a run can be repeated
//! with another number of threads, and device 17 has the same link whether 20 or 20,000 devices take part.

use core::f64::consts::TAU;
use core::fmt;
use core::str::FromStr;

/// What one run draws all its randomness from; printed with every result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed that nobody chose, short enough to type again.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn fresh() -> Result<Self, getrandom::Error> {
        getrandom::u32().map(|word| Self(u64::from(word)))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Seed {
    type Err = String;

    /// Reads a seed in decimal, or in hexadecimal after `0x`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map(Self).map_err(|_| {
            "a seed is a whole number from 0 to 18446744073709551615, or 0x and up to 16 hexadecimal digits".into()
        })
    }
}

/// What a device draws for; each purpose has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// How fast the device's link is.
    Rate,
    /// The round trip of each of its connections.
    RoundTrip,
    /// Where in the transfer its link is cut, and for how long.
    Cuts,
    /// How long its link stays up and away, by profile.
    Outages,
    /// When it comes on the first time.
    Start,
    /// The jitter inside its session.
    Session,
    /// What is broken on purpose: which device, which chunk, which bit.
    Damage,
    /// Which image it runs before its update.
    Image,
}

/// The numbers of one device for one purpose.
#[derive(Clone, Debug)]
pub struct Draws {
    key: u64,
    counter: u64,
}

impl Draws {
    /// The numbers of `device` for `stream` in the run of `seed`, from the first one on.
    #[must_use]
    pub fn new(seed: Seed, device: u32, stream: Stream) -> Self {
        let place = (u64::from(device) << 8) | stream as u64;
        Self { key: scramble(scramble(seed.0) ^ place), counter: 0 }
    }

    /// The same numbers from the one at `counter` on, without drawing those before it.
    #[must_use]
    pub const fn at(mut self, counter: u64) -> Self {
        self.counter = counter;
        self
    }

    /// The next number, uniform over all of u64.
    pub const fn word(&mut self) -> u64 {
        self.counter += 1;
        scramble(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform over 0 <= x < 1, in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform over `low` <= x < `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform over `0..bound`, or 0 where `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product is below `bound`, and as even as 64 bits allow.
        ((self.word() as u128 * bound as u128) >> 64) as u64
    }

    /// Normal with mean 0 and deviation 1 (Box-Muller; one of the two values is enough here).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    /// Exponential with this mean, in the mean's unit.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of splitmix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the result.
const fn scramble(mut z: u64) -> u64 {
    z = z.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(device: u32, stream: Stream) -> Draws {
        Draws::new(Seed(42), device, stream)
    }

    #[test]
    fn the_output_function_is_the_published_one() {
        // First two outputs of the reference splitmix64.c seeded with 0: there the state grows before the mixing.
        assert_eq!(scramble(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(scramble(GOLDEN), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn a_draw_depends_on_seed_device_stream_and_counter_and_on_nothing_else() {
        let first = |seed, device, stream| Draws::new(Seed(seed), device, stream).word();
        assert_eq!(first(1, 2, Stream::Rate), first(1, 2, Stream::Rate));
        assert_ne!(first(1, 2, Stream::Rate), first(2, 2, Stream::Rate));
        assert_ne!(first(1, 2, Stream::Rate), first(1, 3, Stream::Rate));
        assert_ne!(first(1, 2, Stream::Rate), first(1, 2, Stream::Cuts));
        let mut one_by_one = draws(5, Stream::RoundTrip);
        one_by_one.word();
        one_by_one.word();
        assert_eq!(draws(5, Stream::RoundTrip).at(2).word(), one_by_one.word());
    }

    #[test]
    fn the_draws_have_the_moments_of_their_distributions() {
        let mut source = draws(0, Stream::Damage);
        let many = 100_000;
        let mean =
            |values: &mut dyn FnMut() -> f64| (0..many).map(|_| values()).sum::<f64>() / f64::from(many);
        assert!((mean(&mut || source.unit()) - 0.5).abs() < 0.005);
        assert!((mean(&mut || source.exponential(3.0)) - 3.0).abs() < 0.05);
        assert!(mean(&mut || source.normal()).abs() < 0.02);
        assert!((mean(&mut || source.normal().powi(2)) - 1.0).abs() < 0.03);
        assert!((mean(&mut || source.between(1.0, 5.0)) - 3.0).abs() < 0.03);
        assert!((mean(&mut || source.below(10) as f64) - 4.5).abs() < 0.05);
    }

    #[test]
    fn a_bounded_draw_stays_below_its_bound() {
        let mut source = draws(1, Stream::Damage);
        assert_eq!(source.below(0), 0);
        assert_eq!(source.below(1), 0);
        assert!((0..1000).all(|_| source.below(7) < 7));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&source.unit())));
    }

    #[test]
    fn neighbouring_devices_do_not_draw_alike() {
        let words: alloc::collections::BTreeSet<u64> =
            (0..10_000).map(|device| draws(device, Stream::Rate).word()).collect();
        assert_eq!(words.len(), 10_000);
        let mean = (0..10_000).map(|device| draws(device, Stream::Rate).unit()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.015, "{mean}");
    }

    #[test]
    fn no_device_draws_what_another_draws_for_another_purpose() {
        let streams = [
            Stream::Rate,
            Stream::RoundTrip,
            Stream::Cuts,
            Stream::Outages,
            Stream::Start,
            Stream::Session,
            Stream::Damage,
            Stream::Image,
        ];
        let words: alloc::collections::BTreeSet<u64> =
            (0..1000).flat_map(|device| streams.map(|stream| draws(device, stream).word())).collect();
        assert_eq!(words.len(), 1000 * streams.len());
    }

    #[test]
    fn a_seed_reads_back_from_what_is_printed_and_from_hexadecimal() {
        let seed = Seed(0x51f0_c3aa_0000_0001);
        assert_eq!(seed.to_string().parse(), Ok(seed));
        assert_eq!("0x51f0c3aa00000001".parse(), Ok(seed));
        for wrong in ["", "0x", "-1", "1.5", "0x1ffffffffffffffff", "seed"] {
            assert!(wrong.parse::<Seed>().is_err(), "{wrong}");
        }
    }
}
