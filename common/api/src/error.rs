//! The answer to a request that is not carried out.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer whose status is 400 or more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// One line for a person: what is wrong, where, and what would be right. Programs decide by the status.
    pub error: String,
}
