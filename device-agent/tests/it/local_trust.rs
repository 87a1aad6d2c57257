//! What the agent uses of its machine: nothing that somebody else could change.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use whimbrel_agent::disk::{FileDisk, FolderError};
use whimbrel_agent::identity::{IdentityError, load_or_make_key, load_root};
use whimbrel_agent::local_trust::{Folder, Untrusted, open_file};
use whimbrel_protocol::disk::{Area, Disk as _, DiskError};
use whimbrel_protocol::testing::Fixture;

use crate::rig::Device;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder `above/own` with a file `it`, as only their owner may write them.
fn own() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("above/own");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("it"), "content").unwrap();
    for (path, mode) in [("above", 0o755), ("above/own", 0o755), ("above/own/it", 0o644)] {
        chmod(&folder.path().join(path), mode);
    }
    folder
}

#[test]
fn what_only_its_owner_may_write_is_used_also_below_a_sticky_folder() {
    let folder = own();
    let path = folder.path().join("above/own");
    for above in [0o755, 0o700, 0o1777, 0o1775] {
        chmod(&folder.path().join("above"), above);
        Folder::open(&path).unwrap();
        assert!(open_file(&path.join("it")).unwrap().is_some());
        assert!(open_file(&path.join("other")).unwrap().is_none());
        assert!(open_file(&path.join("no/other")).unwrap().is_none());
    }
}

#[test]
fn what_others_may_write_is_refused_by_name_wherever_it_is_on_the_way() {
    for (name, mode) in [
        ("above/own/it", 0o664),
        ("above/own/it", 0o646),
        ("above/own", 0o775),
        ("above/own", 0o757),
        ("above", 0o775),
        ("above", 0o757),
    ] {
        let folder = own();
        let path = folder.path().join(name);
        chmod(&path, mode);
        let opened = open_file(&folder.path().join("above/own/it"));
        let error = opened.expect_err(name);
        assert!(
            matches!(&error, Untrusted::Writable { path: named, mode: said } if *named == path && *said == mode)
        );
        assert!(error.to_string().ends_with(&format!("chmod go-w {}", path.display())), "{error}");
    }
}

/// The folder itself is one that files are made in: the sticky bit does not do for that.
#[test]
fn a_sticky_folder_is_no_folder_of_the_agents_own() {
    let folder = own();
    let path = folder.path().join("above/own");
    chmod(&path, 0o1777);
    assert!(matches!(Folder::open(&path), Err(Untrusted::Writable { .. })));
    assert!(matches!(FileDisk::open(&path), Err(FolderError::Untrusted(_))));
}

#[test]
fn no_link_is_followed_neither_on_the_way_nor_at_its_end() {
    let folder = own();
    let (above, link) = (folder.path().join("above"), folder.path().join("link"));
    symlink(&above, &link).unwrap();
    symlink(above.join("own/it"), above.join("own/alias")).unwrap();
    for path in [link.join("own/it"), above.join("own/alias")] {
        assert!(matches!(open_file(&path), Err(Untrusted::Link { .. })), "{}", path.display());
    }
    assert!(matches!(Folder::open(&link), Err(Untrusted::Link { path }) if path == link));
    assert!(matches!(Folder::open(&link.join("own")), Err(Untrusted::Link { path }) if path == link));
}

#[test]
fn a_pipe_in_a_files_place_is_refused_and_not_waited_for() {
    let folder = own();
    let path = folder.path().join("above/own/pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(matches!(open_file(&path), Err(Untrusted::Kind { wanted: "file", .. })));
}

#[test]
fn a_link_in_a_slots_place_is_not_followed_and_what_it_leads_to_stays() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "somebody's file").unwrap();
    chmod(&elsewhere, 0o600);
    let data = folder.path().join("data");
    let mut disk = FileDisk::open(&data).unwrap();
    symlink(&elsewhere, disk.path(Area::SlotB)).unwrap();
    // Laid there while the agent runs, and found at the next start.
    assert_eq!(disk.reserve(Area::SlotB, 4096), Err(DiskError::Failed { area: Area::SlotB }));
    assert!(disk.take_error().unwrap().source.to_string().contains("is a link"));
    drop(disk);
    let error = FileDisk::open(&data).unwrap_err();
    assert!(
        matches!(&error, FolderError::Untrusted(Untrusted::Link { path }) if path.ends_with("slot-b.img"))
    );
    assert_eq!(fs::read(&elsewhere).unwrap(), b"somebody's file");
}

