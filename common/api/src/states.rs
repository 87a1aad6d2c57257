//! The states of devices: those of the protocol, and waiting, which only the service knows.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};
use whimbrel_protocol::message::State;

/// How far a device is with a campaign. On the wire it is a word, such as `downloading`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// The device has not begun.
    Waiting,
    /// What the device says. Never [`State::Idle`], which says nothing about a campaign.
    Begun(State),
}

impl DeviceState {
    /// Every state, in the order in which a device goes through them.
    pub fn all() -> impl Iterator<Item = Self> {
        let begun = State::ALL.into_iter().filter(|state| *state != State::Idle);
        core::iter::once(Self::Waiting).chain(begun.map(Self::Begun))
    }

    /// The word for it, as on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Begun(state) => state.name(),
        }
    }

    /// Whether the device has nothing more to do for the campaign.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Waiting => false,
            Self::Begun(state) => state.is_final(),
        }
    }

    fn named(word: &str) -> Option<Self> {
        let begun = State::ALL.into_iter().map(Self::Begun);
        core::iter::once(Self::Waiting).chain(begun).find(|state| state.name() == word)
    }
}

impl From<State> for DeviceState {
    fn from(state: State) -> Self {
        Self::Begun(state)
    }
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for DeviceState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for DeviceState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let unknown = || de::Error::invalid_value(de::Unexpected::Str(&word), &"the state of a device");
        Self::named(&word).ok_or_else(unknown)
    }
}

impl PartialSchema for DeviceState {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "How far a device is with a campaign, in the order in which it goes through them.",
            ))
            .enum_values(Some(Self::all().map(Self::name)))
            .into()
    }
}

impl ToSchema for DeviceState {
    fn name() -> Cow<'static, str> {
        "DeviceState".into()
    }
}

/// The devices of a campaign by state. On the wire it is an object of the total and a number for each state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicesByState {
    total: u64,
    /// One for each state, in the order of [`DeviceState::all`].
    counts: Vec<(DeviceState, u64)>,
}

impl DevicesByState {
    /// Counts `total` devices, of which `in_state` says how many are in a state.
    #[must_use]
    pub fn new(total: u64, in_state: impl Fn(DeviceState) -> u64) -> Self {
        Self { total, counts: DeviceState::all().map(|state| (state, in_state(state))).collect() }
    }

    /// All devices.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The devices in `state`.
    #[must_use]
    pub fn in_state(&self, state: DeviceState) -> u64 {
        self.iter().find(|(known, _)| *known == state).map_or(0, |(_, count)| count)
    }

    /// Every state and the devices in it, in the order in which a device goes through the states.
    pub fn iter(&self) -> impl Iterator<Item = (DeviceState, u64)> {
        self.counts.iter().copied()
    }

    /// The devices that have nothing more to do for the campaign.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum()
    }
}

const TOTAL: &str = "total";

impl Serialize for DevicesByState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.counts.len()))?;
        map.serialize_entry(TOTAL, &self.total)?;
        for (state, count) in self.iter() {
            map.serialize_entry(state.name(), &count)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for DevicesByState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CountsVisitor)
    }
}

struct CountsVisitor;

impl<'de> Visitor<'de> for CountsVisitor {
    type Value = DevicesByState;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers of devices by state")
    }

    /// States that are not there count 0, and what is no state is overlooked.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DevicesByState, A::Error> {
        let mut total = None;
        let mut counts: Vec<(DeviceState, u64)> = Vec::new();
        while let Some(word) = map.next_key::<String>()? {
            match DeviceState::named(&word) {
                Some(state) => counts.push((state, map.next_value()?)),
                None if word == TOTAL => total = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let total = total.ok_or_else(|| de::Error::missing_field(TOTAL))?;
        Ok(DevicesByState::new(total, |state| {
            counts.iter().rev().find(|(known, _)| *known == state).map_or(0, |(_, count)| *count)
        }))
    }
}

impl PartialSchema for DevicesByState {
    fn schema() -> RefOr<Schema> {
        let count = |description: String| {
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .minimum(Some(0))
                .description(Some(description))
        };
        let object = ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("The devices of a campaign by state."))
            .property(TOTAL, count("All devices.".into()))
            .required(TOTAL);
        let with = |object: ObjectBuilder, state: DeviceState| {
            let description = alloc::format!("Devices in state `{state}`.");
            object.property(state.name(), count(description)).required(state.name())
        };
        DeviceState::all().fold(object, with).into()
    }
}

impl ToSchema for DevicesByState {
    fn name() -> Cow<'static, str> {
        "DevicesByState".into()
    }
}
