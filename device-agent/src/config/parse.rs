//! Values of more than one word: the broker's address, ids, the reboot command.

use std::path::PathBuf;

use whimbrel_protocol::ids::{ClassId, VendorId};

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// User name, if any.
    pub user: Option<String>,
    /// Name or address; IPv6 addresses in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// How to start what the boot control chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// The agent takes the boot loader's step and starts anew.
    Restart,
    /// The agent ends with exit code 4.
    Exit,
    /// This command reboots the device.
    Command {
        /// The program, a path from the root.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

impl Url {
    /// Host and port, as people write them.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let form = "must be mqtt://[user@]host[:port]";
        if text.starts_with("mqtts://") || text.starts_with("ssl://") {
            return Err(
                "TLS is not built in yet: use mqtt:// over a trusted network or a local tunnel".to_owned()
            );
        }
        let rest = text.strip_prefix("mqtt://").ok_or(form)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user.to_owned()), address),
            None => (None, rest),
        };
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("a password does not belong in an address: use broker.password-file".to_owned());
        }
        let (host, port) = match address.rsplit_once(':') {
            // Colons inside brackets belong to an IPv6 address.
            Some((_, after)) if after.ends_with(']') => (address, 1883),
            Some((host, port)) => (host, port.parse().map_err(|_| form)?),
            None => (address, 1883),
        };
        let legal =
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
        if !legal || port == 0 || user.as_ref().is_some_and(String::is_empty) {
            return Err(form.to_owned());
        }
        Ok(Self { user, host: host.to_owned(), port })
    }
}

pub(super) fn vendor(text: &str) -> Result<VendorId, String> {
    let form = "must be a domain in lower case such as example.com, or 32 hexadecimal digits";
    VendorId::named(text).ok_or_else(|| form.to_owned())
}

pub(super) fn class(vendor: VendorId, text: &str) -> Result<ClassId, String> {
    let form = "must be a name of 1 to 64 visible characters, or 32 hexadecimal digits";
    ClassId::named(vendor, text).ok_or_else(|| form.to_owned())
}

pub(super) fn reboot(text: &str) -> Result<Reboot, String> {
    match text {
        "restart" => Ok(Reboot::Restart),
        "exit" => Ok(Reboot::Exit),
        command if command.starts_with('/') => {
            let mut words = command.split_ascii_whitespace().map(str::to_owned);
            let program = PathBuf::from(words.next().unwrap_or_default());
            Ok(Reboot::Command { program, arguments: words.collect() })
        }
        _ => Err("must be restart, exit, or a command that begins with /".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_with_and_without_user_and_port() {
        let read = |text| Url::parse(text).map(|url| (url.user, url.host, url.port));
        let host = |host: &str, port| Ok((None, host.to_owned(), port));
        assert_eq!(read("mqtt://broker"), host("broker", 1883));
        assert_eq!(read("mqtt://10.0.0.1:2000/"), host("10.0.0.1", 2000));
        assert_eq!(read("mqtt://[::1]"), host("[::1]", 1883));
        assert_eq!(read("mqtt://[::1]:1884"), host("[::1]", 1884));
        assert_eq!(read("mqtt://me@b:1"), Ok((Some("me".to_owned()), "b".to_owned(), 1)));
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for bad in [
            "broker:1883",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://b:0",
            "mqtt://b:65536",
            "mqtt://b:x",
            "mqtt://@b",
            "mqtt://me:secret@b",
            "mqtt://b/path",
            "mqtt://b c",
            "mqtts://b",
            "http://b",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reboot_command_is_split_at_spaces() {
        let command = |program: &str, arguments: &[&str]| {
            let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
            Ok(Reboot::Command { program: PathBuf::from(program), arguments })
        };
        assert_eq!(reboot("/sbin/reboot"), command("/sbin/reboot", &[]));
        assert_eq!(reboot("/bin/systemctl  reboot -f"), command("/bin/systemctl", &["reboot", "-f"]));
        assert!(reboot("reboot").is_err());
    }
}
