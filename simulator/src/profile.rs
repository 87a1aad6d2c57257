//! Link profiles: what the networks of the fleet are like, and which link each device draws from one.
//!
//! The figures are data (`profiles.toml`, each with its source), so that a load tester can bring figures measured in
//! the field. What is decided here is the shape between devices: rates are lognormal through p50 and p10 and clipped
//! at p10/2 and at the peak, because a handful of very bad links, not the median, decides how long a campaign takes.
//! A device with a slow downlink has a slow uplink: both come from one draw. Round trips are drawn anew for each
//! connection, as a modem finds another cell or coverage level.

use core::fmt;
use core::time::Duration;
use std::path::Path;

use serde::Deserialize;

use crate::error::ProfileError;
use crate::seed::{Draws, Seed, Stream};

/// The profiles that come with the simulator, as text.
pub const PROFILES_TOML: &str = include_str!("../profiles.toml");

/// A kind of network, with where its figures come from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name by which `--profile` picks it.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// Where the figures are from, and which of them are assumed.
    pub source: String,
    /// The link's figures; `None` is a link that is not shaped at all.
    pub link: Option<LinkFigures>,
}

/// The figures of a kind of network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFigures {
    /// Goodput to the device, in kbit/s.
    pub down_kbit_s: RateSpread,
    /// Goodput from the median device, in kbit/s.
    pub up_p50_kbit_s: f64,
    /// Round trip while connected, in seconds.
    pub round_trip_s: RoundTripSpread,
    /// Mean time between losses of the link, in seconds.
    pub connected_mean_s: f64,
    /// Mean time until the link is back, in seconds.
    pub outage_mean_s: f64,
}

/// How rates differ between devices.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSpread {
    /// One device in ten is slower.
    pub p10: f64,
    /// Half of the devices are slower.
    pub p50: f64,
    /// No device is faster.
    pub peak: f64,
}

/// How round trips differ between connections.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundTripSpread {
    /// Half of the connections are quicker.
    pub p50: f64,
    /// One connection in twenty is slower.
    pub p95: f64,
}

/// The rates of one device's link for the whole run, in bytes per virtual second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// To the device.
    pub down_bytes_s: u64,
    /// From the device.
    pub up_bytes_s: u64,
}

impl Profile {
    /// The rates that `device` has in the run of `seed`; `None` where the profile does not shape.
    #[must_use]
    pub fn rates(&self, seed: Seed, device: u32) -> Option<Rates> {
        let figures = self.link.as_ref()?;
        let down = figures.down_kbit_s;
        let sigma = (down.p50 / down.p10).ln() / Z90;
        let factor = (sigma * Draws::new(seed, device, Stream::Rate).normal()).exp();
        let factor = factor.clamp(down.p10 / 2.0 / down.p50, down.peak / down.p50);
        Some(Rates {
            down_bytes_s: bytes_s(down.p50 * factor),
            up_bytes_s: bytes_s(figures.up_p50_kbit_s * factor),
        })
    }

    /// The round trip of the `connection`th connection (from 0) of `device`; zero where the profile does not shape.
    ///
    /// Clipped at a quarter of p50 and at twice p95.
    #[must_use]
    pub fn round_trip(&self, seed: Seed, device: u32, connection: u32) -> Duration {
        let Some(figures) = &self.link else { return Duration::ZERO };
        let RoundTripSpread { p50, p95 } = figures.round_trip_s;
        let sigma = (p95 / p50).ln() / Z95;
        // A normal draw takes two words, so each connection starts two further on.
        let mut draws = Draws::new(seed, device, Stream::RoundTrip).at(u64::from(connection) * 2);
        let seconds = p50 * (sigma * draws.normal()).exp();
        Duration::from_secs_f64(seconds.clamp(p50 / 4.0, p95 * 2.0))
    }

    /// Mean time between losses of the link, from which a session sizes its messages; `None` where it never fails.
    #[must_use]
    pub fn mean_time_between_losses(&self) -> Option<Duration> {
        self.link.as_ref().map(|figures| Duration::from_secs_f64(figures.connected_mean_s))
    }

    /// Round trip that one connection in twenty exceeds; zero where the profile does not shape.
    #[must_use]
    pub fn round_trip_p95(&self) -> Duration {
        self.link.as_ref().map_or(Duration::ZERO, |figures| Duration::from_secs_f64(figures.round_trip_s.p95))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(link) = &self.link else { return write!(f, "{}: {}", self.name, self.about) };
        write!(
            f,
            "{}: down {} kbit/s (p10 {}), up {}, round trip {} s (p95 {}), lost every {} for {}",
            self.name,
            link.down_kbit_s.p50,
            link.down_kbit_s.p10,
            link.up_p50_kbit_s,
            link.round_trip_s.p50,
            link.round_trip_s.p95,
            in_words(link.connected_mean_s),
            in_words(link.outage_mean_s),
        )
    }
}

