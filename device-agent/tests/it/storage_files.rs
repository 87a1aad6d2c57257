//! A folder as a medium: the same update on files, its system calls against the operations that the power-cut
//! tests count, and what files can do wrong.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use whimbrel_agent::disk::{FileDisk, FolderError};
use whimbrel_engine::boot::EnvironmentBoot;
use whimbrel_protocol::disk::{Area, Disk, DiskError};
use whimbrel_protocol::manifest::Codec;
use whimbrel_protocol::testing::{DiskStep, SimDisk};

use crate::power_cut::{image, world};
use crate::power_cut_device::{End, Medium, World};

/// The files of a folder.
#[derive(Debug, Default)]
struct Files(Option<FileDisk>);

impl Files {
    fn open(folder: &Path) -> Self {
        Self(Some(FileDisk::open(folder).unwrap()))
    }

    fn disk(&mut self) -> &mut FileDisk {
        self.0.as_mut().expect("opened")
    }
}

impl Disk for Files {
    fn len(&mut self, area: Area) -> Result<u64, DiskError> {
        self.disk().len(area)
    }

    fn reserve(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        self.disk().reserve(area, len)
    }

    fn release(&mut self, area: Area, len: u64) -> Result<(), DiskError> {
        self.disk().release(area, len)
    }

    fn read(&mut self, area: Area, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.disk().read(area, offset, into)
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk().write(area, offset, bytes)
    }

    fn flush(&mut self, area: Area) -> Result<(), DiskError> {
        self.disk().flush(area)
    }

    fn drop_cache(&mut self, area: Area) -> Result<(), DiskError> {
        self.disk().drop_cache(area)
    }
}

impl Medium for Files {
    fn content(&self, area: Area) -> Vec<u8> {
        fs::read(self.0.as_ref().unwrap().path(area)).unwrap()
    }
}

const CODECS: [Codec; 2] = [Codec::Raw, Codec::Lzma];
const IMAGE_BYTES: usize = 40 * 1024;

/// A folder with the factory's image in it.
fn factory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FileDisk::name(Area::SlotA)), image(0, IMAGE_BYTES)).unwrap();
    folder
}

/// The world that the power-cut tests have, on files in `folder`.
fn on_files(codec: Codec, folder: &Path) -> World<Files> {
    let sim = world::<SimDisk>(&[codec], IMAGE_BYTES);
    World::new(Files::open(folder), EnvironmentBoot::new, sim.service, &image(0, IMAGE_BYTES))
}

#[test]
fn a_whole_update_works_on_files() {
    for codec in CODECS {
        let folder = factory();
        let mut world = on_files(codec, folder.path());
        assert_eq!(world.run(), Ok(End::Confirmed));
        assert!(fs::read(folder.path().join("slot-b.img")).unwrap() == image(1, IMAGE_BYTES));
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            // The factory's image is the factory's.
            assert!(mode == 0o600 || entry.file_name() == "slot-a.img", "{entry:?} has mode {mode:o}");
        }
    }
}

/// What the test below runs under strace.
#[test]
#[ignore = "a part of the_system_calls_of_an_update_are_the_operations_that_the_power_cut_tests_count"]
fn an_update_to_be_traced() {
    let folder = traced_folder();
    let codec = if std::env::var("TRACED_CODEC").as_deref() == Ok("raw") { Codec::Raw } else { Codec::Lzma };
    assert_eq!(on_files(codec, &folder).run(), Ok(End::Confirmed));
}

/// The operations that `SimDisk` counts and cuts are the system calls of a real update, one for one and in the
/// same order.
#[test]
fn the_system_calls_of_an_update_are_the_operations_that_the_power_cut_tests_count() {
    for codec in CODECS {
        let folder = factory();
        let traced = system_calls(codec, folder.path());
        let mut counted = world::<SimDisk>(&[codec], IMAGE_BYTES);
        counted.disk.start_trace();
        assert_eq!(counted.run(), Ok(End::Confirmed));
        let counted = counted.disk.trace();
        println!("{}: {} operations, {} of them flushes", codec.name(), traced.len(), flushes(&traced));
        for (number, (call, step)) in traced.iter().zip(counted).enumerate() {
            assert_eq!(call, step, "operation {number}");
        }
        assert_eq!(traced.len(), counted.len());
    }
}

fn flushes(steps: &[DiskStep]) -> usize {
    steps.iter().filter(|step| matches!(step, DiskStep::Flush(_))).count()
}

/// Runs an ignored test of this binary under strace, and gives the log of these system calls.
pub(crate) fn strace(calls: &str, test: &str, folder: &Path, set: &[(&str, &str)]) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let run = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-e", &format!("trace={calls}"), "-o"])
        .arg(log.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored"])
        .env("TRACED_FOLDER", folder)
        .envs(set.iter().copied())
        .output();
    let run = run.expect("strace is installed (scripts/test does it)");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    fs::read_to_string(log.path()).unwrap()
}

/// The folder that a test that runs under strace is to use.
pub(crate) fn traced_folder() -> PathBuf {
    PathBuf::from(std::env::var("TRACED_FOLDER").expect("set by the test that runs this"))
}

