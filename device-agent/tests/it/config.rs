//! Where values come from, and what wrong ones get.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use whimbrel_agent::config::{Config, Reboot, Sources, default_file, values};
use whimbrel_engine::storage::PatchMode;
use whimbrel_protocol::ids::{ClassId, VendorId};
use whimbrel_protocol::testing::Fixture;

use crate::rig::Ran;

const MINIMAL: &str = "[device]\nid = \"m-1\"\nvendor = \"example.com\"\nclass = \"gateway\"\n[broker]\nurl = \"mqtt://host\"\n";

/// A folder with a configuration file.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agent.toml"), text).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("agent.toml")
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.file()), ..Sources::default() }
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel-agent"));
        command.env_clear().envs(environment.iter().copied()).current_dir(self.0.path());
        Ran::of(command.arg("--config").arg(self.file()).args(arguments).output().unwrap())
    }
}

#[test]
fn what_is_needed_and_nothing_more_makes_a_configuration() {
    let folder = Folder::with(MINIMAL);
    let config = Config::load(&folder.sources()).unwrap();
    assert_eq!(config.device.vendor, VendorId::from_domain("example.com"));
    assert_eq!(config.device.class, ClassId::from_name(config.device.vendor, "gateway"));
    assert_eq!((config.broker.url.port, config.client_id.as_str()), (1883, "m-1"));
    assert_eq!(config.broker.keepalive, Duration::from_secs(60));
    assert_eq!(config.install.reboot, Reboot::Restart);
    // Relative paths are relative to the file.
    assert_eq!(config.storage.data, folder.0.path().join("data"));
    assert_eq!(config.device.key, folder.0.path().join("data/device.cose"));
    assert_eq!(config.device.root, folder.0.path().join("root.cbor"));
}

#[test]
fn how_patches_are_applied_is_chosen_by_word() {
    let patch = |setting: &str| {
        let folder = Folder::with(&format!("{MINIMAL}[install]\n{setting}\n"));
        Config::load(&folder.sources())
            .map(|config| (config.install.patch, config.install.patch_buffer_bytes))
    };
    let (default, streamed) =
        (patch("").unwrap(), patch("patch = \"stream\"\npatch-buffer = \"8KiB\"").unwrap());
    assert_eq!(default, (PatchMode::Replay, 256 * 1024));
    assert_eq!(streamed, (PatchMode::Stream, 8 * 1024));
    assert_eq!(patch("patch = \"state\"").unwrap().0, PatchMode::State);
    let refused = patch("patch = \"restart\"").unwrap_err().to_string();
    assert!(refused.contains("must be one of replay, state, stream"), "{refused}");
    let refused = patch("patch-buffer = \"1KiB\"").unwrap_err().to_string();
    assert!(refused.contains("must be between 4KiB and 16MiB"), "{refused}");
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let folder = Folder::with(&format!("{MINIMAL}keepalive = \"10s\"\n"));
    let keepalive = |sources: &Sources| Config::load(sources).unwrap().broker.keepalive.as_secs();
    let mut sources = folder.sources();
    assert_eq!(keepalive(&sources), 10);
    sources.environment = vec![("WHIMBREL_AGENT__BROKER__KEEPALIVE".to_owned(), "20s".to_owned())];
    assert_eq!(keepalive(&sources), 20);
    sources.sets = vec!["broker.keepalive=30s".to_owned()];
    assert_eq!(keepalive(&sources), 30);
    sources.sets.push("broker.keepalive=40s".to_owned());
    assert_eq!(keepalive(&sources), 40);
}

#[test]
fn config_show_tells_where_each_value_comes_from() {
    let folder = Folder::with(MINIMAL);
    let ran = folder.run(
        &["config", "show", "--set", "hooks.limit=2s"],
        &[("WHIMBREL_AGENT__DOWNLOAD__MESSAGE_SIZE", "16KiB")],
    );
    assert_eq!(ran.code, Some(0));
    let line = |key: &str| ran.stdout.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("hooks.limit = \"2s\"").ends_with("# --set"));
    assert!(
        line("download.message-size = \"16KiB\"")
            .ends_with("# environment WHIMBREL_AGENT__DOWNLOAD__MESSAGE_SIZE")
    );
    assert!(line("device.id").ends_with("agent.toml line 2"));
    assert!(line("broker.prefix").ends_with("# default"));
    assert!(ran.stdout.contains("# broker.password-file is not set"));
}

