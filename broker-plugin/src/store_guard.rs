//! Whether the database can be believed.
//!
//! Devices refuse what is older than what they have. A service that begins again with an empty or an old database would
//! number its documents from where that one stands, and devices would take none of them, without a word. So it looks
//! at its start whether the database knows of all that was signed. While it does not, nothing is signed. An operator
//! who restored the database on purpose accepts it: all versions then go on above any that was ever signed.

use whimbrel_protocol::time::UnixTime;

/// Why the database is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDoubt {
    /// Nothing was ever signed with it, and payloads of an earlier one are there.
    Empty {
        /// How many.
        payloads: u64,
    },
}

impl StoreDoubt {
    /// What there is to doubt about a database whose last beacon has the version `beacon`, beside so many payloads. The
    /// first start signs a beacon before anybody can upload a payload.
    #[must_use]
    pub const fn of(beacon: u64, payloads: u64) -> Option<Self> {
        if beacon == 0 && payloads > 0 {
            return Some(Self::Empty { payloads });
        }
        None
    }
}

/// What all versions are above after an operator has accepted the database at this time: the time in seconds. Less than
/// one document a second was signed since 1970, and accepting a second time leads higher again.
#[must_use]
pub(crate) const fn versions_above(today: UnixTime) -> u64 {
    today.as_secs()
}

impl core::fmt::Display for StoreDoubt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty { payloads: 1 } => {
                write!(f, "the database is empty and the payload folder has 1 payload")?
            }
            Self::Empty { payloads } => {
                write!(f, "the database is empty and the payload folder has {payloads} payloads")?;
            }
        }
        f.write_str(
            ", so that nothing is signed: stop the service and put the newest copy of the database back, or run \
             `whimbreld store accept` on its machine if there is none newer",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_that_never_signed_beside_payloads_is_called_empty() {
        assert_eq!(StoreDoubt::of(0, 0), None, "a first start");
        assert_eq!(StoreDoubt::of(1, 5), None);
        let doubt = StoreDoubt::of(0, 5).unwrap();
        assert!(doubt.to_string().contains("empty and the payload folder has 5 payloads"), "{doubt}");
    }
}
