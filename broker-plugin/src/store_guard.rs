//! Whether the database can be believed.
//!
//! Devices refuse what is older than what they have. A service that begins again with an empty or an old database would
//! number its documents from where that one stands, and devices would take none of them, without a word. So it looks
//! at its start whether the database knows of all that was signed. While it does not, nothing is signed. An operator
//! who restored the database on purpose accepts it: all versions then go on above any that was ever signed.

use whimbrel_protocol::time::UnixTime;

use crate::store::Versions;

/// Why the database is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDoubt {
    /// Nothing was ever signed with it, and payloads of an earlier one are there.
    Empty {
        /// How many.
        payloads: u64,
    },
    /// It knows of less than was signed.
    Behind {
        /// What it has handed out.
        database: Versions,
        /// What the mark beside the payload folder says was handed out.
        mark: Versions,
    },
    /// It was signed with, and there is no mark beside the payload folder: it has come from elsewhere.
    Unmarked,
}

impl StoreDoubt {
    /// What there is to doubt about a database that has handed out these versions, beside this mark and so many payloads.
    /// The first start signs a beacon before anybody can upload a payload.
    #[must_use]
    pub fn of(database: Versions, mark: Option<Versions>, payloads: u64) -> Option<Self> {
        if database.beacon == 0 && payloads > 0 {
            return Some(Self::Empty { payloads });
        }
        match mark {
            None => (database != Versions::default()).then_some(Self::Unmarked),
            Some(mark) => (database.max(mark) != database).then_some(Self::Behind { database, mark }),
        }
    }
}

/// What all versions are above after an operator has accepted the database at this time: the time in seconds. Less than
/// one document a second was signed since 1970, and accepting a second time leads higher again. Never below the mark.
#[must_use]
pub(crate) fn versions_above(today: UnixTime, mark: Versions) -> u64 {
    today.as_secs().max(mark.highest())
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
            Self::Behind { database, mark } => {
                let (name, knows, signed) = if database.beacon < mark.beacon {
                    ("beacon", database.beacon, mark.beacon)
                } else if database.campaign < mark.campaign {
                    ("campaign document", database.campaign, mark.campaign)
                } else {
                    ("change of assignments", database.assignments, mark.assignments)
                };
                write!(
                    f,
                    "the database is an old copy: it knows of {name} {knows} and {name} {signed} was signed"
                )?;
            }
            Self::Unmarked => {
                f.write_str(
                    "the database comes from elsewhere: there is no mark of what was signed beside it",
                )?;
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
        assert_eq!(StoreDoubt::of(Versions::default(), None, 0), None, "a first start");
        assert_eq!(
            StoreDoubt::of(Versions::default(), Some(Versions::default()), 0),
            None,
            "cut in the first second"
        );
        let some = Versions { beacon: 1, ..Versions::default() };
        assert_eq!(StoreDoubt::of(some, Some(some), 5), None);
        let doubt = StoreDoubt::of(Versions::default(), Some(some), 5).unwrap();
        assert!(doubt.to_string().contains("empty and the payload folder has 5 payloads"), "{doubt}");
    }
    #[test]
    fn a_database_that_is_behind_the_mark_in_any_series_is_doubted_and_one_that_is_ahead_is_not() {
        let mark = Versions { beacon: 9, campaign: 4, assignments: 2 };
        for (database, name) in [
            (Versions { beacon: 8, ..mark }, "beacon 8 and beacon 9"),
            (Versions { campaign: 3, ..mark }, "campaign document 3 and"),
            (Versions { assignments: 1, beacon: 20, ..mark }, "change of assignments 1 and"),
        ] {
            let doubt = StoreDoubt::of(database, Some(mark), 1).unwrap();
            assert_eq!(doubt, StoreDoubt::Behind { database, mark });
            assert!(doubt.to_string().contains(name), "{doubt}");
        }
        let ahead = Versions { beacon: 10, campaign: 5, assignments: 3 };
        assert_eq!((StoreDoubt::of(mark, Some(mark), 1), StoreDoubt::of(ahead, Some(mark), 1)), (None, None));
        assert_eq!(StoreDoubt::of(mark, None, 1), Some(StoreDoubt::Unmarked));
    }

    #[test]
    fn versions_go_on_above_the_mark_whatever_the_clock_says() {
        let mark = Versions { beacon: 2_000_000_000, ..Versions::default() };
        assert_eq!(versions_above(UnixTime::from_secs(1_800_000_000), mark), 2_000_000_000);
        assert_eq!(versions_above(UnixTime::from_secs(1_800_000_000), Versions::default()), 1_800_000_000);
    }
}
