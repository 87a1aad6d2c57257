//! Reads public keys as HSMs, cloud key services and OpenSSL give them out: SubjectPublicKeyInfo, in PEM or DER.
//!
//! For each of the two algorithms the bytes before the point are always the same (RFC 5480 section 2, RFC 8410
//! section 4). So it is enough to compare these bytes; nothing else has to be parsed.

use whimbrel_protocol::cose::PublicKey;

/// `SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING { uncompressed point } }`
const P256_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// `SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING { point } }`
const ED25519_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Reads a public key; `None` if it is not of one of the two algorithms.
pub(super) fn parse(bytes: &[u8]) -> Option<PublicKey> {
    match core::str::from_utf8(bytes).ok().and_then(pem_body) {
        Some(der) => parse_der(&der),
        None => parse_der(bytes),
    }
}

fn parse_der(der: &[u8]) -> Option<PublicKey> {
    if let Some(point) = der.strip_prefix(&P256_HEAD) {
        let (x, y) = point.split_first_chunk::<32>()?;
        return PublicKey::p256(x, y.try_into().ok()?).ok();
    }
    PublicKey::ed25519(der.strip_prefix(&ED25519_HEAD)?.try_into().ok()?).ok()
}

/// The bytes between the marks of RFC 7468.
fn pem_body(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    base64(body)
}

/// Standard base64 with padding (RFC 4648 section 4), white space ignored.
fn base64(text: &str) -> Option<Vec<u8>> {
    let symbols: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if !symbols.len().is_multiple_of(4) {
        return None;
    }
    let padding = symbols.iter().rev().take_while(|symbol| **symbol == b'=').count();
    let content = symbols.get(..symbols.len() - padding)?;
    let mut bytes = Vec::with_capacity(symbols.len() / 4 * 3);
    for quad in content.chunks(4) {
        let bits = quad.iter().try_fold(0, |bits, symbol| Some(bits << 6 | sextet(*symbol)?))?;
        let [_, one, two, three] = (bits << (6 * (4 - quad.len()))).to_be_bytes();
        bytes.extend([one, two, three].into_iter().take(quad.len().saturating_sub(1)));
    }
    if padding > 2 { None } else { Some(bytes) }
}

fn sextet(symbol: u8) -> Option<u32> {
    let value = match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 section 10.1 prints this key.
    const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
    /// The key of draft-ietf-suit-manifest's examples.
    const P256_PEM: &str = include_str!("../../../protocol/vectors/suit/keys/es256-TEST-ONLY-public.pem");

    #[test]
    fn public_keys_of_other_tools_are_read() {
        let key = parse(ED25519_PEM.as_bytes()).unwrap();
        let PublicKey::Ed25519(point) = &key else { panic!("{key:?}") };
        assert_eq!(
            hex::encode(point.as_bytes()),
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
        let key = parse(P256_PEM.as_bytes()).unwrap();
        assert!(matches!(key, PublicKey::P256(_)));
        assert!(parse(&pem_body(P256_PEM).unwrap()).is_some_and(|same| same == key));
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let der = pem_body(ED25519_PEM).unwrap();
        for len in 0..der.len() {
            assert!(parse(&der[..len]).is_none());
        }
        let mut longer = der.clone();
        longer.push(0);
        assert!(parse(&longer).is_none());
        assert!(parse(ED25519_PEM.replace("PUBLIC", "PRIVATE").as_bytes()).is_none());
        assert!(parse(ED25519_PEM.replace('=', "").as_bytes()).is_none());
        assert!(parse(ED25519_PEM.replace('G', "!").as_bytes()).is_none());
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9v\nYmFy\n", "foobar")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        for bad in ["Z", "Zg=", "Zg", "Z===", "====", "Z=g=", "Zg==Zg=="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }
}
