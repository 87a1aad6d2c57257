//! Which trust anchor counts: the root that the device has pinned, or one that its host offers.

use alloc::vec::Vec;

use whimbrel_protocol::cose::{Kind, Signatures};
use whimbrel_protocol::trust::{Role, Root, TrustError};

/// What a root that the host offers means to a device that has pinned one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferedRoot {
    /// It says nothing new.
    Known,
    /// It takes the place of the pinned root.
    Successor(Root),
    /// It does not follow from the pinned root, which stays.
    Refused {
        /// Its version.
        version: u64,
    },
}

impl OfferedRoot {
    /// Compares the root in `bytes` with the one that is held. A root with a higher version takes its place if the root
    /// keys of *both* signed it.
    ///
    /// # Errors
    /// [`TrustError`] if the bytes are no root.
    pub fn of(held: &Root, bytes: &[u8]) -> Result<Self, TrustError> {
        let offered = Root::verify(bytes)?;
        if offered.version < held.version || offered == *held {
            return Ok(Self::Known);
        }
        if offered.version > held.version && is_signed_by(held, bytes) {
            return Ok(Self::Successor(offered));
        }
        Ok(Self::Refused { version: offered.version })
    }
}

/// The root that counts, and its bytes: `offered` if none is pinned or if it is the successor, else the pinned one. For
/// hosts that tell nobody why an offered root is not taken.
///
/// # Errors
/// [`TrustError`] if nothing is pinned and `offered` is no root.
pub fn trust_anchor(pinned: &[u8], offered: &[u8]) -> Result<(Root, Vec<u8>), TrustError> {
    let Ok(held) = Root::verify(pinned) else {
        return Ok((Root::verify(offered)?, offered.to_vec()));
    };
    Ok(match OfferedRoot::of(&held, offered) {
        Ok(OfferedRoot::Successor(root)) => (root, offered.to_vec()),
        _ => (held, pinned.to_vec()),
    })
}

/// Whether enough root keys of `held` signed the root in `bytes`.
fn is_signed_by(held: &Root, bytes: &[u8]) -> bool {
    let keys = held.role(Role::Root);
    let count = Signatures::decode(bytes).ok().map(|signed| signed.count(Kind::Root, keys.keys.iter()));
    matches!(count, Some(Ok(count)) if count >= keys.threshold)
}
