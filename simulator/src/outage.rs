//! When a device's link is cut, and for how long it stays away.
//!
//! Planned cuts are placed by bytes, not by time: at a byte drawn from anywhere in the transfer, so that every device
//! gets exactly its number of cuts, in the middle of what it is doing, however fast its link is. By profile, the link
//! comes and goes by itself, with exponential times, also while nothing is transferred.

use core::time::Duration;

use crate::clock::Moment;
use crate::profile::Profile;
use crate::seed::{Draws, Seed, Stream};
use crate::shape::Cut;

/// What cuts the links of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outages {
    /// Each device is cut so many times within its transfer, for 1 to 5 s each.
    Planned {
        /// Cuts of each device.
        cuts: u32,
        /// Length of the transfer that they are placed in.
        transfer_bytes: u64,
    },
    /// Links come and go as the profile says.
    ByProfile {
        /// Mean time between losses.
        connected_mean: Duration,
        /// Mean time until the link is back.
        outage_mean: Duration,
    },
}

impl Outages {
    /// Nothing is cut.
    pub const NONE: Self = Self::Planned { cuts: 0, transfer_bytes: 0 };

    /// The outages of a profile; none where it is not shaped.
    #[must_use]
    pub fn by_profile(profile: &Profile) -> Self {
        profile.link.as_ref().map_or(Self::NONE, |link| Self::ByProfile {
            connected_mean: Duration::from_secs_f64(link.connected_mean_s),
            outage_mean: Duration::from_secs_f64(link.outage_mean_s),
        })
    }
}

/// The cuts of one device that are still to come.
#[derive(Debug)]
pub struct Cuts {
    /// Where the next planned cuts are, in bytes to the device since the run began; the last one comes first.
    planned: Vec<u64>,
    /// When the link goes next, by profile.
    goes: Option<Moment>,
    /// Mean times up and away, by profile.
    means: Option<(Duration, Duration)>,
    draws: Draws,
}

impl Cuts {
    /// The cuts of `device`, whose link is there `now`.
    #[must_use]
    pub fn new(outages: &Outages, seed: Seed, device: u32, now: Moment) -> Self {
        match *outages {
            Outages::Planned { cuts, transfer_bytes } => {
                let mut draws = Draws::new(seed, device, Stream::Cuts);
                let place = |fraction: f64| {
                    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a u64")]
                    let bytes = (transfer_bytes as f64 * fraction) as u64;
                    bytes.max(1)
                };
                let mut planned: Vec<u64> =
                    (0..cuts).map(|_| place(draws.between(FIRST_FRACTION, LAST_FRACTION))).collect();
                planned.sort_unstable_by(|a, b| b.cmp(a));
                Self { planned, goes: None, means: None, draws }
            }
            Outages::ByProfile { connected_mean, outage_mean } => {
                let mut draws = Draws::new(seed, device, Stream::Outages);
                let goes = now + exponential(&mut draws, connected_mean);
                Self {
                    planned: Vec::new(),
                    goes: Some(goes),
                    means: Some((connected_mean, outage_mean)),
                    draws,
                }
            }
        }
    }

    /// When a connection will be cut that begins after `received` bytes of the device's run.
    #[must_use]
    pub fn next(&self, received: u64) -> Option<Cut> {
        if let Some(moment) = self.goes {
            return Some(Cut::At(moment));
        }
        // A cut that is due already comes with the next byte, so that none is left out.
        self.planned.last().map(|place| Cut::AfterBytes(place.saturating_sub(received).max(1)))
    }

    /// The link was cut `now`: when it is back. The next cut is another one.
    pub fn cut(&mut self, now: Moment) -> Moment {
        self.planned.pop();
        match self.means {
            None => now + Duration::from_secs_f64(self.draws.between(CUT_S_MIN, CUT_S_MAX)),
            Some((connected_mean, outage_mean)) => {
                let back = now + exponential(&mut self.draws, outage_mean);
                self.goes = Some(back + exponential(&mut self.draws, connected_mean));
                back
            }
        }
    }

    /// Whether the link is away at `now` although nothing was connected to notice: by profile, it goes by itself.
    ///
    /// Returns when it is back.
    pub fn away_until(&mut self, now: Moment) -> Option<Moment> {
        let mut back = None;
        while let Some(goes) = self.goes.filter(|moment| *moment <= back.unwrap_or(now)) {
            back = Some(self.cut(goes)).filter(|moment| *moment > now);
        }
        back
    }

