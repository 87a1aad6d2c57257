//! The service's admin API: its routes, what they take and answer, and its refusals. It is declared only
//! here.
//!
//! The service and everything that asks it use these types, so that neither side can say something that the other does
//! not read. [`openapi::document`] describes the same types to programs in other languages; `openapi.json` beside this
//! crate is that document.
//!
//! ```
//! use whimbrel_api::{CampaignOrder, DevicesQuery, Imported, routes};
//!
//! // What a client asks.
//! let query = DevicesQuery { limit: Some(1000), state: Some("pending".to_owned()), after: None };
//! assert_eq!(routes::devices(&query), "/v1/devices?limit=1000&state=pending");
//! let order: CampaignOrder = serde_json::from_str(r#"{ "release": "4f3a", "group": "all" }"#)?;
//! assert_eq!((order.spread_s, order.expires_in_s), (0, None));
//!
//! // What it is answered: fields that it does not know are overlooked.
//! let imported: Imported = serde_json::from_str(r#"{ "imported": 2, "unchanged": 1, "new": [] }"#)?;
//! assert_eq!(imported.imported, 2);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Numbers are of these kinds: a field that ends in `_bytes`, `_size` or begins with `bytes_` counts bytes, `_s` counts
//! seconds, `percent` is 0 to 100, and `created`, `seen` and `not_before` are seconds since 1970-01-01T00:00:00Z.
//! Digests and ids are in lower-case hexadecimal. A field that may be `null` is always sent; one that may be absent says
//! so.

extern crate alloc;

mod bases;
mod campaigns;
mod clock;
mod devices;
mod error;
pub mod openapi;
pub mod passwords;
mod payloads;
mod releases;
pub mod routes;
mod states;
mod status;
mod store;
mod warnings;
mod words;

pub use bases::{Base, Bases, BasesQuery, Patch, WithoutPatch};
pub use campaigns::{Campaign, CampaignDevice, CampaignOrder, CampaignQuery, CampaignState, RekeyedDevices};
pub use clock::{ClockAccepted, ClockDoubt};
pub use devices::{
    Acceptance, Device, DeviceDeployment, Devices, DevicesQuery, Groups, ImportQuery, Imported, Rekeyed,
    Standing,
};
pub use error::ErrorBody;
pub use payloads::{Payload, PayloadKind, PayloadShare};
pub use releases::{MissingPayload, Release, ReleaseState, StoredPayload};
pub use states::{DeviceState, DevicesByState};
pub use status::{Attachment, DeviceCounts, Status};
pub use store::{StoreAccepted, StoreDoubt};
pub use warnings::{Warning, WarningKind};
pub use words::{policy_name, policy_named};
