//! The file of devices' passwords: the command line writes it, the door of the service reads it.
//!
//! Each line names a device and what is kept of its password, which is never the password itself:
//!
//! ```text
//! meter-17:sha256:SALT:DIGEST
//! meter-18:argon2id:19456,2,1:SALT:HASH
//! ```
//!
//! Salt, digest and hash are in hexadecimal. A random password of 128 bits cannot be guessed, so that one SHA-256 of
//! salt and password protects it. A password that a person chose can be guessed, so that each guess has to be dear:
//! argon2id (RFC 9106), whose numbers are KiB of memory, passes and lanes.

use alloc::collections::BTreeMap;
use core::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use whimbrel_protocol::ids::{DeviceId, Digest};

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
    /// `None`: SHA-256.
    cost: Option<Cost>,
}

/// What one guess costs with argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;
/// Random bytes of a password that a program makes; twice as many hexadecimal digits are typed.
pub const RANDOM_BYTES: usize = 16;
/// Fewest characters of a password that a person chooses.
pub const CHOSEN_LEN_MIN: usize = 8;
/// Most bytes of a password. The longest CONNECT that the door reads has room for it.
pub const PASSWORD_BYTES_MAX: usize = 4096;
/// Most bytes of a file of passwords: a million devices.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

const HASH_BYTES: usize = 32;
/// What the first recommendation of OWASP for argon2id asks for.
const COST: Cost = Cost { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
/// A file may ask for no more than this, so that no login takes the service's memory.
const COST_MAX: Cost = Cost { memory_kib: 64 * 1024, passes: 16, lanes: 4 };

impl Kept {
    /// Of a password with at least 128 random bits.
    #[must_use]
    pub fn of_random(password: &str, salt: [u8; SALT_BYTES]) -> Self {
        Self { salt, hash: sha256(&salt, password), cost: None }
    }

    /// Of a password that a person chose. Takes tens of milliseconds.
    #[must_use]
    pub fn of_chosen(password: &str, salt: [u8; SALT_BYTES]) -> Self {
        Self { salt, hash: argon2id(COST, &salt, password), cost: Some(COST) }
    }

    /// Reads what stands behind the device and its colon.
    ///
    /// # Errors
    /// What would be right.
    pub fn read(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split(':').map(str::trim).collect();
        let (cost, salt, hash) = match fields.as_slice() {
            ["sha256", salt, hash] => (None, *salt, *hash),
            ["argon2id", cost, salt, hash] => (Some(Cost::read(cost)?), *salt, *hash),
            _ => {
                return Err(
                    "expected device:sha256:SALT:DIGEST or device:argon2id:KIB,PASSES,LANES:SALT:HASH, \
                            as `whimbrel device password` writes it"
                        .to_owned(),
                );
            }
        };
        let mut kept = Self { salt: [0; SALT_BYTES], hash: [0; HASH_BYTES], cost };
        hex::decode_to_slice(salt, &mut kept.salt).map_err(|_| "the salt must have 32 hexadecimal digits")?;
        hex::decode_to_slice(hash, &mut kept.hash)
            .map_err(|_| "the digest must have 64 hexadecimal digits")?;
        Ok(kept)
    }

    /// Whether a look at this password takes tens of milliseconds.
    #[must_use]
    pub const fn is_slow(&self) -> bool {
        self.cost.is_some()
    }

    /// Whether this is the password. What is compared are digests with a salt that no client knows, so that the time it
    /// takes says nothing about the password.
    #[must_use]
    pub fn accepts(&self, password: &str) -> bool {
        self.hash
            == match self.cost {
                None => sha256(&self.salt, password),
                Some(cost) => argon2id(cost, &self.salt, password),
            }
    }

    /// Names this entry among all others, for a memory of what was accepted: salt and digest.
    #[must_use]
    pub fn name(&self) -> [u8; SALT_BYTES + HASH_BYTES] {
        let mut name = [0; SALT_BYTES + HASH_BYTES];
        for (to, from) in name.iter_mut().zip(self.salt.iter().chain(&self.hash)) {
            *to = *from;
        }
        name
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cost {
            None => f.write_str("sha256")?,
            Some(Cost { memory_kib, passes, lanes }) => write!(f, "argon2id:{memory_kib},{passes},{lanes}")?,
        }
        write!(f, ":{}:{}", hex::encode(self.salt), hex::encode(self.hash))
    }
}

/// Nothing that helps to guess is printed.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_slow() { "Kept(argon2id)" } else { "Kept(sha256)" })
    }
}