    /// Planned cuts that have not come yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.planned.len()
    }
}

fn exponential(draws: &mut Draws, mean: Duration) -> Duration {
    Duration::from_secs_f64(draws.exponential(mean.as_secs_f64()).min(YEARS_S))
}

/// Planned cuts lie between these fractions of the transfer: never before it began, and never too late to count.
const FIRST_FRACTION: f64 = 0.02;
const LAST_FRACTION: f64 = 0.98;
/// How long a planned cut lasts.
const CUT_S_MIN: f64 = 1.0;
const CUT_S_MAX: f64 = 5.0;
const YEARS_S: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Outages = Outages::Planned { cuts: 3, transfer_bytes: 1_000_000 };

    #[test]
    fn planned_cuts_are_spread_over_the_transfer_and_last_1_to_5_s() {
        let mut tenths = [0; 10];
        for device in 0..2000 {
            let mut cuts = Cuts::new(&PLAN, Seed(7), device, Moment::START);
            let mut received = 0;
            for left in (0..3).rev() {
                let Some(Cut::AfterBytes(more)) = cuts.next(received) else { panic!("a cut by bytes") };
                received += more;
                assert!((20_000..980_000).contains(&received), "{received}");
                tenths[usize::try_from(received / 100_000).unwrap()] += 1;
                let away = cuts.cut(Moment::START).since(Moment::START).as_secs_f64();
                assert!((1.0..5.0).contains(&away), "{away}");
                assert_eq!(cuts.left(), left);
            }
            assert_eq!(cuts.next(received), None);
        }
        assert!(tenths[1..9].iter().all(|count| (500..750).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_cut_that_is_overdue_comes_with_the_next_byte() {
        let cuts = Cuts::new(&PLAN, Seed(7), 1, Moment::START);
        assert_eq!(cuts.next(2_000_000), Some(Cut::AfterBytes(1)));
    }

    #[test]
    fn the_same_seed_cuts_the_same() {
        let all = |seed| {
            let mut cuts = Cuts::new(&PLAN, Seed(seed), 5, Moment::START);
            [0; 3].map(|_| (cuts.next(0), cuts.cut(Moment::START)))
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }

    #[test]
    fn by_profile_links_come_and_go_with_the_profiles_means() {
        let outages = Outages::ByProfile {
            connected_mean: Duration::from_secs(600),
            outage_mean: Duration::from_secs(60),
        };
        let (mut up, mut away) = (0.0, 0.0);
        for device in 0..2000 {
            let mut cuts = Cuts::new(&outages, Seed(3), device, Moment::START);
            let mut now = Moment::START;
            for _ in 0..10 {
                let Some(Cut::At(goes)) = cuts.next(0) else { panic!("a cut by time") };
                up += goes.since(now).as_secs_f64();
                now = cuts.cut(goes);
                away += now.since(goes).as_secs_f64();
            }
        }
        assert!((up / 20_000.0 / 600.0 - 1.0).abs() < 0.03, "{up}");
        assert!((away / 20_000.0 / 60.0 - 1.0).abs() < 0.03, "{away}");
    }

    #[test]
    fn a_link_that_nobody_used_has_gone_all_the_same() {
        let outages = Outages::ByProfile {
            connected_mean: Duration::from_secs(100),
            outage_mean: Duration::from_secs(100),
        };
        let late = Moment::START + Duration::from_secs(100_000);
        let away = (0..2000)
            .filter(|device| {
                let mut cuts = Cuts::new(&outages, Seed(3), *device, Moment::START);
                assert_eq!(cuts.away_until(Moment::START), None, "it is there when the run begins");
                let back = cuts.away_until(late);
                assert!(back.is_none_or(|moment| moment > late));
                let Some(Cut::At(goes)) = cuts.next(0) else { panic!("a cut by time") };
                assert!(goes > back.unwrap_or(late));
                back.is_some()
            })
            .count();
        assert!((900..1100).contains(&away), "half of the time away: {away} of 2000");
    }

    #[test]
    fn without_outages_nothing_is_cut() {
        let mut cuts = Cuts::new(&Outages::NONE, Seed(3), 1, Moment::START);
        assert_eq!((cuts.next(0), cuts.away_until(Moment::from_micros(u64::MAX))), (None, None));
    }
}
