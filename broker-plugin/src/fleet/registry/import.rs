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

use alloc::collections::{BTreeMap, VecDeque};

use whimbrel_protocol::codec::Reader;
use whimbrel_protocol::cose::PublicKey;
use whimbrel_protocol::ids::{ClassId, DeviceId, GroupName};

use super::plan::{check_groups, default_groups};
use super::{ACCEPTED_MAX, ImportError};

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

/// Most lines of a list: as many as devices can be accepted.
pub const IMPORT_LINES_MAX: usize = ACCEPTED_MAX;
/// Most bytes of a line.
pub const IMPORT_LINE_BYTES_MAX: usize = 4096;

/// Reads a list as it comes, in pieces that end anywhere.
#[derive(Debug, Default)]
pub struct ImportReader {
    /// Bytes of the line that has not ended yet.
    rest: Vec<u8>,
    /// Lines that have ended.
    ended: usize,
    /// In which line each device stands.
    seen: BTreeMap<DeviceId, usize>,
    read: VecDeque<ImportLine>,
}

impl ImportReader {
    /// Reads the next bytes.
    ///
    /// # Errors
    /// [`ImportError`] names the first line that is wrong.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), ImportError> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, after) = bytes.split_at(end);
            bytes = after.get(1..).unwrap_or_default();
            self.add(line)?;
            self.end_line()?;
        }
        self.add(bytes)
    }

    /// Says that the list has ended. Its last line need not end with a newline.
    ///
    /// # Errors
    /// [`ImportError`] names the first line that is wrong.
    pub fn end(&mut self) -> Result<(), ImportError> {
        if self.rest.is_empty() { Ok(()) } else { self.end_line() }
    }

    /// How many lines were read and not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// Takes up to `most` of the lines that were read.
    pub fn take(&mut self, most: usize) -> Vec<ImportLine> {
        let count = most.min(self.read.len());
        self.read.drain(..count).collect()
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        if self.rest.len() + bytes.len() > IMPORT_LINE_BYTES_MAX {
            return Err(ImportError::Long { line: self.ended + 1, limit: IMPORT_LINE_BYTES_MAX });
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), ImportError> {
        self.ended += 1;
        let number = self.ended;
        if number > IMPORT_LINES_MAX {
            return Err(ImportError::Lines { limit: IMPORT_LINES_MAX });
        }
        let bytes = core::mem::take(&mut self.rest);
        let text = core::str::from_utf8(&bytes).map_err(|_| ImportError::Text)?;
        let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        let line = text.trim();
        if line.is_empty() || (number == 1 && line.to_ascii_lowercase().starts_with(HEADING)) {
            return Ok(());
        }
        let line = read_line(number, line).map_err(|what| ImportError::Line { line: number, what })?;
        if let Some(first) = self.seen.insert(line.device.clone(), number) {
            return Err(ImportError::Twice { line: number, first, id: line.device });
        }
        self.read.push_back(line);
        Ok(())
    }
}

/// Reads a list whole.
///
/// # Errors
/// [`ImportError`] names the first line that is wrong.
pub fn read_import(bytes: &[u8]) -> Result<Vec<ImportLine>, ImportError> {
    let mut reader = ImportReader::default();
    reader.push(bytes)?;
    reader.end()?;
    Ok(reader.take(usize::MAX))
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

#[cfg(test)]
mod tests;
