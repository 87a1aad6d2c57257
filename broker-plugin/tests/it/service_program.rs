//! The program: its configuration, what it refuses to start with, how it ends.

use std::fs;
use std::process::{Command, Output, Stdio};

use whimbrel_api::passwords::Kept;

use crate::front_support::{Client, Hello};
use crate::service_support::{On, Service, device_key};

fn whimbreld(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_whimbreld"))
        .args(arguments)
        .env_remove("WHIMBREL_CONFIG")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line that a program which can't start says.
fn complaint(service: &Service) -> String {
    let (status, said) = service.run_to_end();
    assert_eq!(status.code(), Some(1), "{said}");
    // Log lines may come before it.
    let last = said.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("whimbreld: "), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("whimbreld: ")).count(), 1, "{said}");
    last
}

#[test]
fn the_documented_configuration_holds_every_key_at_its_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("whimbrel.toml");
    let printed = stdout(&whimbreld(&["config", "default"]));
    fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let defaults = stdout(&whimbreld(&["config", "show", "--config", path]));
    assert!(
        defaults.lines().all(|line| line.ends_with("# default") || line.ends_with("is not set")),
        "{defaults}"
    );
    fs::write(&file, &printed).unwrap();
    let shown = stdout(&whimbreld(&["config", "show", "--config", path]));
    let value = |line: &str| line.split(" # ").next().unwrap().trim().to_owned();
    let values = |text: &str| text.lines().map(value).collect::<Vec<_>>();
    assert_eq!(values(&shown), values(&defaults));
    assert!(shown.contains(&format!("# {path} line ")), "{shown}");
}

#[test]
fn flags_beat_the_environment_and_that_beats_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("whimbrel.toml");
    fs::write(
        &file,
        "[service]\nprefix = \"a\"\nbeacon-every = \"1h\"\n[limits]\nreleases = 7\n[publisher]\nx = 1\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_whimbreld"))
        .args(["config", "show", "--set", "service.prefix=c"])
        .env("WHIMBREL_CONFIG", &file)
        .env("WHIMBREL_SERVICE__SERVICE__PREFIX", "b")
        .env("WHIMBREL_SERVICE__SERVICE__BEACON_EVERY", "2h")
        .output()
        .unwrap();
    let shown = stdout(&output);
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("service.prefix").contains("\"c\"") && line("service.prefix").ends_with("# --set"));
    assert!(line("service.beacon-every").contains("\"2h\""));
    assert!(line("service.beacon-every").ends_with("# environment WHIMBREL_SERVICE__SERVICE__BEACON_EVERY"));
    assert!(line("limits.releases").contains("= 7") && line("limits.releases").ends_with("line 5"));
}

#[test]
fn a_wrong_configuration_is_one_line_that_says_what_where_and_what_would_be_right() {
    let service = Service::prepare(On::Itself);
    let file = service.path("whimbrel.toml");
    fs::write(&file, "").unwrap();
    let before = service.folder_names();
    for (text, what) in [
        ("[service\n", "line 1"),
        (
            "[service]\nadmn = \"127.0.0.1:1\"\n",
            "line 2: there is no key service.admn; [service] has data, admin",
        ),
        ("[sevice]\n", "the tables are service, broker, limits, publisher"),
        ("x = 1\n", "line 1"),
        (
            "[service]\nadmin = 7878\n",
            "line 2: service.admin must be text in quotes, such as admin = \"127.0.0.1:7878\"",
        ),
        ("[limits]\nreleases = true\n", "limits.releases must be a whole number, such as releases = 1000"),
        (
            "[limits]\nreleases = \"many\"\n",
            "limits.releases = \"many\": must be a whole number between 1 and 100000",
        ),
        ("[limits]\nreleases = 0\n", "limits.releases = \"0\": must be a whole number between 1 and 100000"),
        ("[service]\nadmin = \"localhost\"\n", "must be an address and a port"),
        ("[service]\nadmin = \"0.0.0.0:7878\"\n", "service.danger-admin-on-any-address"),
        ("[service]\nprefix = \"a/b\"\n", "a topic prefix must have"),
        ("[service]\nbeacon-every = \"4 hours\"\n", "must be a whole number and a unit"),
        ("[service]\nbeacon-every = \"2h\"\nbeacon-life = \"1h\"\n", "longer than service.beacon-every"),
        ("[broker]\nlisten = \"127.0.0.1:0\"\nconnect = \"mqtt://127.0.0.1\"\n", "leave one out"),
        ("[broker]\nconnect = \"http://127.0.0.1\"\n", "mqtt://HOST"),
        (
            "[broker]\nconnect = \"mqtt://h\"\npassword-file = \"none\"\n",
            "broker.password-file: cannot read ",
        ),
        ("[broker]\npasswords = \"none\"\n", "none: cannot be read"),
        ("[broker]\napplication-publish = [1]\n", "a list of texts"),
        (
            "[broker]\nopen = true\napplication-publish = [\"ota/x\"]\n",
            "a topic outside the update service's own prefix",
        ),
        ("[limits]\npayload-cache = \"1MiB\"\n", "limits.payload-cache"),
        ("[limits]\ndevice-burst = \"1KiB\"\n", "limits.device-burst"),
        (
            "[broker]\nopen = true\n[limits]\ndevices = 900000\nbroker-memory = \"1GiB\"\n",
            "lower limits.devices",
        ),
        ("[service]\nroot = \"\"\n", "must be a path"),
        ("[service]\nroot = \"none.cbor\"\n", "none.cbor"),
        ("[service]\ntoken-file = \"root.cbor\"\n", "admin token"),
        ("[service]\ncampaign-key = \"root.cbor\"\n", "no private key"),
        ("[service]\ncampaign-key = \"keys/beacon.cose\"\n", "does not name it as a campaign key"),
        ("[service]\nbeacon-key = \"keys/campaign.cose\"\n", "does not name it as a beacon key"),
    ] {
        fs::write(&file, text).unwrap();
        let said = complaint(&service);
        assert!(said.contains(what), "{text:?}: {said}");
        assert_eq!(service.folder_names(), before, "{text:?} made something");
    }
}

