//! Finds everything that is not canonical in some CBOR, with its place.
//!
//! The protocol's strict reader stops at the first deviation, which is all that a device needs. Whoever has to repair
//! the tool that wrote the bytes wants the whole list.

use core::fmt;

/// A deviation from deterministic CBOR (RFC 8949 section 4.2.1), or the place where it is no CBOR any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Byte offset.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) what: Deviation,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deviation {
    /// An integer or a length that is longer than it needs to be.
    NotShortest,
    /// An indefinite length.
    Indefinite,
    /// A map key that is below the one before it.
    Unsorted,
    /// A map key that is there twice.
    Duplicate,
    /// Bytes after the end.
    Trailing,
    /// Text that is not UTF-8.
    NotUtf8,
    /// The input ends inside an item.
    Truncated,
    /// A head that CBOR does not have.
    Reserved,
    /// Nesting that is deeper than this looks at.
    TooDeep,
}

impl Deviation {
    /// Whether the bytes are CBOR in spite of this deviation.
    #[must_use]
    pub(super) const fn is_lenient(self) -> bool {
        !matches!(self, Self::Truncated | Self::Reserved | Self::TooDeep)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Deviation::NotShortest => "integer or length is not in its shortest form",
            Deviation::Indefinite => "length is indefinite",
            Deviation::Unsorted => "map key is below the one before it",
            Deviation::Duplicate => "map key stands twice",
            Deviation::Trailing => "bytes follow the last item",
            Deviation::NotUtf8 => "text is not UTF-8",
            Deviation::Truncated => "input ends inside an item",
            Deviation::Reserved => "no CBOR item begins like this",
            Deviation::TooDeep => "nesting is deeper than is looked at",
        };
        write!(f, "byte {}: {what}", self.at)
    }
}

/// Deepest nesting that is looked at; a device takes 8.
const DEPTH_MAX: usize = 64;
/// Most findings that are kept.
const FINDINGS_MAX: usize = 32;

/// Lists the deviations of `bytes`, which should be one item. It looks into byte strings that hold one array,
/// map or tag, such as protected headers and SUIT members.
#[must_use]
pub(super) fn deviations(bytes: &[u8]) -> Vec<Finding> {
    let mut scan = Scan { bytes, at: 0, base: 0, findings: Vec::new() };
    match scan.item(DEPTH_MAX) {
        Ok(()) if scan.at < bytes.len() => scan.note(scan.at, Deviation::Trailing),
        Ok(()) => {}
        Err(finding) => scan.findings.push(finding),
    }
    scan.findings
}

struct Scan<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Offset of `bytes` in the outermost input.
    base: usize,
    findings: Vec<Finding>,
}

/// The head of an item: major type, argument, and whether its length is indefinite.
struct Head {
    major: u8,
    argument: u64,
    indefinite: bool,
}

const BREAK: u8 = 0xff;

