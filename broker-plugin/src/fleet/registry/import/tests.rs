use whimbrel_protocol::codec::Writer;
use whimbrel_protocol::cose::SigningKey;

use super::*;

fn list(lines: usize) -> String {
    let mut writer = Writer::new();
    SigningKey::ed25519(&[1; 32]).public().encode(&mut writer);
    let key = hex::encode(writer.into_bytes());
    let class = "07".repeat(16);
    let lines = (1..=lines).map(|number| format!("m{number},{key},{class},all north\r\n"));
    core::iter::once("\u{feff}ID,key,class,groups\n".to_owned()).chain(lines).collect()
}

#[test]
fn a_list_is_read_the_same_wherever_its_pieces_end() {
    let list = list(5);
    let whole = read_import(list.as_bytes()).unwrap();
    assert_eq!(whole.len(), 5);
    assert_eq!(whole.last().unwrap().number, 6);
    for piece in [1, 2, 3, 7, 50, 181, 400] {
        let mut reader = ImportReader::default();
        list.as_bytes().chunks(piece).for_each(|bytes| reader.push(bytes).unwrap());
        reader.end().unwrap();
        assert_eq!((reader.len(), reader.take(100)), (5, whole.clone()), "pieces of {piece} bytes");
        // And without a newline at the end.
        let mut reader = ImportReader::default();
        list.trim_end().as_bytes().chunks(piece).for_each(|bytes| reader.push(bytes).unwrap());
        reader.end().unwrap();
        assert_eq!(reader.take(2).len() + reader.take(100).len(), 5);
    }
}

#[test]
fn a_device_that_stands_twice_is_found_also_if_the_first_line_was_taken_long_ago() {
    let mut reader = ImportReader::default();
    let list = list(3);
    reader.push(list.as_bytes()).unwrap();
    assert_eq!(reader.take(100).len(), 3);
    let again = list.lines().nth(2).unwrap();
    let error = reader.push(format!("{again}\n").as_bytes()).unwrap_err();
    assert_eq!(error, ImportError::Twice { line: 5, first: 3, id: DeviceId::new("m2").unwrap() });
}

#[test]
fn a_line_without_an_end_and_a_list_without_an_end_are_refused() {
    let mut reader = ImportReader::default();
    let error = reader.push(&[b'x'; IMPORT_LINE_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error, ImportError::Long { line: 1, limit: IMPORT_LINE_BYTES_MAX });
    let mut reader = ImportReader::default();
    reader.push(&vec![b'\n'; IMPORT_LINES_MAX]).unwrap();
    assert_eq!(reader.push(b"\n").unwrap_err(), ImportError::Lines { limit: IMPORT_LINES_MAX });
}
