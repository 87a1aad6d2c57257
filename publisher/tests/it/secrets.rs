//! No secret ever appears in any output.

use whimbrel_protocol::cose::SigningKey;
use whimbrel_publisher::keys::KeyFile;

use crate::support::{Place, build_args, text};

/// The secret in the forms in which it might slip out.
fn forms(secret: &[u8]) -> Vec<String> {
    let hex = hex::encode(secret);
    let spaced = secret.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let numbers = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    // Parts too: 8 bytes of a secret are a secret.
    vec![hex.to_uppercase(), hex[..16].into(), hex[48..].into(), spaced, numbers]
}

fn secret_of(file: &[u8]) -> Vec<u8> {
    // The last member of the map: -4, 32 bytes.
    assert_eq!(file[file.len() - 35..file.len() - 32], [0x23, 0x58, 0x20]);
    file[file.len() - 32..].to_vec()
}

#[test]
fn no_command_shows_a_secret() {
    for alg in ["ed25519", "esp256"] {
        let place = Place::new();
        place.run(["init", ".", "--alg", alg]).good();
        let mut secrets: Vec<Vec<u8>> =
            ["offline-keys/root", "offline-keys/release", "keys/campaign", "keys/beacon"]
                .iter()
                .map(|role| secret_of(&place.read(&format!("{role}.cose"))))
                .collect();
        let token = String::from_utf8(place.read("admin.token")).unwrap();
        secrets.push(hex::decode(token.trim()).unwrap());
        let mut secrets: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        // Of the token the text itself is the secret, and its start too.
        secrets.push(token.trim()[..16].into());

        place.write("image", text(5_000));
        // Key files with something wrong: trailing, cut, in another order, inside of something.
        let key = place.read("offline-keys/release.cose");
        place.write("trailing", [&key[..], &[0]].concat());
        place.write("cut", &key[..key.len() - 1]);
        place.write("wrapped", [&[0x81][..], &key].concat());
        place.write("bytes", [&[0x81, 0x58, u8::try_from(key.len()).unwrap()][..], &key].concat());
        place.write("hex", hex::encode(&key));
        let mut reordered = vec![key[0]];
        reordered.extend(&key[key.len() - 35..]);
        reordered.extend(&key[1..key.len() - 35]);
        place.write("reordered", reordered);

        let mut runs = vec![place.run(build_args("image", "r"))];
        for json in [&[][..], &["--json"]] {
            for args in [
                &["key", "show", "offline-keys/release.cose"][..],
                &["key", "show", "offline-keys/root.cose"],
                &["key", "show", "cut"],
                &["key", "show", "trailing"],
                &["key", "show", "hex"],
                &["key", "show", "admin.token"],
                &["key", "new", "offline-keys/root.cose"],
                &["inspect", "offline-keys/release.cose"],
                &["inspect", "keys/campaign.cose"],
                &["inspect", "trailing"],
                &["inspect", "cut"],
                &["inspect", "wrapped"],
                &["inspect", "bytes"],
                &["inspect", "hex"],
                &["inspect", "reordered"],
                &["inspect", "admin.token"],
                &["inspect", "whimbrel.toml"],
                &["release", "sign", "r"],
                &["release", "sign", "r", "--key", "cut"],
                &["release", "sign", "r", "--key", "admin.token"],
                &["release", "verify", "r"],
                &["release", "publish", "r"],
                &[
                    "release",
                    "attach",
                    "r",
                    "--signature",
                    "admin.token",
                    "--public-key",
                    "offline-keys/root.cose",
                ],
                &["campaign", "list"],
                &["campaign", "list", "--token-file", "offline-keys/root.cose"],
                &["status", "--service", "127.0.0.1:1"],
                &["--config", "admin.token", "status"],
                &["--config", "offline-keys/root.cose", "status"],
                &["init", "."],
            ] {
                runs.push(place.run([args, json].concat()));
            }
        }
        for run in runs {
            let said = format!("{}{}", run.out, run.err);
            for secret in &secrets {
                assert!(!said.to_lowercase().contains(&secret.to_lowercase()), "{said}");
            }
        }
    }
}

#[test]
fn nothing_that_is_debugged_shows_a_secret() {
    for key in [SigningKey::ed25519(&[0x5e; 32]), SigningKey::p256(&[0x5e; 32]).unwrap()] {
        let file = KeyFile::parse(&key.encode_file()).unwrap();
        let said = format!("{file:?} {key:?}").to_lowercase();
        assert!(!said.contains("5e5e") && !said.contains("94, 94"), "{said}");
    }
    let place = Place::new();
    place.write("token", "5e".repeat(32));
    let client = whimbrel_publisher::service::Client::new("127.0.0.1:1", &place.path("token")).unwrap();
    assert!(!format!("{client:?}").contains("5e5e"));
}