fn system_calls(codec: Codec, folder: &Path) -> Vec<DiskStep> {
    let calls = "pwrite64,write,fdatasync,fsync,sync_file_range,fallocate,ftruncate,rename,renameat,renameat2,\
                 unlink,unlinkat,fadvise64";
    let log =
        strace(calls, "storage_files::an_update_to_be_traced", folder, &[("TRACED_CODEC", codec.name())]);
    let folder = folder.to_str().unwrap();
    // Everything that touches the folder or a file in it.
    let mut lines = log.lines().filter(|line| line.contains(folder)).peekable();
    let mut steps = Vec::new();
    while let Some(line) = lines.next() {
        let (call, area, numbers) = read_line(line, folder);
        let area = area.unwrap_or_else(|| panic!("{line} is no call on an area's file"));
        steps.push(match call {
            "fallocate" => {
                // Room is durable when file and name are.
                for expected in [Some(area), None] {
                    let line = lines.next().unwrap();
                    let (call, area, _) = read_line(line, folder);
                    assert_eq!((call, area), ("fsync", expected), "{line}");
                }
                DiskStep::Reserve(area)
            }
            "pwrite64" => {
                let [.., len, offset] = numbers[..] else { panic!("{line}") };
                DiskStep::Write { area, offset, len: usize::try_from(len).unwrap() }
            }
            "fdatasync" => DiskStep::Flush(area),
            "fadvise64" => DiskStep::DropCache(area),
            other => panic!("{other} is not expected: {line}"),
        });
    }
    steps
}

/// `1234 pwrite64(7</folder/slot-b.img>, ""..., 1024, 2048) = 1024`: the call, the area, the numbers.
fn read_line<'l>(line: &'l str, folder: &str) -> (&'l str, Option<Area>, Vec<u64>) {
    let (head, rest) = line.split_once('(').unwrap();
    let call = head.rsplit(' ').next().unwrap();
    let (path, rest) = rest.split_once('<').unwrap().1.split_once('>').unwrap();
    let name = path.strip_prefix(folder).unwrap().trim_start_matches('/');
    let area = Area::ALL.into_iter().find(|area| FileDisk::name(*area) == name);
    let (arguments, _) = rest.rsplit_once(')').unwrap();
    let numbers = arguments.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    (call, area, numbers)
}

#[test]
fn a_folder_is_used_by_one_agent_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = FileDisk::open(folder.path()).unwrap();
    let error = FileDisk::open(folder.path()).unwrap_err();
    assert!(matches!(&error, FolderError::Locked { path } if path == folder.path()));
    assert!(error.to_string().contains(folder.path().to_str().unwrap()));
    drop(first);
    FileDisk::open(folder.path()).unwrap();
}

#[test]
fn a_folder_that_is_missing_is_made_for_the_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data/whimbrel");
    let _disk = FileDisk::open(&folder).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let error = FileDisk::open(&file).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn room_is_allocated_and_not_only_promised() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(folder.path()).unwrap();
    assert_eq!(disk.len(Area::Staging), Ok(0));
    disk.reserve(Area::Staging, 300_000).unwrap();
    let metadata = fs::metadata(disk.path(Area::Staging)).unwrap();
    assert_eq!(metadata.len(), 300_000);
    assert!(metadata.blocks() * 512 >= 300_000);
    let mut bytes = [1; 16];
    disk.read(Area::Staging, 299_984, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 16]);
    // A file full of holes is as long and has no room.
    fs::File::create(disk.path(Area::SlotB)).unwrap().set_len(1 << 20).unwrap();
    drop(disk);
    let mut disk = FileDisk::open(folder.path()).unwrap();
    disk.reserve(Area::SlotB, 1 << 20).unwrap();
    assert!(fs::metadata(disk.path(Area::SlotB)).unwrap().blocks() * 512 >= 1 << 20);
}

/// More than any file system takes.
#[test]
fn a_reservation_without_room_says_so_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(folder.path()).unwrap();
    let absurd = 1 << 50;
    assert_eq!(disk.reserve(Area::Staging, absurd), Err(DiskError::Full { area: Area::Staging }));
    assert!(!disk.path(Area::Staging).exists());
    let error = disk.take_error().unwrap().to_string();
    assert!(error.contains("staging.bin") && error.contains("make room"), "{error}");
    assert!(disk.take_error().is_none());

    disk.reserve(Area::Staging, 5000).unwrap();
    disk.write(Area::Staging, 0, b"kept").unwrap();
    assert_eq!(disk.reserve(Area::Staging, absurd), Err(DiskError::Full { area: Area::Staging }));
    assert_eq!(fs::metadata(disk.path(Area::Staging)).unwrap().len(), 5000);
    assert_eq!(disk.len(Area::Staging), Ok(5000));
    let mut bytes = [0; 4];
    disk.read(Area::Staging, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
}

#[test]
fn addresses_beyond_the_end_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(folder.path()).unwrap();
    disk.reserve(Area::Index, 100).unwrap();
    let range = |end| Err(DiskError::Range { area: Area::Index, len: 100, end });
    assert_eq!(disk.write(Area::Index, 97, b"four"), range(101));
    assert_eq!(disk.read(Area::Index, 101, &mut []), range(101));
    assert_eq!(disk.read(Area::Index, u64::MAX, &mut [0]), range(u64::MAX));
    assert!(disk.read(Area::Record, 0, &mut [0]).is_err());
}

#[test]
fn what_is_released_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(folder.path()).unwrap();
    disk.reserve(Area::Index, 9000).unwrap();
    disk.release(Area::Index, 5000).unwrap();
    assert_eq!(fs::metadata(disk.path(Area::Index)).unwrap().len(), 5000);
    disk.release(Area::Index, 6000).unwrap();
    assert_eq!(disk.len(Area::Index), Ok(5000));
    disk.release(Area::Index, 0).unwrap();
    assert!(!disk.path(Area::Index).exists());
    disk.release(Area::Index, 0).unwrap();
}
