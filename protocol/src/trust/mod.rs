//! Who may sign what: roles, thresholds, and `root.cbor` that names them (SPEC section 4.3).
//!
//! The root is the only anchor. Each key is bound to exactly one role. Root and release keys sign with a
//! threshold; campaign and beacon keys are online and one of them is enough.

mod error;
mod root;

pub use error::TrustError;
pub use root::{Role, RoleKeys, Root};
