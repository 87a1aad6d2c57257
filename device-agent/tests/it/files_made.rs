//! Files and folders that the agent makes: whose they are, and that they are durable before they count.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use whimbrel_agent::disk::FileDisk;
use whimbrel_agent::identity::load_or_make_key;

use crate::storage_files::{strace, traced_folder};

/// What the tests below run under strace.
#[test]
#[ignore = "a part of the_folder_and_the_key_that_an_agent_makes_are_durable_before_they_are_used"]
fn folder_and_key_to_be_traced() {
    let data = traced_folder().join("var/whimbrel");
    let _disk = FileDisk::open(&data).unwrap();
    load_or_make_key(&data.join("device.cose")).unwrap();
}

/// A name is durable when the folder that holds it was synced; what a file holds, when the file was.
#[test]
fn the_folder_and_the_key_that_an_agent_makes_are_durable_before_they_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let calls = "mkdir,mkdirat,openat,write,pwrite64,fsync,fdatasync,link,linkat,rename,renameat,renameat2,\
                 unlink,unlinkat,chmod,fchmod,fchmodat";
    let log = strace(calls, "files_made::folder_and_key_to_be_traced", folder.path(), &[]);
    let steps = steps(&log, folder.path().to_str().unwrap());
    assert_eq!(
        steps,
        [
            "mkdir /var 0700",
            "fsync ",
            "mkdir /var/whimbrel 0700",
            "fsync /var",
            "create /var/whimbrel/lock 0600",
            "create /var/whimbrel/device.cose.new 0600",
            "write /var/whimbrel/device.cose.new",
            "fsync /var/whimbrel/device.cose.new",
            "link /var/whimbrel/device.cose.new /var/whimbrel/device.cose",
            "unlink /var/whimbrel/device.cose.new",
            "fsync /var/whimbrel",
        ]
    );
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("var"), mode("var/whimbrel"), mode("var/whimbrel/device.cose")), (0o700, 0o700, 0o600));
}

/// What changes something below `folder`: the call, the paths in it, the mode of what is made.
fn steps(log: &str, folder: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(folder) && !line.contains("= -1"));
    lines
        .filter_map(|line| {
            let (head, arguments) = line.split_once('(').unwrap();
            let call = head.rsplit(' ').next().unwrap();
            let paths = arguments.split(['"', '<', '>']).filter_map(|part| part.strip_prefix(folder));
            let paths: Vec<_> = paths.collect();
            let mode = || arguments.split_once(')').unwrap().0.rsplit(", ").next().unwrap();
            Some(match call.trim_end_matches("at") {
                "mkdir" => format!("mkdir {} {}", paths[0], mode()),
                "open" if arguments.contains("O_CREAT") => {
                    // A name that does not begin with the root is one in the folder that stands before it.
                    let name = arguments.split('"').nth(1).unwrap();
                    let name = if name.starts_with('/') { String::new() } else { format!("/{name}") };
                    format!("create {}{name} {}", paths[0], mode())
                }
                "open" => return None,
                "link" => format!("link {} {}", paths[0], paths[1]),
                other => format!("{other} {}", paths[0]),
            })
        })
        .collect()
}

/// A run that was cut off may have left a key under its temporary name, whole or not: it is not used.
#[test]
fn a_key_that_was_not_finished_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.cose");
    fs::write(folder.path().join("device.cose.new"), b"half").unwrap();
    let made = load_or_make_key(&path).unwrap();
    assert_eq!(load_or_make_key(&path).unwrap().public(), made.public());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Only its owner may read the key, only they may write it; what the folder's permissions are does not matter.
#[test]
fn a_key_is_refused_as_soon_as_anybody_else_has_any_right_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.cose");
    load_or_make_key(&path).unwrap();
    for bit in 0..6 {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | 1 << bit)).unwrap();
        assert!(load_or_make_key(&path).is_err(), "bit {bit}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(load_or_make_key(&path).is_ok());
}
