//! The JSON of each type, byte for byte: a change of it is a change of the API.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use whimbrel_api::*;
use whimbrel_protocol::message::{Policy, State};

/// The JSON of `value` is `text`, and the other way round.
#[track_caller]
fn is_on_the_wire<T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug>(value: &T, text: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), text);
    assert_eq!(&serde_json::from_str::<T>(text).unwrap(), value);
}

fn patch() -> Payload {
    Payload {
        payload: "11".repeat(8),
        kind: PayloadKind::Patch,
        base: Some("aa".into()),
        base_version: None,
        transfer_size: 4000,
    }
}

const PATCH: &str =
    r#"{"payload":"1111111111111111","kind":"patch","base":"aa","base_version":null,"transfer_size":4000}"#;

#[test]
fn a_campaign_is_an_object_of_these_fields_in_this_order() {
    let in_state = |state: DeviceState| u64::from(state == State::Confirmed.into()) * 3;
    let mut campaign = Campaign {
        id: "3b9c".into(),
        group: "all".into(),
        release: "4f3a".into(),
        version: "1.4.2".into(),
        sequence: 17,
        state: CampaignState::Active,
        attempt: 1,
        document_version: 3,
        created: 1_790_000_000,
        spread_s: 7200,
        devices: DevicesByState::new(4, in_state),
        percent: 75,
        bytes_received: 12_000,
        bytes_twice: 5,
        failures: [("no-room".to_owned(), 1)].into(),
        payloads: Vec::from([PayloadShare { payload: patch(), devices: 3, bytes_received: 12_000 }]),
        without_patch: None,
        rekeyed: None,
        device_list: None,
        warnings: Vec::new(),
    };
    let share = PATCH.replace('}', r#","devices":3,"bytes_received":12000}"#);
    let text = format!(
        concat!(
            r#"{{"id":"3b9c","group":"all","release":"4f3a","version":"1.4.2","sequence":17,"state":"active","#,
            r#""attempt":1,"document_version":3,"created":1790000000,"spread_s":7200,"devices":{{"total":4,"#,
            r#""waiting":0,"offered":0,"deferred":0,"downloading":0,"downloaded":0,"installing":0,"rebooting":0,"#,
            r#""testing":0,"confirmed":3,"reverted":0,"failed":0,"cancelled":0}},"percent":75,"#,
            r#""bytes_received":12000,"bytes_twice":5,"failures":{{"no-room":1}},"payloads":[{}]}}"#,
        ),
        share
    );
    is_on_the_wire(&campaign, &text);
    campaign.without_patch =
        Some(WithoutPatch { devices: 1, images: 1, total_saved_bytes: None, estimated: false });
    campaign.rekeyed = Some(RekeyedDevices { devices: 1, ids: Vec::from(["m1".into()]) });
    campaign.device_list = Some(Vec::from([CampaignDevice {
        id: "m1".into(),
        state: DeviceState::Waiting,
        reason: None,
        percent: 0,
        bytes_received: 0,
        bytes_twice: 0,
        payload: Some(patch()),
        given_up: None,
        seen: None,
    }]));
    let more = format!(
        concat!(
            r#","without_patch":{{"devices":1,"images":1,"total_saved_bytes":null,"estimated":false}},"#,
            r#""rekeyed":{{"devices":1,"ids":["m1"]}},"#,
            r#""device_list":[{{"id":"m1","state":"waiting","reason":null,"percent":0,"bytes_received":0,"#,
            r#""bytes_twice":0,"payload":{},"given_up":null,"seen":null}}]}}"#,
        ),
        PATCH
    );
    is_on_the_wire(&campaign, &(text.strip_suffix('}').unwrap().to_owned() + &more));
}

#[test]
fn a_device_is_an_object_of_these_fields_in_this_order() {
    let device = Device {
        id: "m1".into(),
        state: Standing::Rekeyed,
        fingerprint: Some("9f1c-02aa-7d3e-51b0".into()),
        rekeyed: Some(Rekeyed { fingerprint: "1a2b-02aa-7d3e-51b0".into(), class: "60f6".into(), seen: 9 }),
        class: "60f6".into(),
        groups: Vec::from(["all".into()]),
        running: None,
        version: Some("1.4.2".into()),
        sequence: 17,
        seen: Some(1_790_000_000),
        online_hint: true,
        deployment: Some(DeviceDeployment {
            campaign: "3b9c".into(),
            state: State::Downloading.into(),
            reason: None,
            bytes_received: 4000,
            bytes_twice: 0,
            payload: Some(patch()),
            given_up: None,
        }),
        warnings: Vec::new(),
    };
    let text = format!(
        concat!(
            r#"{{"devices":[{{"id":"m1","state":"rekeyed","fingerprint":"9f1c-02aa-7d3e-51b0","#,
            r#""rekeyed":{{"fingerprint":"1a2b-02aa-7d3e-51b0","class":"60f6","seen":9}},"class":"60f6","#,
            r#""groups":["all"],"running":null,"version":"1.4.2","sequence":17,"seen":1790000000,"online_hint":true,"#,
            r#""deployment":{{"campaign":"3b9c","state":"downloading","reason":null,"bytes_received":4000,"bytes_twice":0,"#,
            r#""payload":{},"given_up":null}}}}],"next":null}}"#,
        ),
        PATCH
    );
    is_on_the_wire(&Devices { devices: Vec::from([device]), next: None }, &text);
    is_on_the_wire(&Imported { imported: 2, unchanged: 1 }, r#"{"imported":2,"unchanged":1}"#);
}

#[test]
fn a_release_and_its_bases_are_objects_of_these_fields_in_this_order() {
    let missing = MissingPayload { index_digest: "bb".into(), transfer_size: 7 };
    let release = Release {
        release: "4f3a".into(),
        sequence: 17,
        version: "1.4.2".into(),
        vendor: "00".into(),
        class: "60f6".into(),
        image_size: 9,
        state: ReleaseState::Incomplete,
        missing: Vec::from([missing]),
        warnings: Vec::new(),
    };
    let text = concat!(
        r#"{"release":"4f3a","sequence":17,"version":"1.4.2","vendor":"00","class":"60f6","image_size":9,"#,
        r#""state":"incomplete","missing":[{"index_digest":"bb","transfer_size":7}]}"#,
    );
    is_on_the_wire(&release, text);
    let stored = StoredPayload { index_digest: "bb".into(), transfer_size: 7 };
    is_on_the_wire(&stored, r#"{"index_digest":"bb","transfer_size":7}"#);
    let patch =
        Patch { base: "aa".into(), version: None, sequence: Some(16), patch_bytes: 4000, devices: 40 };
    let base = Base {
        image: "dd".into(),
        release: None,
        version: None,
        sequence: 0,
        devices: 58,
        patch_bytes: Some(555),
        saved_bytes: Some(39_445),
        total_saved_bytes: None,
        estimated: false,
        from: Some("another envelope of the release".into()),
    };
    let bases = Bases {
        release: "4f3a".into(),
        version: "1.5.0".into(),
        sequence: 18,
        group: None,
        full_bytes: 40_000,
        devices: 1200,
        current: 300,
        later: 0,
        unknown: 2,
        patches: Vec::from([patch]),
        bases: Vec::from([base]),
        more_images: 0,
        more_devices: 0,
        total_saved_bytes: None,
        estimated: true,
    };
    let text = concat!(
        r#"{"release":"4f3a","version":"1.5.0","sequence":18,"group":null,"full_bytes":40000,"devices":1200,"#,
        r#""current":300,"later":0,"unknown":2,"patches":[{"base":"aa","version":null,"sequence":16,"#,
        r#""patch_bytes":4000,"devices":40}],"bases":[{"image":"dd","release":null,"version":null,"sequence":0,"#,
        r#""devices":58,"patch_bytes":555,"saved_bytes":39445,"total_saved_bytes":null,"estimated":false,"#,
        r#""from":"another envelope of the release"}],"more_images":0,"more_devices":0,"#,
        r#""total_saved_bytes":null,"estimated":true}"#,
    );
    is_on_the_wire(&bases, text);
}

#[test]
fn the_state_of_the_service_is_an_object_of_these_fields_in_this_order() {
    let status = Status {
        version: "0.1.0".into(),
        prefix: "ota".into(),
        attached: Attachment::Embedded,
        broker_up: true,
        devices: DeviceCounts { accepted: 2, pending: 1 },
        releases: 1,
        campaigns: 0,
        clock: None,
        store: None,
        counters: [("chunks_served".to_owned(), 12)].into(),
    };
    let text = concat!(
        r#"{"version":"0.1.0","prefix":"ota","attached":"embedded","broker_up":true,"#,
        r#""devices":{"accepted":2,"pending":1},"releases":1,"campaigns":0,"counters":{"chunks_served":12}}"#,
    );
    is_on_the_wire(&status, text);
    is_on_the_wire(&ErrorBody { error: "no".into() }, r#"{"error":"no"}"#);
}

#[test]
fn an_order_leaves_out_what_was_not_asked_for() {
    let order = CampaignOrder { release: "4f3a".into(), group: "all".into(), ..CampaignOrder::default() };
    let text = r#"{"release":"4f3a","group":"all","spread_s":0,"priority":0}"#;
    is_on_the_wire(&order, text);
    assert_eq!(serde_json::from_str::<CampaignOrder>(r#"{"release":"4f3a","group":"all"}"#).unwrap(), order);
    is_on_the_wire(&Acceptance { fingerprint: "f".into(), groups: None }, r#"{"fingerprint":"f"}"#);
    is_on_the_wire(&Groups { groups: Vec::from(["all".into()]) }, r#"{"groups":["all"]}"#);
}

#[test]
fn a_request_with_a_field_of_another_name_is_refused_and_an_answer_is_not() {
    let order = json!({ "release": "4f3a", "group": "all", "sperad_s": 1 });
    assert!(serde_json::from_value::<CampaignOrder>(order).is_err());
    assert!(serde_json::from_value::<Acceptance>(json!({ "fingerprint": "f", "group": "all" })).is_err());
    assert!(serde_json::from_value::<Groups>(json!({ "groups": [], "more": 1 })).is_err());
    assert!(serde_json::from_value::<DevicesQuery>(json!({ "color": "red" })).is_err());
    assert!(serde_json::from_value::<Imported>(json!({ "imported": 1, "unchanged": 0, "new": [] })).is_ok());
    let counts = json!({ "total": 1, "waiting": 1, "dreaming": { "of": "sheep" } });
    let counts = serde_json::from_value::<DevicesByState>(counts).unwrap();
    assert_eq!((counts.total(), counts.in_state(DeviceState::Waiting), counts.ended()), (1, 1, 0));
}

#[test]
fn each_state_of_a_device_has_one_word_and_four_are_ends() {
    let states: Vec<DeviceState> = DeviceState::all().collect();
    assert_eq!(states.len(), 12);
    for state in &states {
        is_on_the_wire(state, &format!("\"{state}\""));
    }
    let ends: Vec<&str> = states.iter().filter(|state| state.is_final()).map(|state| state.name()).collect();
    assert_eq!(ends, ["confirmed", "reverted", "failed", "cancelled"]);
    assert!(serde_json::from_str::<DeviceState>("\"dreaming\"").is_err());
    let counts = DevicesByState::new(12, |_| 1);
    assert_eq!((counts.iter().count(), counts.ended()), (12, 4));
}

#[test]
fn a_policy_is_found_by_its_word() {
    for policy in [Policy::Soft, Policy::Forced, Policy::DownloadOnly] {
        assert_eq!(policy_named(policy_name(policy)), Some(policy));
    }
    assert_eq!(policy_named("hard"), None);
}

#[test]
fn a_warning_is_an_object_of_a_word_a_count_and_a_line_and_none_takes_no_place() {
    let warning = Warning { kind: WarningKind::EmptyGroup, devices: 0, text: "nobody".into() };
    let json = r#"{"kind":"empty-group","devices":0,"text":"nobody"}"#;
    assert_eq!(serde_json::to_string(&warning).unwrap(), json);
    let device = r#"{"id":"m1","state":"accepted","fingerprint":null,"rekeyed":null,"class":"00","groups":[],"running":null,"version":null,"sequence":0,"seen":null,"online_hint":false,"deployment":null}"#;
    let mut read: Device = serde_json::from_str(device).unwrap();
    assert_eq!(read.warnings, []);
    assert_eq!(serde_json::to_string(&read).unwrap(), device);
    read.warnings.push(warning);
    assert!(serde_json::to_string(&read).unwrap().ends_with(&format!(r#","warnings":[{json}]}}"#)));
}
