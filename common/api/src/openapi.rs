//! Describes the API to programs, in an OpenAPI 3.1 document that is made from the same types and paths.

mod operation;

use alloc::string::String;
use alloc::vec::Vec;

use operation::{Described, bytes, json, many, one};
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, PathItem, PathsBuilder};
use utoipa::openapi::schema::{ComponentsBuilder, Schema};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{InfoBuilder, License, OpenApi, OpenApiBuilder, RefOr};

use crate::{
    Acceptance, Bases, BasesQuery, Campaign, CampaignOrder, CampaignQuery, ClockAccepted, Device, Devices,
    DevicesQuery, ErrorBody, Groups, ImportQuery, Imported, Release, Status, StoreAccepted, StoredPayload,
    routes,
};

const DESCRIPTION: &str = "\
The API that operators of a Whimbrel service use. It listens on loopback only and wants a bearer token.

A request whose body or parameters have a field of another name is refused. A program that reads answers should overlook \
fields that it does not know: later versions may add some.

Fields that end in `_bytes`, `_size` or begin with `bytes_` count bytes, `_s` counts seconds, and `created`, `seen` and \
`not_before` are seconds since 1970-01-01T00:00:00Z.";

const TOKEN: &str = "token";

/// The document.
#[must_use]
pub fn document() -> OpenApi {
    let components = ComponentsBuilder::new()
        .security_scheme(TOKEN, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .schemas_from_iter(schemas());
    let info = InfoBuilder::new()
        .title("Whimbrel admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(License::new("Apache-2.0")));
    let mut paths = PathsBuilder::new();
    for (path, method, described) in operations() {
        paths = paths.path(path, PathItem::new(method, described.build()));
    }
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::new(TOKEN, [""; 0])]))
        .build()
}

/// Every type of a body, with those that it is made of.
fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = Vec::new();
    schema::<ErrorBody>(&mut schemas);
    schema::<Status>(&mut schemas);
    schema::<ClockAccepted>(&mut schemas);
    schema::<StoreAccepted>(&mut schemas);
    schema::<Release>(&mut schemas);
    schema::<Bases>(&mut schemas);
    schema::<StoredPayload>(&mut schemas);
    schema::<CampaignOrder>(&mut schemas);
    schema::<Campaign>(&mut schemas);
    schema::<Devices>(&mut schemas);
    schema::<Acceptance>(&mut schemas);
    schema::<Groups>(&mut schemas);
    schema::<Imported>(&mut schemas);
    schemas
}

fn schema<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// Every operation, with the statuses that it may be refused with beside those that every request may get.
fn operations() -> Vec<(&'static str, HttpMethod, Described)> {
    let parts = [of_releases(), of_campaigns(), of_devices()];
    let status =
        Described::new("status", "Tells what there is, and what was counted.").answers(one::<Status>());
    let status = (routes::STATUS, HttpMethod::Get, status);
    let clock = Described::new(
        "accept_clock",
        "Says that the clock of the service is right, so that it signs again. Without a doubt nothing changes.",
    )
    .answers(one::<ClockAccepted>());
    let clock = (routes::CLOCK_ACCEPT, HttpMethod::Post, clock);
    let store = Described::new(
        "accept_store",
        "Says that there is no newer database, so that the service signs again. Without a doubt nothing changes.",
    )
    .answers(one::<StoreAccepted>())
    .refused(&[507]);
    let store = (routes::STORE_ACCEPT, HttpMethod::Post, store);
    [status, clock, store].into_iter().chain(parts.into_iter().flatten()).collect()
}

fn of_releases() -> Vec<(&'static str, HttpMethod, Described)> {
    const DIGITS: &str =
        "The first digits of the release's digest: at least 4, and as many as tell it apart.";
    let list = Described::new("releases", "Lists every release.").answers(many::<Release>());
    let add = Described::new("add_release", "Stores an envelope. The same one again changes nothing.")
        .takes(bytes("application/cbor", "The signed envelope."))
        .answers(one::<Release>())
        .refused(&[400, 408, 409, 413, 422, 507]);
    let release = Described::new("release", "Shows a release.")
        .named("hex", DIGITS)
        .answers(one::<Release>())
        .refused(&[400, 404, 409]);
    let bases =
        Described::new("bases", "Lists images that devices run and that the release has no patch for.")
            .named("hex", DIGITS)
            .asks::<BasesQuery>()
            .answers(one::<Bases>())
            .refused(&[400, 404, 409]);
    let payload = Described::new("put_payload", "Stores the bytes of a payload that a release names.")
        .named("hex", "The index digest of the payload: 64 hexadecimal digits.")
        .takes(bytes("application/octet-stream", "The payload, exactly as long as its index says."))
        .answers(one::<StoredPayload>())
        .refused(&[400, 404, 408, 413, 422, 507]);
    Vec::from([
        (routes::RELEASES, HttpMethod::Get, list),
        (routes::RELEASES, HttpMethod::Post, add),
        (routes::RELEASE, HttpMethod::Get, release),
        (routes::BASES, HttpMethod::Get, bases),
        (routes::PAYLOAD, HttpMethod::Put, payload),
    ])
}

