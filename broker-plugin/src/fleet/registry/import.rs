//! Lists of devices that are accepted before they have ever connected.
//!
//! ```text
//! id,public key,class,groups
//! meter-17,a401010327200621...,6a1e...,all north
//! ```
//!
//! The public key is a COSE_Key in hexadecimal, the class 32 hexadecimal digits; groups are separated by spaces, and
//! a line without any puts its device into `all`. The first line may be a heading. There is no quoting, because
//! no field can hold a comma.

use alloc::collections::BTreeMap;

use whimbrel_protocol::codec::Reader;
use whimbrel_protocol::cose::PublicKey;
use whimbrel_protocol::ids::{ClassId, DeviceId, GroupName};

use super::{ImportError, check_groups, default_groups};

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportLine {
    /// Number of the line, from 1.
    pub number: usize,
    /// Which device.
    pub device: DeviceId,
    /// Its key.
    pub key: PublicKey,
    /// Its hardware.
    pub class: ClassId,
    /// Its groups.
    pub groups: Vec<GroupName>,
}

/// How the heading starts, if there is one.
const HEADING: &str = "id,";

/// Reads a list whole.
///
/// # Errors
/// [`ImportError`] names the first line that is wrong.
pub fn read_import(bytes: &[u8]) -> Result<Vec<ImportLine>, ImportError> {
    let text = core::str::from_utf8(bytes).map_err(|_| ImportError::Text)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    let mut seen = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || (number == 1 && line.to_ascii_lowercase().starts_with(HEADING)) {
            continue;
        }
        let line = read_line(number, line).map_err(|what| ImportError::Line { line: number, what })?;
        if let Some(first) = seen.insert(line.device.clone(), number) {
            return Err(ImportError::Twice { line: number, first, id: line.device });
        }
        lines.push(line);
    }
    Ok(lines)
}

fn read_line(number: usize, line: &str) -> Result<ImportLine, String> {
    let mut fields = line.split(',').map(str::trim);
    let (Some(id), Some(key), Some(class)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("expected id,public key,class,groups".to_owned());
    };
    let groups = fields.next().unwrap_or_default();
    if fields.next().is_some() {
        return Err("more than four fields; groups are separated by spaces".to_owned());
    }
    let device = DeviceId::new(id).map_err(|error| error.to_string())?;
    let key = hex::decode(key).ok().and_then(|bytes| read_key(&bytes));
    let key =
        key.ok_or("the public key must be a COSE_Key in hexadecimal, as `whimbrel key show` prints it")?;
    let mut class_bytes = [0; 16];
    hex::decode_to_slice(class, &mut class_bytes).map_err(|_| "the class must be 32 hexadecimal digits")?;
    let groups: Vec<GroupName> = groups
        .split_ascii_whitespace()
        .map(|name| GroupName::new(name).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let groups = if groups.is_empty() { default_groups() } else { groups };
    check_groups(&groups).map_err(|error| error.to_string())?;
    Ok(ImportLine { number, device, key, class: ClassId(class_bytes), groups })
}

fn read_key(bytes: &[u8]) -> Option<PublicKey> {
    let mut reader = Reader::new("COSE_Key", bytes, bytes.len()).ok()?;
    let key = PublicKey::decode(&mut reader).ok()?;
    reader.finish().ok().map(|()| key)
}