#[test]
fn config_show_is_a_json_array_for_programs() {
    let ran = Folder::with(MINIMAL).run(&["config", "show", "--json", "--set", "hooks.limit=2s"], &[]);
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let find =
        |key: &str| shown.as_array().unwrap().iter().find(|shown| shown["key"] == key).unwrap().clone();
    let limit = find("hooks.limit");
    assert_eq!((limit["value"].as_str(), limit["origin"].as_str()), (Some("2s"), Some("--set")));
    assert!(find("broker.user")["value"].is_null());
}

#[test]
fn config_check_reads_what_the_configuration_names_and_says_what_is_wrong() {
    let folder = Folder::with(&format!("{MINIMAL}user = \"m-1\"\npassword-file = \"password\"\n"));
    let check = || folder.run(&["config", "check"], &[]);
    let write = |name: &str, bytes: &[u8]| fs::write(folder.0.path().join(name), bytes).unwrap();
    check().assert_refused("agent.toml line 8: broker.password-file: cannot read ");
    write("password", b"\na\n");
    check().assert_refused("expected the secret on one line");
    write("password", b"a\nb\n");
    check().assert_refused("root.cbor: No such file");
    write("root.cbor", b"no root");
    check().assert_refused("root.cbor is not a trust anchor");
    write("root.cbor", &Fixture::new().root_bytes());
    let ran = check();
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "the configuration is right"), "{}", ran.stderr);
    fs::create_dir(folder.0.path().join("data")).unwrap();
    write("data/device.cose", b"no key");
    check().assert_refused("device.cose has mode");
    fs::set_permissions(folder.0.path().join("data/device.cose"), fs::Permissions::from_mode(0o600)).unwrap();
    check().assert_refused("device.cose is not a private COSE_Key file");
    assert_eq!(fs::read_dir(folder.0.path().join("data")).unwrap().count(), 1, "nothing was made");
    Folder::with("[device]\n").run(&["config", "check"], &[]).assert_refused("device.id is missing");
}

#[test]
fn switches_are_true_and_false_as_in_the_services_file_or_on_and_off() {
    for (written, taken) in [("true", true), ("false", false), ("\"on\"", true), ("\"off\"", false)] {
        let folder = Folder::with(&format!("{MINIMAL}[download]\naccept-es256 = {written}\n"));
        assert_eq!(Config::load(&folder.sources()).unwrap().download.accept_es256, taken);
    }
}

#[test]
fn a_user_name_changes_the_client_id_and_a_setting_decides_otherwise() {
    let client_id = |settings: &[&str]| {
        let mut sources = Folder::with(MINIMAL).sources();
        let folder = Folder::with(MINIMAL);
        sources.file = Some(folder.file());
        sources.sets = settings.iter().map(|&setting| setting.to_owned()).collect();
        Config::load(&sources).unwrap().client_id
    };
    assert_eq!(client_id(&[]), "m-1");
    assert_eq!(client_id(&["broker.url=mqtt://m-1@host"]), "m-1-ota");
    assert_eq!(client_id(&["broker.user=m-1", "broker.client-id-suffix=none"]), "m-1");
    assert_eq!(client_id(&["broker.client-id-suffix=-ota"]), "m-1-ota");
}

/// `release build` reads them by the same rule: a device that reads them otherwise would match no release.
#[test]
fn vendor_and_class_are_read_by_the_rule_by_which_releases_name_them() {
    let load = |from: &str, to: &str| {
        let folder = Folder::with(&MINIMAL.replace(from, to));
        let config = Config::load(&folder.sources()).map_err(|error| error.to_string());
        config.map(|config| (config.device.vendor, config.device.class))
    };
    let id = "000102030405060708090a0b0c0d0e0f";
    let capitals = id.to_uppercase();
    for name in ["example.org", id, &capitals, "Example.com", "localhost", "a_b.com", &id[1..]] {
        let read = load("example.com", name);
        assert_eq!(read.ok().map(|(vendor, _)| vendor), VendorId::named(name), "{name}");
    }
    let vendor = VendorId::from_domain("example.com");
    for name in ["meter", "Zähler 2 (NB-IoT)", id, &capitals, &id[1..], "gateway ", " gateway"] {
        let read = load("gateway", name);
        assert_eq!(read.ok().map(|(_, class)| class), ClassId::named(vendor, name), "{name}");
    }
    for (from, to, says) in [
        ("example.com", "Example.com", "device.vendor = \"Example.com\": must be a domain in lower case"),
        ("gateway", "gateway ", "device.class = \"gateway \": must be a name of 1 to 64 visible characters"),
    ] {
        let line = load(from, to).unwrap_err();
        assert!(line.contains(says), "{line}");
    }
}

