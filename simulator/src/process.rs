//! What processes cost, from `/proc`, and how many files this one may open.

use core::time::Duration;
use std::io;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Most memory that was resident at once (VmHWM).
    pub peak_rss_bytes: u64,
    /// Memory that is resident now (VmRSS).
    pub rss_bytes: u64,
    /// Processor time in user and kernel mode, in steps of a clock tick (10 ms).
    pub cpu: Duration,
}

/// What the process `pid` has used.
///
/// # Errors
/// Where there is no such process any more, or no `/proc`.
pub fn usage_of(pid: u32) -> io::Result<Usage> {
    usage_in(&pid.to_string())
}

/// What this process has used.
///
/// # Errors
/// Where there is no `/proc`.
pub fn own_usage() -> io::Result<Usage> {
    usage_in("self")
}

/// Allows this process and its children at least `wanted` open files.
///
/// # Errors
/// The highest number that can be had, where that is less.
pub fn raise_open_files(wanted: u64) -> Result<(), u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|allowed| allowed >= wanted) {
        return Ok(());
    }
    let new = maximum.map_or(wanted, |most| most.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(new), maximum }).is_ok();
    if raised && new >= wanted { Ok(()) } else { Err(maximum.or(current).unwrap_or(0)) }
}

fn usage_in(process: &str) -> io::Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let peak = in_status(&status, "VmHWM:").ok_or_else(|| unreadable("status"))?;
    let now = in_status(&status, "VmRSS:").ok_or_else(|| unreadable("status"))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| unreadable("stat"))?;
    let per_second = clock_ticks_per_second().max(1);
    let cpu = Duration::from_millis(ticks.saturating_mul(1000) / per_second);
    Ok(Usage { peak_rss_bytes: peak, rss_bytes: now, cpu })
}

/// Bytes of a line like `VmHWM:   1234 kB` in `/proc/PID/status`. A process that has ended and not been collected has none.
fn in_status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)); the second may hold spaces, so the count begins behind it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} is not as proc(5) has it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_time() {
        let before = own_usage().unwrap();
        assert!(before.peak_rss_bytes > 100_000, "{before:?}");
        let block = vec![1u8; 64 << 20];
        assert!(block.iter().map(|byte| u64::from(*byte)).sum::<u64>() > 0);
        let after = own_usage().unwrap();
        assert!(after.peak_rss_bytes >= before.peak_rss_bytes + (60 << 20), "{before:?} {after:?}");
        assert!(after.rss_bytes >= before.rss_bytes + (60 << 20), "{before:?} {after:?}");
        assert!(after.cpu >= before.cpu);
        assert!(usage_of(std::process::id()).unwrap().peak_rss_bytes >= after.peak_rss_bytes);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(usage_of(u32::MAX).is_err());
    }

    #[test]
    fn the_name_of_a_process_does_not_shift_its_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 153 0 0 0 7 5 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks("42 (x) S 1"), None);
        assert_eq!(in_status("Name:\tx\nVmHWM:\t    1234 kB\n", "VmHWM:"), Some(1234 * 1024));
        assert_eq!(in_status("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn more_open_files_than_the_system_allows_are_refused_with_the_most_it_does() {
        assert_eq!(raise_open_files(16), Ok(()));
        if let Some(most) = getrlimit(Resource::Nofile).maximum {
            assert_eq!(raise_open_files(most), Ok(()));
            assert_eq!(raise_open_files(most + 1), Err(most));
        }
    }
}
