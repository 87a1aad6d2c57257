//! Who is served now, and who is told to come back: token buckets per device, per campaign, per cell and in all.
//!
//! A request that the device's session allows is admitted when every bucket that it falls into holds enough for it;
//! then it takes from each what it needs. A device that is told `busy` has spent nothing: the session takes back what
//! it counted against the quota of the day.

use std::collections::HashMap;

use whimbrel_protocol::ids::CampaignId;
use whimbrel_protocol::limits::{RETRY_AFTER_MAX_S, WINDOW_BYTES_MAX};
use whimbrel_protocol::retry::Jitter;
use whimbrel_protocol::server::Bucket;
use whimbrel_protocol::time::Instant;

/// The most payload bytes that one request is answered with: the largest window and one message more.
pub const REQUEST_BYTES_SERVED_MAX: u64 = 2 * WINDOW_BYTES_MAX;

/// A rate with its burst, in bytes per second and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second in the long run, at least 1.
    pub bytes_per_s: u64,
    /// Bytes at once.
    pub burst_bytes: u64,
}

impl Rate {
    fn bucket(self, now: Instant) -> Bucket {
        Bucket::bytes(self.bytes_per_s, self.burst_bytes, now)
    }
}

/// The rates of all buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of one device.
    pub device: Rate,
    /// Of one campaign.
    pub campaign: Rate,
    /// Of one cell of the radio network.
    pub cell: Rate,
    /// Of everything together.
    pub total: Rate,
}

/// The part of the network that a device is in, if it says so. No version of the protocol carries it yet, so
/// that every device has none, and no device is held back for its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellTag(pub u64);

/// The buckets that devices share.
#[derive(Debug)]
pub(crate) struct Admission {
    rates: Rates,
    total: Bucket,
    campaigns: HashMap<CampaignId, Bucket>,
    cells: HashMap<CellTag, Bucket>,
    jitter: Jitter,
}

/// What a device is part of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pools {
    pub(crate) campaign: CampaignId,
    pub(crate) cell: Option<CellTag>,
}

/// Cells that are counted apart; a new one beyond them takes the place of all.
const CELLS_MAX: usize = 100_000;
/// Campaigns that are counted apart.
const CAMPAIGNS_MAX: usize = 1024;

impl Admission {
    pub(crate) fn new(rates: Rates, seed: u64, now: Instant) -> Self {
        Self {
            total: rates.total.bucket(now),
            rates,
            campaigns: HashMap::new(),
            cells: HashMap::new(),
            jitter: Jitter::new(seed),
        }
    }

    /// A bucket for one device.
    pub(crate) fn device_bucket(&self, now: Instant) -> Bucket {
        self.rates.device.bucket(now)
    }

    /// Whether a request that is answered with `bytes` is admitted now.
    ///
    /// # Errors
    /// How long to wait, in seconds: as long as the emptiest bucket needs, and up to as long again, so that those
    /// who are refused together don't come back together.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        device: &mut Bucket,
        pools: Pools,
        bytes: u64,
    ) -> Result<(), u32> {
        let wait_ms = self.wait_ms(now, device, pools, bytes);
        if wait_ms == 0 {
            return Ok(());
        }
        let wait_ms = wait_ms.saturating_add(self.jitter.below(wait_ms.max(1000)));
        let wait_s = u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        Err(wait_s.min(RETRY_AFTER_MAX_S))
    }

    fn wait_ms(&mut self, now: Instant, device: &mut Bucket, pools: Pools, bytes: u64) -> u64 {
        let mut wait_ms = 0;
        self.each(now, device, pools, |bucket| wait_ms = bucket.wait_ms(now, bytes).max(wait_ms));
        wait_ms
    }

    /// Takes what an admitted request needs.
    pub(crate) fn take(&mut self, now: Instant, device: &mut Bucket, pools: Pools, bytes: u64) {
        self.each(now, device, pools, |bucket| {
            bucket.take(now, bytes);
        });
    }

    fn each(&mut self, now: Instant, device: &mut Bucket, pools: Pools, mut apply: impl FnMut(&mut Bucket)) {
        apply(device);
        apply(&mut self.total);
        apply(bucket_of(&mut self.campaigns, pools.campaign, CAMPAIGNS_MAX, || {
            self.rates.campaign.bucket(now)
        }));
        if let Some(cell) = pools.cell {
            apply(bucket_of(&mut self.cells, cell, CELLS_MAX, || self.rates.cell.bucket(now)));
        }
    }
}

