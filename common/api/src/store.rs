//! The database of the service, if it cannot be believed.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why the service signs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreDoubt {
    /// One line for a person: what is wrong, and what to do.
    pub text: String,
}

/// What became of `POST /v1/store/accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreAccepted {
    /// Whether there was a reason to doubt it: the service signed nothing, or devices hold newer documents.
    pub doubted: bool,
}