impl Scan<'_> {
    fn note(&mut self, at: usize, what: Deviation) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { at: self.base + at, what });
        }
    }

    fn error(&self, at: usize, what: Deviation) -> Finding {
        Finding { at: self.base + at, what }
    }

    fn item(&mut self, depth: usize) -> Result<(), Finding> {
        let at = self.at;
        let inner = depth.checked_sub(1).ok_or_else(|| self.error(at, Deviation::TooDeep))?;
        let head = self.head()?;
        match head.major {
            0 | 1 | 7 => Ok(()),
            2 | 3 => self.string(at, &head, inner),
            4 => self.items(&head, inner, 1),
            5 => self.items(&head, inner, 2),
            _ => self.item(inner),
        }
    }

    fn head(&mut self) -> Result<Head, Finding> {
        let at = self.at;
        let truncated = self.error(at, Deviation::Truncated);
        let reserved = self.error(at, Deviation::Reserved);
        let first = *self.bytes.get(at).ok_or(truncated)?;
        let (major, info) = (first >> 5, first & 0x1f);
        let width = match info {
            0..=23 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 if matches!(major, 2..=5) => {
                self.note(at, Deviation::Indefinite);
                self.at += 1;
                return Ok(Head { major, argument: 0, indefinite: true });
            }
            _ => return Err(reserved),
        };
        let argument = self.bytes.get(at + 1..at + 1 + width).ok_or(truncated)?;
        let value = argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        self.at += 1 + width;
        // Floats and simple values have no shorter form that means the same here.
        let shorter = match width {
            1 => value < 24,
            2 => value <= 0xff,
            4 => value <= 0xffff,
            8 => value <= 0xffff_ffff,
            _ => false,
        };
        if shorter && major != 7 {
            self.note(at, Deviation::NotShortest);
        }
        let argument = if width == 0 { u64::from(info) } else { value };
        Ok(Head { major, argument, indefinite: false })
    }

    fn string(&mut self, at: usize, head: &Head, inner: usize) -> Result<(), Finding> {
        if head.indefinite {
            while !self.take_break() {
                let chunk_at = self.at;
                let chunk = self.head()?;
                if chunk.major != head.major || chunk.indefinite {
                    return Err(self.error(chunk_at, Deviation::Reserved));
                }
                self.string(chunk_at, &chunk, inner)?;
            }
            return Ok(());
        }
        let truncated = self.error(at, Deviation::Truncated);
        let start = self.at;
        let end = usize::try_from(head.argument).ok().and_then(|len| start.checked_add(len));
        let end = end.filter(|end| *end <= self.bytes.len()).ok_or(truncated)?;
        let content = self.bytes.get(start..end).unwrap_or_default();
        self.at = end;
        if head.major == 3 {
            if core::str::from_utf8(content).is_err() {
                self.note(at, Deviation::NotUtf8);
            }
        } else if content.first().is_some_and(|first| matches!(first >> 5, 4..=6)) {
            self.embedded(start, content, inner);
        }
        Ok(())
    }

    /// Looks into a byte string that may hold CBOR. If it does not, there is nothing to find.
    fn embedded(&mut self, start: usize, content: &[u8], depth: usize) {
        let mut scan = Scan { bytes: content, at: 0, base: self.base + start, findings: Vec::new() };
        if scan.item(depth).is_ok() && scan.at == content.len() {
            let room = FINDINGS_MAX.saturating_sub(self.findings.len());
            self.findings.extend(scan.findings.into_iter().take(room));
        }
    }

    /// The items of an array, or the pairs of a map.
    fn items(&mut self, head: &Head, depth: usize, per_entry: usize) -> Result<(), Finding> {
        let mut previous: Option<(usize, usize)> = None;
        let mut left = head.argument;
        while if head.indefinite { !self.take_break() } else { left > 0 } {
            left = left.saturating_sub(1);
            let key_at = self.at;
            self.item(depth)?;
            if per_entry == 2 {
                self.compare(previous, (key_at, self.at));
                previous = Some((key_at, self.at));
                self.item(depth)?;
            }
        }
        Ok(())
    }

    fn compare(&mut self, previous: Option<(usize, usize)>, key: (usize, usize)) {
        let bytes = |(from, to): (usize, usize)| self.bytes.get(from..to).unwrap_or_default();
        match previous.map(|previous| bytes(previous).cmp(bytes(key))) {
            Some(core::cmp::Ordering::Equal) => self.note(key.0, Deviation::Duplicate),
            Some(core::cmp::Ordering::Greater) => self.note(key.0, Deviation::Unsorted),
            Some(core::cmp::Ordering::Less) | None => {}
        }
    }

    fn take_break(&mut self) -> bool {
        let found = self.bytes.get(self.at) == Some(&BREAK);
        self.at += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(hex: &str) -> Vec<(usize, Deviation)> {
        deviations(&hex::decode(hex).unwrap()).iter().map(|finding| (finding.at, finding.what)).collect()
    }

    #[test]
    fn canonical_items_have_no_deviations() {
        for item in ["00", "1818", "20", "40", "4101", "60", "80", "a0", "f6", "a2010203f5", "d28440a0f640"] {
            assert_eq!(found(item), [], "{item}");
        }
    }

    #[test]
    fn each_deviation_is_found_at_its_place() {
        assert_eq!(found("1817"), [(0, Deviation::NotShortest)]);
        assert_eq!(found("8119000a"), [(1, Deviation::NotShortest)]);
        assert_eq!(found("9f01ff"), [(0, Deviation::Indefinite)]);
        assert_eq!(found("5f4101ff"), [(0, Deviation::Indefinite)]);
        assert_eq!(found("a2020001f6"), [(3, Deviation::Unsorted)]);
        assert_eq!(found("a201000100"), [(3, Deviation::Duplicate)]);
        assert_eq!(found("0000"), [(1, Deviation::Trailing)]);
        assert_eq!(found("61ff"), [(0, Deviation::NotUtf8)]);
        assert_eq!(found("4201"), [(0, Deviation::Truncated)]);
        assert_eq!(found("1c"), [(0, Deviation::Reserved)]);
        assert_eq!(found("ff"), [(0, Deviation::Reserved)]);
        assert_eq!(found(""), [(0, Deviation::Truncated)]);
        assert_eq!(found(&"81".repeat(100)), [(64, Deviation::TooDeep)]);
    }

    #[test]
    fn all_of_them_are_listed_also_inside_of_byte_strings() {
        // {3: [_ 0x1801], 1: h'a2 02 00 01 00'}
        let want = [
            (2, Deviation::Indefinite),
            (3, Deviation::NotShortest),
            (6, Deviation::Unsorted),
            (11, Deviation::Unsorted),
        ];
        assert_eq!(found("a2039f1801ff0145a202000100"), want);
    }

    #[test]
    fn lengths_beyond_the_input_are_no_work() {
        assert_eq!(found("5bffffffffffffffff00"), [(0, Deviation::Truncated)]);
        assert_eq!(found("9bffffffffffffffff00"), [(10, Deviation::Truncated)]);
    }
}