fn bucket_of<K: Eq + core::hash::Hash>(
    buckets: &mut HashMap<K, Bucket>,
    key: K,
    limit: usize,
    new: impl FnOnce() -> Bucket,
) -> &mut Bucket {
    if buckets.len() >= limit && !buckets.contains_key(&key) {
        buckets.clear();
    }
    buckets.entry(key).or_insert_with(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Rate = Rate { bytes_per_s: 1 << 40, burst_bytes: 1 << 40 };
    /// A request a second, and one at once.
    const SCARCE: Rate =
        Rate { bytes_per_s: REQUEST_BYTES_SERVED_MAX, burst_bytes: REQUEST_BYTES_SERVED_MAX };

    fn pools(campaign: u8, cell: Option<u64>) -> Pools {
        Pools { campaign: CampaignId([campaign; 8]), cell: cell.map(CellTag) }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn admit(admission: &mut Admission, now: Instant, device: &mut Bucket, pools: Pools) -> Result<(), u32> {
        admission.check(now, device, pools, REQUEST_BYTES_SERVED_MAX)?;
        admission.take(now, device, pools, REQUEST_BYTES_SERVED_MAX);
        Ok(())
    }

    #[test]
    fn each_bucket_alone_is_enough_to_say_busy() {
        let all = Rates { device: PLENTY, campaign: PLENTY, cell: PLENTY, total: PLENTY };
        let here = pools(1, Some(1));
        for (rates, other_device, other_campaign, other_cell) in [
            (Rates { device: SCARCE, ..all }, true, false, false),
            (Rates { campaign: SCARCE, ..all }, false, true, false),
            (Rates { cell: SCARCE, ..all }, false, false, true),
            (Rates { total: SCARCE, ..all }, false, false, false),
        ] {
            let mut admission = Admission::new(rates, 7, at(0));
            let mut device = admission.device_bucket(at(0));
            assert_eq!(admit(&mut admission, at(0), &mut device, here), Ok(()));
            let wait = admit(&mut admission, at(0), &mut device, here).unwrap_err();
            assert!((1..=2).contains(&wait), "{wait}");
            let mut try_as = |new: bool, pools| {
                let mut fresh = admission.device_bucket(at(0));
                let device = if new { &mut fresh } else { &mut device };
                admission.check(at(0), device, pools, REQUEST_BYTES_SERVED_MAX).is_ok()
            };
            assert_eq!(try_as(true, here), other_device);
            assert_eq!(try_as(false, pools(2, Some(1))), other_campaign);
            assert_eq!(try_as(false, pools(1, Some(2))), other_cell);
            assert_eq!(admit(&mut admission, at(1000), &mut device, here), Ok(()));
        }
    }

    #[test]
    fn those_who_are_refused_together_do_not_come_back_together() {
        let slow = Rate { bytes_per_s: 1024, burst_bytes: REQUEST_BYTES_SERVED_MAX };
        let rates = Rates { device: PLENTY, campaign: PLENTY, cell: PLENTY, total: slow };
        let mut admission = Admission::new(rates, 7, at(0));
        let mut device = admission.device_bucket(at(0));
        admit(&mut admission, at(0), &mut device, pools(1, None)).unwrap();
        let mut wait =
            || admission.check(at(0), &mut device, pools(1, None), REQUEST_BYTES_SERVED_MAX).unwrap_err();
        let waits: Vec<u32> = (0..50).map(|_| wait()).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= 128 && *most <= 257 && most - least > 60, "{least} to {most}");
    }

    #[test]
    fn nobody_is_told_to_wait_longer_than_an_hour() {
        let slow = Rate { bytes_per_s: 1, burst_bytes: REQUEST_BYTES_SERVED_MAX };
        let rates = Rates { device: slow, campaign: PLENTY, cell: PLENTY, total: PLENTY };
        let mut admission = Admission::new(rates, 7, at(0));
        let mut device = admission.device_bucket(at(0));
        admit(&mut admission, at(0), &mut device, pools(1, None)).unwrap();
        let refused = admission.check(at(0), &mut device, pools(1, None), REQUEST_BYTES_SERVED_MAX);
        assert_eq!(refused, Err(RETRY_AFTER_MAX_S));
    }

    /// Who comes after as many as are counted apart takes the place of all: what they had taken is forgotten, and
    /// memory stays within its limit.
    #[test]
    fn as_many_campaigns_and_cells_are_counted_apart_as_may_be() {
        let mut buckets = HashMap::new();
        let full = |buckets: &mut HashMap<u8, Bucket>, key| {
            let bucket = bucket_of(buckets, key, 2, || Bucket::bytes(1, 10, at(0)));
            bucket.take(at(0), 10)
        };
        assert!(full(&mut buckets, 1) && full(&mut buckets, 2));
        assert!(!full(&mut buckets, 1) && !full(&mut buckets, 2), "they are remembered");
        assert!(full(&mut buckets, 3));
        assert_eq!(buckets.len(), 1);
        assert!(full(&mut buckets, 1));
        assert!(!full(&mut buckets, 3));
    }

    #[test]
    fn what_is_taken_is_taken_from_every_bucket() {
        let rates = Rates { device: SCARCE, campaign: SCARCE, cell: SCARCE, total: SCARCE };
        let here = pools(1, Some(1));
        let mut admission = Admission::new(rates, 7, at(0));
        let mut device = admission.device_bucket(at(0));
        admit(&mut admission, at(0), &mut device, here).unwrap();
        let empty = |bucket: &mut Bucket| !bucket.take(at(0), 1);
        assert!(empty(&mut device) && empty(&mut admission.total));
        assert!(empty(admission.campaigns.get_mut(&here.campaign).unwrap()));
        assert!(empty(admission.cells.get_mut(&CellTag(1)).unwrap()));
    }

    #[test]
    fn a_small_request_is_admitted_where_there_is_room_for_it_alone() {
        let rates = Rates { device: SCARCE, campaign: PLENTY, cell: PLENTY, total: PLENTY };
        let mut admission = Admission::new(rates, 7, at(0));
        let mut device = admission.device_bucket(at(0));
        let pools = pools(1, None);
        for _ in 0..16 {
            assert_eq!(admission.check(at(0), &mut device, pools, 8192), Ok(()));
            admission.take(at(0), &mut device, pools, 8192);
        }
        assert!(admission.check(at(0), &mut device, pools, 8192).is_err());
    }
}
