//! What each reader takes, and what it says of the rest.

use std::path::{Path, PathBuf};

use whimbrel_settings::read::{self, Reader};
use whimbrel_settings::{Origin, Setting};

fn with<R: Reader>(reader: &R, text: &str) -> Result<R::Value, String> {
    reader.read(&Setting { value: text.to_owned(), origin: Origin::Flag }, Path::new("/base"))
}

#[test]
fn numbers_are_whole_and_within_their_range() {
    let reader = read::number(1_u16..=8);
    assert_eq!((with(&reader, "1"), with(&reader, "8")), (Ok(1), Ok(8)));
    for bad in ["0", "9", "+1", "-1", "1.0", "", "x", "99999999"] {
        assert_eq!(with(&reader, bad), Err("must be a whole number between 1 and 8".to_owned()), "{bad}");
    }
}

#[test]
fn sizes_and_durations_are_within_their_range_and_say_it_in_their_units() {
    let size = read::size::<usize>(1024..=65536);
    assert_eq!((with(&size, "1KiB"), with(&size, "64KiB")), (Ok(1024), Ok(65536)));
    assert_eq!(with(&size, "65537B"), Err("must be between 1KiB and 64KiB".to_owned()));
    assert!(with(&size, "2048").unwrap_err().contains("a whole number and a unit"));
    let small = read::size::<u8>(0..=1 << 40);
    assert_eq!(with(&small, "1TiB"), Err("is more than this machine can address".to_owned()));
}

#[test]
fn switches_choices_and_addresses_say_what_would_be_right() {
    let switch = read::switch();
    let all = ["true", "on", "false", "off"].map(|text| with(&switch, text).unwrap());
    assert_eq!(all, [true, true, false, false]);
    assert_eq!(with(&switch, "yes"), Err("must be true or false".to_owned()));
    let choice = read::choice([("one", 1), ("two", 2)]);
    assert_eq!(with(&choice, "two"), Ok(2));
    assert_eq!(with(&choice, "three"), Err("must be one of one, two".to_owned()));
    assert!(with(&read::address(), "localhost").unwrap_err().contains("such as 127.0.0.1:1883"));
    assert_eq!(with(&read::address(), "[::1]:1").unwrap().port(), 1);
}

#[test]
fn paths_of_file_and_default_are_relative_to_the_files_folder() {
    let at = |origin, text: &str| {
        read::path().read(&Setting { value: text.to_owned(), origin }, Path::new("/base")).unwrap()
    };
    let file = || Origin::File { path: PathBuf::from("/base/c.toml"), line: 1 };
    assert_eq!(at(file(), "a"), Path::new("/base/a"));
    assert_eq!(at(Origin::Default, "a"), Path::new("/base/a"));
    assert_eq!(at(Origin::Flag, "a"), Path::new("a"));
    assert_eq!(at(Origin::Environment("X".to_owned()), "a"), Path::new("a"));
    assert_eq!(at(file(), "/a"), Path::new("/a"));
    let here = std::env::current_dir().unwrap();
    assert_eq!(with(&read::absolute_path(), "a"), Ok(here.join("a")));
    assert_eq!(with(&read::path(), ""), Err("must be a path".to_owned()));
    let in_file = Setting { value: "a b\u{1f}/b".to_owned(), origin: file() };
    let several = read::paths().read(&in_file, Path::new("/base"));
    assert_eq!(several.unwrap(), [PathBuf::from("/base/a b"), PathBuf::from("/b")]);
    assert_eq!(with(&read::paths(), "/a /b").unwrap(), [PathBuf::from("/a"), PathBuf::from("/b")]);
}