#[test]
fn wrong_files_get_one_line_that_names_the_place_and_what_would_be_right() {
    for (text, says) in [
        ("[device\n", "agent.toml line 1: "),
        ("id = \"m-1\"\n", "agent.toml line 1: there is no key id; the tables are device, storage, broker"),
        (
            "[devise]\nid = \"m-1\"\n",
            "agent.toml line 1: there is no key devise; the tables are device, storage",
        ),
        (
            "[device]\nidd = \"m-1\"\n",
            "agent.toml line 2: there is no key device.idd; [device] has id, vendor",
        ),
        ("[device]\nid = 17\n", "agent.toml line 2: device.id must be text in quotes"),
        ("[device]\nid = \"a-b\"\n", "device.vendor is missing"),
        ("[broker]\nurl = \"mqtt://a\"\n", "device.id is missing: write it into the configuration file"),
        ("[storage]\ndata = \"\"\n", "agent.toml line 2: storage.data = \"\": must be a path"),
        (
            &MINIMAL.replace("m-1", "a b"),
            "agent.toml line 2: device.id = \"a b\": a device id must have 2 to 64",
        ),
        (
            &MINIMAL.replace("mqtt://", "mqtts://"),
            "agent.toml line 6: broker.url = \"mqtts://host\": TLS is not built in yet",
        ),
        (&MINIMAL.replace("mqtt://host", "host"), "must be mqtt://[user@]host[:port]"),
        (
            &format!("{MINIMAL}keepalive = \"1s\"\n"),
            "agent.toml line 7: broker.keepalive = \"1s\": must be between 5s and",
        ),
        (&format!("{MINIMAL}keepalive = \"60\"\n"), "must be a whole number and a unit"),
        (&format!("{MINIMAL}password-file = \"p\"\n"), "a password needs a user name: set broker.user too"),
        (&format!("{MINIMAL}reconnect-cap = \"1s\"\n"), "must not be below broker.reconnect-base"),
        (
            &format!("{MINIMAL}[install]\nreboot = \"now\"\n"),
            "must be restart, exit, or a command that begins with /",
        ),
        (&format!("{MINIMAL}[install]\nstandalone = \"folder\"\n"), "must be one of root, off"),
        (&format!("{MINIMAL}[download]\nwindow = \"1MiB\"\n"), "must be between 8KiB and 64KiB"),
    ] {
        Folder::with(text).run(&["status"], &[]).assert_refused(says);
    }
}

#[test]
fn wrong_flags_and_variables_get_one_line() {
    let folder = Folder::with(MINIMAL);
    let refused = |arguments: &[&str], environment: &[(&str, &str)], says: &str| {
        folder.run(arguments, environment).assert_refused(says);
    };
    refused(&["status", "--set", "broker.keepalive"], &[], "--set broker.keepalive: must be table.key=value");
    refused(&["status", "--set", "broker.x=1"], &[], "--set: there is no key broker.x");
    refused(
        &["status"],
        &[("WHIMBREL_AGENT__BROKER__X", "1")],
        "environment WHIMBREL_AGENT__BROKER__X: there is no key",
    );
    refused(&["status", "--log", "loud"], &[], "--log loud: must be off, error");
    refused(&["frobnicate"], &[], "unrecognized subcommand 'frobnicate'");
    refused(&["status", "--yaml"], &[], "unexpected argument '--yaml'");
    refused(&["install"], &[], "required arguments were not provided");
    let missing = Sources { file: Some(PathBuf::from("/nowhere/agent.toml")), ..Sources::default() };
    let error = Config::load(&missing).unwrap_err().to_string();
    assert!(error.starts_with("there is no configuration file /nowhere/agent.toml"), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let folder = Folder::with(&"# long\n".repeat(20_000));
    folder.run(&["status"], &[]).assert_refused("at most 65536 are read");
}

#[test]
fn the_example_file_is_what_config_default_prints() {
    let example = include_str!("../../agent.example.toml");
    assert_eq!(default_file(), example, "write the output of `whimbrel-agent config default` there");
    // And it is one, but for the three keys that everybody has to say.
    let folder = Folder::with(example);
    let mut sources = folder.sources();
    sources.sets =
        ["device.id=m-1", "device.vendor=example.com", "device.class=gateway", "broker.url=mqtt://b"]
            .map(str::to_owned)
            .to_vec();
    Config::load(&sources).unwrap();
    assert!(values(&sources).unwrap().show().lines().all(|line| !line.contains("# default")));
}
