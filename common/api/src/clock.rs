//! The clock of the service, if it cannot be believed.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why the service signs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClockDoubt {
    /// What the clock shows.
    pub shown: u64,
    /// What it would show if no more time had passed than the service knows of.
    pub expected: u64,
    /// One line for a person: what is wrong, and what to do.
    pub text: String,
}

/// What became of `POST /v1/clock/accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClockAccepted {
    /// The time by which the service signs from now on.
    pub time: u64,
    /// Whether it had signed nothing because of its clock.
    pub doubted: bool,
}
