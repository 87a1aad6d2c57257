//! What an operator is told of devices that bring another key than the accepted one.

use core::fmt::Write as _;

use whimbrel_api::{Device, RekeyedDevices};

/// Devices that are explained below a list; the list has all of them.
const EXPLAINED_MAX: usize = 8;

/// The two commands that accept the key that a rekeyed device brings; none of another device.
pub(super) fn what_to_do(device: &Device) -> Vec<String> {
    let Some(other) = &device.rekeyed else { return Vec::new() };
    let (id, brought) = (&device.id, &other.fingerprint);
    Vec::from([
        format!("whimbrel device reset {id}"),
        format!("whimbrel device accept {id} --fingerprint {brought}"),
    ])
}

/// Says below a list of devices what is the matter with those that are rekeyed.
pub(super) fn explain(devices: &[Device], human: &mut String) {
    let rekeyed = || devices.iter().filter(|device| device.rekeyed.is_some());
    let count = rekeyed().count();
    if count == 0 {
        return;
    }
    human.push_str(
        "\nRekeyed devices bring another key than the accepted one: their reports do not count. If the key is a \
         device's own,\nbecause its data folder was lost or its board replaced, these two commands accept it. If two \
         devices have one id,\ngive one of them another.\n",
    );
    for device in rekeyed().take(EXPLAINED_MAX) {
        let accepted = device.fingerprint.as_deref().unwrap_or("-");
        let brought = device.rekeyed.as_ref().map_or("-", |other| other.fingerprint.as_str());
        let _never_fails = writeln!(human, "\n{}: accepted {accepted}, brings {brought}", device.id);
        for command in what_to_do(device) {
            let _never_fails = writeln!(human, "  {command}");
        }
    }
    if count > EXPLAINED_MAX {
        let more = count - EXPLAINED_MAX;
        let _never_fails =
            writeln!(human, "\n... and {more} more: `whimbrel device show ID` says the same of each");
    }
}

/// What `campaign status` says of them.
pub(super) fn of_campaign(rekeyed: &RekeyedDevices) -> String {
    let more = if rekeyed.devices > rekeyed.ids.len() as u64 { ", ..." } else { "" };
    let first = rekeyed.ids.first().map_or("ID", String::as_str);
    format!(
        "{}, whose reports do not count because they bring another key: {}{more}; `whimbrel device show {first}` says \
         what to do",
        rekeyed.devices,
        rekeyed.ids.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rekeyed_device_is_explained_with_both_fingerprints_and_the_commands_ready_to_paste() {
        let device: Device = serde_json::from_value(serde_json::json!({
            "id": "m1", "state": "rekeyed", "fingerprint": "9f1c-02aa-7d3e-51b0", "class": "60f6",
            "rekeyed": { "fingerprint": "1a2b-3c4d-7d3e-51b0", "class": "60f6", "seen": 9 },
            "groups": ["all"], "sequence": 1, "online_hint": true,
        }))
        .unwrap();
        let mut human = String::new();
        explain(&[device], &mut human);
        assert!(human.ends_with(
            "m1: accepted 9f1c-02aa-7d3e-51b0, brings 1a2b-3c4d-7d3e-51b0\n  whimbrel device reset m1\n  whimbrel \
             device accept m1 --fingerprint 1a2b-3c4d-7d3e-51b0\n"
        ));
        let mut none = String::new();
        explain(&[], &mut none);
        assert_eq!(none, "");
    }
}