#[test]
fn a_service_that_may_not_start_has_made_nothing() {
    let service = Service::prepare(On::Itself);
    fs::write(service.path("whimbrel.toml"), "[service]\nbeacon-key = \"keys/campaign.cose\"\n").unwrap();
    let before = service.folder_names();
    complaint(&service);
    assert_eq!(service.folder_names(), before);
}

#[test]
fn wrong_flags_are_one_line_and_help_is_help() {
    for arguments in [&["--confg", "x"][..], &["serve"], &["--set"], &["--set", "x"], &["--set", "a.b=c"]] {
        let service = Service::prepare(On::Itself);
        let mut command = service.command();
        let output = command.args(arguments).stdout(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("whimbreld: ") && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_whimbreld"))
        .current_dir(folder.path())
        .env_remove("WHIMBREL_CONFIG")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("whimbrel init") && said.lines().count() == 1, "{said}");
    assert!(stdout(&whimbreld(&["--help"])).contains("Examples:"));
    assert!(stdout(&whimbreld(&["--version"])).starts_with("whimbreld "));
}

#[test]
fn what_is_taken_already_is_named() {
    let first = Service::start(On::Itself);
    let mut second = Service::prepare(On::Itself);
    second.set(&format!("broker.listen={}", first.mqtt()));
    assert!(complaint(&second).contains(&format!("cannot listen on {}", first.mqtt())));
    let mut third = Service::prepare(On::Itself);
    third.set(&format!("service.admin={}", first.url().trim_start_matches("http://")));
    assert!(complaint(&third).contains("the admin API cannot listen on"));
    // That is found out late; the database is one file for whoever copies it all the same.
    for service in [&second, &third] {
        assert!(service.path("data/whimbrel.sqlite").exists());
        assert!(!service.path("data/whimbrel.sqlite-wal").exists());
    }
    let mut fourth = Service::prepare(On::Itself);
    fourth.set(&format!("service.data={}", first.path("data").display()));
    assert!(complaint(&fourth).contains("in use by another whimbreld"));
}

#[test]
fn told_to_stop_it_ends_well_and_goes_on_where_it_was() {
    let mut service = Service::start(On::Itself);
    service.import(&[("m1", &device_key(1).public())]);
    let mut idle = Client::let_in(service.mqtt(), 4, "m1");
    assert_eq!(service.stop().code(), Some(0));
    idle.expect_closed();
    service.launch();
    assert!(service.device("m1").is_some());
    // The write-ahead log was folded in, so that the database is one file for whoever copies it.
    assert_eq!(service.stop().code(), Some(0));
    assert!(!service.path("data/whimbrel.sqlite-wal").exists());
}

#[test]
fn in_words_the_ready_line_says_where_everything_is() {
    let service = Service::prepare(On::Itself);
    let mut child = service.command().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("whimbreld serves devices at mqtt://127.0.0.1:"), "{line}");
    assert!(line.contains("operators at http://127.0.0.1:"), "{line}");
}

#[test]
fn with_a_list_of_passwords_only_its_devices_connect() {
    let mut service = Service::prepare(On::Itself);
    let list = format!("m1:{}\n", Kept::of_random("key one", [1; 16]));
    fs::write(service.path("devices.passwd"), list).unwrap();
    let file = service.path("devices.passwd");
    service.set(&format!("broker.passwords={}", file.display()));
    service.set("broker.open=false");
    service.launch();
    let knock = |name, password| {
        let hello =
            Hello { client_id: name, user_name: Some(name), password, keep_alive: 60, ..Hello::default() };
        Client::knock(service.mqtt(), 4, &hello).1
    };
    assert_eq!(knock("m1", Some("key one")), Some(0));
    for (name, password) in [("m1", Some("key two")), ("m1", None), ("m2", Some("key one"))] {
        assert_eq!(knock(name, password), Some(4), "{name} {password:?}");
    }
    // What is added while the service runs counts without a restart.
    let chosen = Kept::of_chosen("correct horse", [2; 16]);
    fs::write(&file, format!("m2:{chosen}\n")).unwrap();
    service.await_that("m2 has a password", |_| knock("m2", Some("correct horse")) == Some(0));
    assert_eq!(knock("m2", Some("battery staple")), Some(4));
    assert_eq!(knock("m1", Some("key one")), Some(4));
    service.await_that("refused logins are logged", |service| service.log().contains("logins refused"));
}

#[test]
fn a_broker_that_nobody_could_log_in_to_does_not_start() {
    let mut service = Service::prepare(On::Itself);
    service.set("broker.open=false");
    let said = complaint(&service);
    assert!(said.contains("set broker.passwords") && said.contains("broker.open = true"), "{said}");
}

#[test]
fn a_release_key_that_the_service_can_read_is_warned_of_at_each_start() {
    let mut service = Service::prepare(On::Itself);
    let key = service.fixture.release_key.encode_file();
    fs::write(service.path("keys/release.cose"), key).unwrap();
    for _ in 0..2 {
        service.launch();
        let log = service.log();
        assert!(
            log.contains("release key readable by this service") && log.contains("keys/release.cose"),
            "{log}"
        );
        service.stop();
    }
    fs::remove_file(service.path("keys/release.cose")).unwrap();
    service.launch();
    assert!(!service.log().contains("readable by this service"), "{}", service.log());
}
