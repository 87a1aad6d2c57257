//! What people see while a run goes on, on standard error: bars on a terminal, a line now and then elsewhere.

use alloc::sync::Arc;
use core::time::Duration;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::clock::Clock;
use crate::fleet::{DeviceState, Fleet, FleetCounts};
use crate::words::{bytes_in_words, grouped};

/// What the bars run up to.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Devices in the run.
    pub devices: u32,
    /// Bytes that all of them fetch together.
    pub total_bytes: u64,
}

/// Where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// Bars, redrawn in place.
    Bars,
    /// A line every few seconds.
    Lines,
    /// Nothing.
    Quiet,
}

impl Display {
    /// Bars where standard error is a terminal, lines where not.
    #[must_use]
    pub fn fitting() -> Self {
        if std::io::stderr().is_terminal() { Self::Bars } else { Self::Lines }
    }
}

/// Shows how the fleet is doing, until it is dropped. Never returns.
pub async fn show(fleet: Arc<Fleet>, goal: Goal, clock: Clock, display: Display) {
    match display {
        Display::Bars => {
            let bars = Bars::new(goal);
            loop {
                bars.update(&fleet.counts());
                tokio::time::sleep(REDRAW_EVERY).await;
            }
        }
        Display::Lines => loop {
            tokio::time::sleep(LINE_EVERY).await;
            eprintln!("{}", line(&fleet.counts(), goal, clock.real_elapsed()));
        },
        Display::Quiet => core::future::pending().await,
    }
}

/// One line for a log: `12 s: 41 % of 200.0 MiB; 3 downloading, 7 confirmed; 12 link cuts`.
#[must_use]
pub fn line(counts: &FleetCounts, goal: Goal, elapsed: Duration) -> String {
    let total = goal.total_bytes;
    let percent = counts.chunk_bytes.saturating_mul(100).checked_div(total).unwrap_or(0);
    let seconds = elapsed.as_secs();
    let mut line =
        format!("{seconds} s: {percent} % of {}; {}", bytes_in_words(total), counts.states_in_words());
    if counts.link_cuts > 0 {
        line += &format!("; {} link cuts", grouped(counts.link_cuts));
    }
    line + &trouble(counts)
}

/// What went wrong, for the end of a line; nothing where nothing did.
fn trouble(counts: &FleetCounts) -> String {
    match &counts.last_trouble {
        Some(why) => format!("; {} connections failed, last: {why}", grouped(counts.troubles)),
        None => String::new(),
    }
}

/// Bytes, devices, and a line of words; they vanish when dropped, so that the table follows the command.
struct Bars {
    bytes: ProgressBar,
    devices: ProgressBar,
    words: ProgressBar,
    _all: MultiProgress,
}

impl Bars {
    fn new(goal: Goal) -> Self {
        let all = MultiProgress::new();
        let style =
            |template| ProgressStyle::with_template(template).expect("a test draws it").progress_chars("=> ");
        let bar = |length, template| all.add(ProgressBar::new(length)).with_style(style(template));
        Self {
            bytes: bar(goal.total_bytes, BYTES_TEMPLATE),
            devices: bar(goal.devices.into(), DEVICES_TEMPLATE),
            words: bar(0, WORDS_TEMPLATE),
            _all: all,
        }
    }

    fn update(&self, counts: &FleetCounts) {
        self.bytes.set_position(counts.chunk_bytes);
        self.devices.set_position(counts.in_state(DeviceState::Confirmed));
        self.devices.set_message(format!("{} connected, {} link cuts", counts.connected, counts.link_cuts));
        self.words.set_message(counts.states_in_words() + &trouble(counts));
        self.words.tick();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for bar in [&self.bytes, &self.devices, &self.words] {
            bar.finish_and_clear();
        }
    }
}

const BYTES_TEMPLATE: &str =
    "fetched   [{bar:40}] {percent:>3} %  {binary_bytes_per_sec}  {elapsed} of about {duration}";
const DEVICES_TEMPLATE: &str = "confirmed [{bar:40}] {pos}/{len}  {msg}";
const WORDS_TEMPLATE: &str = "{msg}";
const REDRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const GOAL: Goal = Goal { devices: 4, total_bytes: 4 << 20 };

    fn some_counts() -> FleetCounts {
        let fleet = Fleet::new(4);
        fleet.changed(DeviceState::Idle, DeviceState::Downloading);
        fleet.changed(DeviceState::Idle, DeviceState::Confirmed);
        fleet.fetched(1 << 20);
        fleet.cut();
        fleet.counts()
    }

    #[test]
    fn a_line_says_how_far_the_fleet_is() {
        let said = line(&some_counts(), GOAL, Duration::from_millis(12_900));
        assert_eq!(said, "12 s: 25 % of 4.0 MiB; 2 idle, 1 downloading, 1 confirmed; 1 link cuts");
    }

    #[test]
    fn a_line_says_why_nothing_connects() {
        let fleet = Fleet::new(1);
        fleet.trouble(|| "connection refused".to_owned());
        let said = line(&fleet.counts(), GOAL, Duration::ZERO);
        assert!(said.ends_with("1 idle; 1 connections failed, last: connection refused"), "{said}");
    }

    #[test]
    fn the_bars_can_be_drawn() {
        let bars = Bars::new(GOAL);
        bars.update(&some_counts());
        assert_eq!((bars.bytes.position(), bars.bytes.length()), (1 << 20, Some(4 << 20)));
        assert_eq!((bars.devices.position(), bars.devices.length()), (1, Some(4)));
        assert!(bars.words.message().contains("1 downloading"));
    }

    #[test]
    fn a_run_that_fetches_nothing_does_not_divide_by_it() {
        let none = Goal { devices: 0, total_bytes: 0 };
        assert!(line(&Fleet::new(0).counts(), none, Duration::ZERO).starts_with("0 s: 0 % of 0 B"));
    }
}