#[test]
fn files_of_the_data_folder_that_others_may_write_are_refused() {
    for area in Area::ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FileDisk::name(area));
        fs::write(&path, "").unwrap();
        chmod(&path, 0o620);
        assert!(matches!(FileDisk::open(folder.path()), Err(FolderError::Untrusted(_))), "{area:?}");
    }
}

#[test]
fn key_and_root_that_others_may_replace_are_refused() {
    let folder = own();
    let own = folder.path().join("above/own");
    let (key, root) = (own.join("device.cose"), own.join("root.cbor"));
    load_or_make_key(&key).unwrap();
    fs::write(&root, Fixture::new().root_bytes()).unwrap();
    chmod(&root, 0o644);
    load_root(&root, &[]).unwrap();
    chmod(&folder.path().join("above"), 0o777);
    assert!(matches!(load_or_make_key(&key), Err(IdentityError::Untrusted(_))));
    assert!(matches!(load_root(&root, &[]), Err(IdentityError::Untrusted(_))));
    fs::remove_file(&key).unwrap();
    assert!(matches!(load_or_make_key(&key), Err(IdentityError::Untrusted(_))), "nor is one made there");
}

#[test]
fn a_configuration_that_others_may_write_is_refused_by_every_command() {
    let device = Device::new(&Fixture::new(), 1);
    chmod(&device.path("agent.toml"), 0o666);
    for command in [&["daemon"][..], &["status"], &["boot"], &["config", "check"]] {
        device.run(command).assert_refused("agent.toml has mode 0666 and may be written by others");
    }
}

#[test]
fn config_check_says_what_others_may_write_and_which_hook_cannot_run() {
    let device = Device::new(&Fixture::new(), 1);
    assert_eq!(device.run(&["config", "check"]).code, Some(0));
    device.hook("Testing_Enter_00_health", "exit 0");
    chmod(&device.path("hooks/Testing_Enter_00_health"), 0o644);
    device.run(&["config", "check"]).assert_refused("Testing_Enter_00_health has mode 0644 and cannot run");
    chmod(&device.path("data"), 0o770);
    device.run(&["config", "check"]).assert_refused("data has mode 0770 and may be written by others");
}

#[test]
fn nothing_is_asked_of_a_daemon_in_a_folder_that_others_may_write() {
    let device = Device::new(&Fixture::new(), 1);
    chmod(&device.path("data"), 0o777);
    device.run(&["status"]).assert_refused("data has mode 0777 and may be written by others");
}

/// Files of another user are made by root only: `scripts/test` runs these where it is root, and says so if it is not.
mod owned_by_others {
    use super::*;

    /// `nobody` on Linux.
    const SOMEBODY: u32 = 65_534;

    fn give_away(path: &Path) {
        std::os::unix::fs::chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }

    #[test]
    #[ignore = "gives files to another user, which takes root; scripts/test runs it where it is root"]
    fn what_belongs_to_somebody_else_is_refused_wherever_it_is_on_the_way() {
        for name in ["above/own/it", "above/own", "above"] {
            let folder = own();
            // Also below a sticky folder of root.
            for mode in [0o755, 0o1777] {
                chmod(folder.path(), mode);
                let path = folder.path().join(name);
                give_away(&path);
                let error = open_file(&folder.path().join("above/own/it")).expect_err(name);
                assert!(
                    matches!(&error, Untrusted::Owner { owner: SOMEBODY, path: named, .. } if *named == path)
                );
            }
        }
    }

    #[test]
    #[ignore = "gives files to another user, which takes root; scripts/test runs it where it is root"]
    fn a_hook_of_somebody_else_is_not_run_as_root() {
        let folder = crate::hooks::Folder::new();
        folder.add("Installing_Enter_10_theirs", "echo run >&3", 0o755);
        give_away(&folder.hooks().join("Installing_Enter_10_theirs"));
        crate::hooks::nothing_begins_because_of(&folder, "belongs to user 65534, who could change it");
        assert_eq!(folder.noted(), "told\n");
    }

    #[test]
    #[ignore = "gives files to another user, which takes root; scripts/test runs it where it is root"]
    fn a_slot_of_somebody_else_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        drop(FileDisk::open(folder.path()).unwrap());
        let slot = folder.path().join("slot-a.img");
        fs::write(&slot, "image").unwrap();
        give_away(&slot);
        assert!(matches!(
            FileDisk::open(folder.path()),
            Err(FolderError::Untrusted(Untrusted::Owner { .. }))
        ));
    }
}
