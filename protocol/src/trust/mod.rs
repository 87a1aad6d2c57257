//! Who may sign what: roles, thresholds, and `root.cbor` that names them (SPEC section 4.3).
//!
//! The root is the only trust anchor. It binds each key to exactly one role. Root and release keys sign with
//! a threshold. Campaign and beacon keys are online, and the signature of one of them is enough.

mod error;
mod root;

pub use error::TrustError;
pub use root::{Role, RoleKeys, Root};