impl Cost {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            let Self { memory_kib, passes, lanes } = COST_MAX;
            format!(
                "argon2id's numbers must be KiB,PASSES,LANES, such as {},{},{}, and at most \
                 {memory_kib},{passes},{lanes}",
                COST.memory_kib, COST.passes, COST.lanes
            )
        };
        let numbers: Vec<u32> = text.split(',').filter_map(|number| number.parse().ok()).collect();
        let &[memory_kib, passes, lanes] = numbers.as_slice() else { return Err(wrong()) };
        let is_within =
            memory_kib <= COST_MAX.memory_kib && passes <= COST_MAX.passes && lanes <= COST_MAX.lanes;
        let cost = Self { memory_kib, passes, lanes };
        if is_within && cost.params().is_some() { Ok(cost) } else { Err(wrong()) }
    }

    fn params(self) -> Option<Params> {
        Params::new(self.memory_kib, self.passes, self.lanes, Some(HASH_BYTES)).ok()
    }
}

/// Reads a whole file: lines `device:...`; empty lines and lines that start with # are left out.
///
/// # Errors
/// The number of the first line that is wrong, from 1, and what would be right.
pub fn read_file(text: &str) -> Result<BTreeMap<DeviceId, Kept>, (usize, String)> {
    let mut all = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let at = |what: String| (number, what);
        let Some((id, kept)) = read_line(line).map_err(at)? else { continue };
        if all.insert(id.clone(), kept).is_some() {
            return Err(at(format!("device {id} stands twice")));
        }
    }
    Ok(all)
}

/// Reads one line; `None` if it is empty or a comment.
///
/// # Errors
/// What would be right.
pub fn read_line(line: &str) -> Result<Option<(DeviceId, Kept)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (id, kept) = line.split_once(':').unwrap_or((line, ""));
    let id = DeviceId::new(id).map_err(|error| error.to_string())?;
    Ok(Some((id, Kept::read(kept)?)))
}

fn sha256(salt: &[u8], password: &str) -> [u8; HASH_BYTES] {
    Digest::of(&[salt, password.as_bytes()].concat()).0
}

fn argon2id(cost: Cost, salt: &[u8], password: &str) -> [u8; HASH_BYTES] {
    let params = cost.params().expect("a cost is checked where it is read");
    let mut memory = vec![Block::default(); params.block_count()];
    let mut hash = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, &mut memory)
        .expect("salt and hash have lengths that argon2id allows, and a password is shorter than 4 GiB");
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; SALT_BYTES] = [7; SALT_BYTES];

    #[test]
    fn what_is_kept_of_a_password_accepts_it_and_no_other_and_survives_the_file() {
        for (kept, is_slow) in [(Kept::of_random("key", SALT), false), (Kept::of_chosen("key", SALT), true)] {
            let line = format!("m1:{kept}");
            assert!(!line.contains("key"), "{line}");
            let (id, read) = read_line(&line).unwrap().unwrap();
            assert_eq!((id.as_str(), &read, read.is_slow()), ("m1", &kept, is_slow));
            assert!(read.accepts("key"));
            for other in ["Key", "", "key ", "ke"] {
                assert!(!read.accepts(other), "{other:?}");
            }
            assert_ne!(read.name(), Kept::of_random("key", [8; SALT_BYTES]).name());
        }
    }

    #[test]
    fn salt_comes_before_the_password() {
        let digest = Digest::of(&[&SALT[..], b"key"].concat()).0;
        let line = format!("sha256:{}:{}", hex::encode(SALT), hex::encode(digest));
        assert_eq!(Kept::of_random("key", SALT).to_string(), line);
    }

    #[test]
    fn a_bad_line_is_named_with_what_would_be_right() {
        let (salt, digest) = ("0".repeat(32), "0".repeat(64));
        let good = format!("m1:sha256:{salt}:{digest}");
        assert_eq!(read_file(&format!("# devices\n\n{good}\n")).unwrap().len(), 1);
        for (bad, at, what) in [
            ("m1".to_owned(), 2, "expected device:sha256"),
            (format!("m1:{digest}"), 2, "expected device:sha256"),
            (format!("m1:sha256:{salt}:abc"), 2, "64 hexadecimal digits"),
            (format!("m1:sha256:abc:{digest}"), 2, "32 hexadecimal digits"),
            (format!("m1:argon2id:{salt}:{digest}"), 2, "expected device:sha256"),
            (format!("m1:argon2id:1,2:{salt}:{digest}"), 2, "argon2id's numbers"),
            (format!("m1:argon2id:19456,0,1:{salt}:{digest}"), 2, "argon2id's numbers"),
            (format!("m1:argon2id:4000000000,1,1:{salt}:{digest}"), 2, "at most 65536,16,4"),
            (format!("m:sha256:{salt}:{digest}"), 2, "2 to 64"),
            (format!("{good}\n{good}"), 3, "stands twice"),
            (format!("{good}\n\n#\nm2:"), 5, "expected device:sha256"),
        ] {
            let (line, said) = read_file(&format!("# head\n{bad}")).unwrap_err();
            assert_eq!(line, at, "{bad}: {said}");
            assert!(said.contains(what), "{bad}: {said}");
        }
        assert_eq!(format!("{:?}", Kept::of_random("key", SALT)), "Kept(sha256)", "nothing of it is printed");
    }
}
