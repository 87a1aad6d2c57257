//! `--log`: how much is told on standard error.

use core::sync::atomic::{AtomicU8, Ordering};

/// What is told on standard error besides errors: each tells what the ones before tell, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// Nothing.
    Errors,
    /// Warnings.
    Warnings,
    /// How far the work is.
    Progress,
}

/// The [`Told`] of this process, as a number.
static TOLD: AtomicU8 = AtomicU8::new(Told::Progress as u8);

impl Told {
    /// Reads the level of a log.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "off" | "error" => Ok(Self::Errors),
            "warn" => Ok(Self::Warnings),
            "info" | "debug" | "trace" => Ok(Self::Progress),
            _ => Err("off, error, warn, info, debug or trace would be right"),
        }
    }

    /// What is told now.
    pub(crate) fn now() -> Self {
        match TOLD.load(Ordering::Relaxed) {
            0 => Self::Errors,
            1 => Self::Warnings,
            _ => Self::Progress,
        }
    }

    /// Sets it for the rest of the process.
    pub(crate) fn set(self) {
        TOLD.store(self as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_log_say_what_is_told() {
        assert_eq!(Told::parse("error"), Ok(Told::Errors));
        assert_eq!(Told::parse("warn"), Ok(Told::Warnings));
        assert_eq!(Told::parse("debug"), Ok(Told::Progress));
        assert!(Told::parse("loud").is_err());
    }
}
