//! Why an operator's new about devices is refused.

use thiserror::Error;
use whimbrel_protocol::cose::Fingerprint;
use whimbrel_protocol::ids::{DeviceId, GroupName};

/// Why a device is not accepted, reset or moved.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RegistryError {
    /// The device has never enrolled, or was reset since.
    #[error("device {id} is not known: it appears here once it has connected and enrolled")]
    Unknown {
        /// Which device.
        id: DeviceId,
    },
    /// The device waits to be accepted.
    #[error("device {id} is pending: accept it first")]
    NotAccepted {
        /// Which device.
        id: DeviceId,
    },
    /// The key that enrolled is another one than the operator expects.
    #[error(
        "device {id} enrolled with a key whose fingerprint is {brought}, not {given}: compare it with what the \
         device itself shows; if somebody else took the id, reset it"
    )]
    Fingerprint {
        /// Which device.
        id: DeviceId,
        /// Of the key that enrolled.
        brought: Fingerprint,
        /// What the operator gave.
        given: Fingerprint,
    },
    /// A device has a limited number of groups.
    #[error("{got} groups are too many, a device has at most {limit}")]
    TooManyGroups {
        /// Asked for.
        got: usize,
        /// Allowed.
        limit: usize,
    },
    /// A group stands twice.
    #[error("group {group} stands twice")]
    GroupTwice {
        /// Which group.
        group: GroupName,
    },
    /// There is no room for more devices.
    #[error("{limit} devices are accepted, more are not possible")]
    Full {
        /// Allowed.
        limit: usize,
    },
}

/// Why a list of devices is not imported. Nothing of it is.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ImportError {
    /// The text is not UTF-8.
    #[error("the list is not UTF-8 text")]
    Text,
    /// A line is not as it should be.
    #[error("line {line}: {what}")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A device stands twice.
    #[error("line {line}: device {id} stands in line {first} too")]
    Twice {
        /// Which line, from 1.
        line: usize,
        /// The line where it stands first.
        first: usize,
        /// Which device.
        id: DeviceId,
    },
    /// A device is accepted with another key.
    #[error("line {line}: device {id} is accepted with another key; reset it first if this one is right")]
    OtherKey {
        /// Which line, from 1.
        line: usize,
        /// Which device.
        id: DeviceId,
    },
    /// There is no room for more devices.
    #[error("{limit} devices are accepted at most, the list would exceed that")]
    Full {
        /// Allowed.
        limit: usize,
    },
}
