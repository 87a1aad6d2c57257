//! Recognises U-Boot's FIT images. They are flattened device trees; each node says how its data is
//! compressed.

use super::{Packed, u32_be};

const MAGIC: u32 = 0xd00d_feed;
/// Tokens of the structure block (Devicetree Specification section 5.4).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// Finds a FIT image with something compressed in it.
pub(super) fn find(image: &[u8]) -> Option<Packed> {
    if u32_be(image, 0)? != MAGIC {
        return None;
    }
    let block = |at| image.get(usize::try_from(u32_be(image, at)?).ok()?..);
    let name = compression(block(8)?, block(12)?)?;
    Some(Packed::new(
        format!("a FIT image with parts compressed with {name}"),
        "write `compression = \"none\"` in its .its and name uncompressed files, because the transfer compresses",
    ))
}

/// The first property `compression` that is not `none`.
fn compression<'i>(structure: &'i [u8], strings: &[u8]) -> Option<&'i str> {
    let mut at = 0_usize;
    loop {
        let token = u32_be(structure, at)?;
        at = at.checked_add(4)?;
        match token {
            BEGIN_NODE => at = after(at, text(structure.get(at..)?)?.len().checked_add(1)?)?,
            END_NODE | NOP => {}
            PROPERTY => {
                let length = usize::try_from(u32_be(structure, at)?).ok()?;
                let name = usize::try_from(u32_be(structure, at.checked_add(4)?)?).ok()?;
                let start = at.checked_add(8)?;
                let value = structure.get(start..start.checked_add(length)?)?;
                if strings.get(name..).and_then(text) == Some("compression") {
                    let method = text(value).filter(|value| value.chars().all(|c| c.is_ascii_alphanumeric()));
                    if let Some(method) = method.filter(|method| *method != "none" && !method.is_empty()) {
                        return Some(method);
                    }
                }
                at = after(start, length)?;
            }
            _ => return None,
        }
    }
}

/// Reads a text that ends with a zero.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    core::str::from_utf8(bytes.get(..end)?).ok()
}

/// Tokens stand on multiples of 4.
fn after(start: usize, length: usize) -> Option<usize> {
    start.checked_add(length)?.checked_next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{code, finds};
    use super::*;

    /// A tree with one node `kernel`, which has `data` and `compression`.
    fn fit(method: &str) -> Vec<u8> {
        let padded = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let property = |name: u32, value: &[u8]| {
            let length = u32::try_from(value.len()).unwrap();
            [&PROPERTY.to_be_bytes()[..], &length.to_be_bytes(), &name.to_be_bytes(), &padded(value)].concat()
        };
        let structure = [
            [&BEGIN_NODE.to_be_bytes()[..], &padded(b"\0")].concat(),
            NOP.to_be_bytes().to_vec(),
            [&BEGIN_NODE.to_be_bytes()[..], &padded(b"kernel\0")].concat(),
            property(0, &code(20_001)),
            property(5, &[method.as_bytes(), b"\0"].concat()),
            END_NODE.to_be_bytes().to_vec(),
            END_NODE.to_be_bytes().to_vec(),
            9_u32.to_be_bytes().to_vec(),
        ]
        .concat();
        let strings = b"data\0compression\0";
        let end = u32::try_from(40 + structure.len()).unwrap();
        let mut image = [MAGIC, end, 40, end, 40, 17, 16, 0, 17, end - 40].map(u32::to_be_bytes).concat();
        image.extend(structure);
        image.extend(strings);
        image
    }

    #[test]
    fn parts_of_a_fit_image_say_their_compression() {
        finds(&fit("gzip"), "a FIT image with parts compressed with gzip");
        assert_eq!(Packed::find(&fit("none")), None);
    }

    #[test]
    fn a_spoilt_tree_does_no_harm() {
        let good = fit("none");
        for at in (0..60).chain(good.len() - 60..good.len()) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                drop(find(&bad));
            }
            drop(find(&good[..at]));
        }
    }
}