fn of_campaigns() -> Vec<(&'static str, HttpMethod, Described)> {
    const DIGITS: &str = "The first digits of the campaign's id: at least 4, and as many as tell it apart.";
    let list =
        Described::new("campaigns", "Lists every campaign, the oldest first.").answers(many::<Campaign>());
    let create = Described::new(
        "create_campaign",
        "Orders a campaign. It takes the place of the campaign that its group had.",
    )
    .takes(json::<CampaignOrder>())
    .answers(one::<Campaign>())
    .refused(&[400, 404, 408, 409, 413, 422, 507]);
    let campaign = Described::new("campaign", "Shows a campaign, with its devices if they are asked for.")
        .named("id", DIGITS)
        .asks::<CampaignQuery>()
        .answers(one::<Campaign>())
        .refused(&[400, 404, 409]);
    let ordered = |id, summary| {
        Described::new(id, summary)
            .named("id", DIGITS)
            .answers(one::<Campaign>())
            .refused(&[400, 404, 409, 507])
    };
    let abort = ordered("abort_campaign", "Calls a campaign off.");
    let retry = ordered("retry_campaign", "Begins the next attempt of a campaign.");
    Vec::from([
        (routes::CAMPAIGNS, HttpMethod::Get, list),
        (routes::CAMPAIGNS, HttpMethod::Post, create),
        (routes::CAMPAIGN, HttpMethod::Get, campaign),
        (routes::CAMPAIGN_ABORT, HttpMethod::Post, abort),
        (routes::CAMPAIGN_RETRY, HttpMethod::Post, retry),
    ])
}

fn of_devices() -> Vec<(&'static str, HttpMethod, Described)> {
    const ID: &str = "The device's id: 2 to 64 of the characters A-Z a-z 0-9 _ -.";
    let list = Described::new("devices", "Lists devices, page by page.")
        .asks::<DevicesQuery>()
        .answers(one::<Devices>())
        .refused(&[400]);
    let import = Described::new("import_devices", "Accepts the devices of a list, a thousand lines after the other: each thousand whole or not at all.")
        .asks::<ImportQuery>()
        .takes(bytes("text/csv", "A line `id,public key,class,groups` for each device: the key as a COSE_Key in hexadecimal, groups separated by \
             spaces. At most 1,000,000 lines of at most 4,096 bytes. They are taken as they come, so that whoever \
             sends sees how far it is."))
        .answers(one::<Imported>())
        .refused(&[400, 408, 409, 413, 422, 507]);
    let of_one = |id, summary| Described::new(id, summary).named("id", ID).answers(one::<Device>());
    let device = of_one("device", "Shows a device.").refused(&[400, 404]);
    let accept = of_one("accept_device", "Accepts a device whose key has the fingerprint that was compared.")
        .takes(json::<Acceptance>())
        .refused(&[400, 404, 408, 409, 413, 422, 507]);
    let reset = of_one("reset_device", "Forgets a device's key. Its next enrolment waits to be accepted.")
        .refused(&[400, 404, 507]);
    let groups = of_one("set_groups", "Puts an accepted device into these groups and no others.")
        .takes(json::<Groups>())
        .refused(&[400, 404, 408, 409, 413, 422, 507]);
    Vec::from([
        (routes::DEVICES, HttpMethod::Get, list),
        (routes::DEVICES_IMPORT, HttpMethod::Post, import),
        (routes::DEVICE, HttpMethod::Get, device),
        (routes::DEVICE_ACCEPT, HttpMethod::Post, accept),
        (routes::DEVICE_RESET, HttpMethod::Post, reset),
        (routes::DEVICE_GROUPS, HttpMethod::Put, groups),
    ])
}