/// All profiles that can be picked by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    #[serde(rename = "profile")]
    all: Vec<Profile>,
}

impl Profiles {
    /// The profiles that come with the simulator.
    #[must_use]
    pub fn builtin() -> Self {
        Self::parse(PROFILES_TOML).expect("a test reads the same text")
    }

    /// Reads profiles from TOML text.
    ///
    /// # Errors
    /// [`ProfileError`] without the file's name, where the text is not TOML of the right shape or a figure is out of
    /// its range.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let profiles: Self = toml::from_str(text).map_err(|error| ProfileError::Toml(error.to_string()))?;
        let wrong = profiles.all.iter().find_map(|profile| {
            let what = profile.link.as_ref().and_then(LinkFigures::out_of_range)?;
            Some(ProfileError::Range { profile: profile.name.clone(), what })
        });
        match wrong {
            Some(error) => Err(error),
            None if profiles.all.is_empty() => Err(ProfileError::Empty),
            None => Ok(profiles),
        }
    }

    /// Reads profiles from a file.
    ///
    /// # Errors
    /// As [`Profiles::parse`], and where the file cannot be read; all name the file.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text)
            .map_err(|source| ProfileError::InFile { path: path.to_path_buf(), source: source.into() })
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`] with the names there are.
    pub fn named(&self, name: &str) -> Result<&Profile, ProfileError> {
        self.all.iter().find(|profile| profile.name == name).ok_or_else(|| ProfileError::Unknown {
            name: name.to_owned(),
            known: self.all.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> core::slice::Iter<'_, Profile> {
        self.all.iter()
    }
}

impl LinkFigures {
    /// What is wrong with the figures, if anything.
    fn out_of_range(&self) -> Option<&'static str> {
        let within = |value: f64, low: f64, high: f64| (low..=high).contains(&value);
        let rate = |value| within(value, 0.008, RATE_KBIT_S_MAX);
        let time = |value| within(value, 0.001, TIME_S_MAX);
        let RateSpread { p10, p50, peak } = self.down_kbit_s;
        let RoundTripSpread { p50: trip, p95: long_trip } = self.round_trip_s;
        if ![p10, p50, peak, self.up_p50_kbit_s].into_iter().all(rate) {
            Some("rates are from 0.008 to 10000000 kbit/s")
        } else if p10 > p50 || p50 > peak {
            Some("down_kbit_s must rise: p10 <= p50 <= peak")
        } else if !within(trip, 0.0001, 600.0) || !within(long_trip, trip, 600.0) {
            Some("round_trip_s must rise from 0.0001 to at most 600: p50 <= p95")
        } else if !time(self.connected_mean_s) || !time(self.outage_mean_s) {
            Some("connected_mean_s and outage_mean_s are from 0.001 to 31536000")
        } else {
            None
        }
    }
}

/// The standard normal's 90th percentile: p10 and p50 of a lognormal lie this many sigmas apart.
const Z90: f64 = 1.281_551_565_5;
/// The standard normal's 95th percentile.
const Z95: f64 = 1.644_853_627;
const RATE_KBIT_S_MAX: f64 = 10_000_000.0;
const TIME_S_MAX: f64 = 365.0 * 86_400.0;

/// Whole bytes per second, at least one.
fn bytes_s(kbit_s: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "rates are checked to be at most 10 Gbit/s")]
    let bytes = (kbit_s * 125.0).round() as u64;
    bytes.max(1)
}

/// Seconds as a person would say them.
fn in_words(seconds: f64) -> String {
    match seconds {
        s if s >= 172_800.0 => format!("{} d", s / 86_400.0),
        s if s >= 7_200.0 => format!("{} h", s / 3_600.0),
        s if s >= 120.0 => format!("{} min", s / 60.0),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> Profile {
        Profiles::builtin().named(name).unwrap().clone()
    }

    fn quantile(sorted: &[f64], at: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, reason = "a place in a slice")]
        let place = (at * sorted.len() as f64) as usize;
        sorted[place]
    }

    #[test]
    fn the_profiles_that_come_with_it_are_readable_and_named_once() {
        let names: Vec<String> = Profiles::builtin().iter().map(|profile| profile.name.clone()).collect();
        for name in ["ltem", "nbiot-ce0", "nbiot-ce1", "cat1bis", "gprs", "wifi", "unshaped"] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name}");
        }
        assert_eq!(names.iter().collect::<alloc::collections::BTreeSet<_>>().len(), names.len());
        assert!(Profiles::builtin().iter().all(|profile| !profile.source.is_empty()));
    }

    #[test]
    fn rates_between_devices_follow_the_profile_and_are_clipped() {
        for name in ["ltem", "nbiot-ce0", "wifi"] {
            let profile = profile(name);
            let spread = profile.link.as_ref().unwrap().down_kbit_s;
            let mut drawn: Vec<f64> = (0..20_000)
                .map(|device| profile.rates(Seed(1), device).unwrap().down_bytes_s as f64 / 125.0)
                .collect();
            drawn.sort_by(f64::total_cmp);
            assert!((quantile(&drawn, 0.5) / spread.p50 - 1.0).abs() < 0.05, "{name} p50");
            assert!((quantile(&drawn, 0.1) / spread.p10 - 1.0).abs() < 0.05, "{name} p10");
            assert!(drawn[0] >= spread.p10 / 2.0 - 0.01, "{name} floor");
            assert!(drawn[drawn.len() - 1] <= spread.peak + 0.01, "{name} peak");
            assert!(
                (quantile(&drawn, 0.001) / (spread.p10 / 2.0) - 1.0).abs() < 0.4,
                "{name} reaches the floor's side"
            );
        }
    }

    #[test]
    fn a_slow_downlink_comes_with_a_slow_uplink() {
        let profile = profile("ltem");
        for device in 0..100 {
            let rates = profile.rates(Seed(3), device).unwrap();
            assert!(rates.down_bytes_s.abs_diff(rates.up_bytes_s) <= 1, "p50 is the same both ways on ltem");
        }
    }

    #[test]
    fn round_trips_between_connections_follow_the_profile_and_are_clipped() {
        let profile = profile("nbiot-ce0");
        let mut drawn: Vec<f64> = (0..200)
            .flat_map(|device| (0..100).map(move |connection| (device, connection)))
            .map(|(device, connection)| profile.round_trip(Seed(1), device, connection).as_secs_f64())
            .collect();
        drawn.sort_by(f64::total_cmp);
        assert!((quantile(&drawn, 0.5) - 0.8).abs() < 0.04);
        assert!((quantile(&drawn, 0.95) - 3.0).abs() < 0.2);
        assert!(drawn[0] >= 0.2 && drawn[drawn.len() - 1] <= 6.0);
    }

    #[test]
    fn the_same_seed_and_device_have_the_same_link_and_others_do_not() {
        let profile = profile("ltem");
        assert_eq!(profile.rates(Seed(9), 4), profile.rates(Seed(9), 4));
        assert_ne!(profile.rates(Seed(9), 4), profile.rates(Seed(9), 5));
        assert_eq!(profile.round_trip(Seed(9), 4, 2), profile.round_trip(Seed(9), 4, 2));
        assert_ne!(profile.round_trip(Seed(9), 4, 2), profile.round_trip(Seed(9), 4, 3));
    }

    #[test]
    fn an_unshaped_link_has_no_rate_and_no_round_trip() {
        let profile = profile("unshaped");
        assert_eq!(profile.rates(Seed(1), 1), None);
        assert_eq!(profile.round_trip(Seed(1), 1, 1), Duration::ZERO);
        assert_eq!(profile.mean_time_between_losses(), None);
    }

    #[test]
    fn wrong_profiles_are_refused_with_what_would_be_right() {
        let text = |from: &str, to: &str| PROFILES_TOML.replacen(from, to, 1);
        assert!(matches!(Profiles::parse("profile = []"), Err(ProfileError::Empty)));
        assert!(matches!(Profiles::parse("profile = 3"), Err(ProfileError::Toml(_))));
        assert!(matches!(Profiles::parse(&text("about =", "abuot =")), Err(ProfileError::Toml(_))));
        for (from, to) in [
            ("p10 = 10,", "p10 = 30,"),
            ("p10 = 10,", "p10 = nan,"),
            ("p10 = 10,", "p10 = 0,"),
            ("peak = 26", "peak = inf"),
            ("p95 = 3 ", "p95 = 0.1 "),
            ("connected_mean_s = 7200", "connected_mean_s = -1"),
        ] {
            let outcome = Profiles::parse(&text(from, to));
            assert!(matches!(outcome, Err(ProfileError::Range { .. })), "{from} -> {to}: {outcome:?}");
        }
        let unknown = Profiles::builtin().named("lte-m").unwrap_err().to_string();
        assert!(unknown.contains("ltem") && unknown.contains("nbiot-ce0"), "{unknown}");
    }

    #[test]
    fn the_heading_of_a_report_shows_the_links_figures() {
        let heading = profile("nbiot-ce0").to_string();
        assert_eq!(
            heading,
            "nbiot-ce0: down 20 kbit/s (p10 10), up 15, round trip 0.8 s (p95 3), lost every 2 h for 60 s"
        );
    }
}
