//! Where the broker is and who we are to it.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use whimbrel_protocol::ids::Prefix;

use crate::attach::LinkError;

/// Settings of a [`ClientLink`](super::ClientLink).
#[derive(Clone)]
pub struct ClientConfig {
    /// Where the broker is.
    pub broker: BrokerUrl,
    /// Client id: the same at each start, and no other client's.
    pub client_id: String,
    /// User name and password, where the broker wants them.
    pub login: Option<(String, String)>,
    /// First level of all topics.
    pub prefix: Prefix,
    /// Whether the broker is asked to keep documents for devices that come later.
    pub retain: Retain,
    /// Largest packet to the broker, 64 KiB to 256 MiB. Default 1 MiB.
    pub packet_bytes_max: usize,
    /// A ping is sent this often, and the connection given up when none is answered; 1 s to 18 h. Default 30 s.
    pub keep_alive: Duration,
    /// Seed of the jitter of reconnects: random, or fixed in a test.
    pub seed: u64,
}

impl ClientConfig {
    /// Settings for a broker, with the defaults for the rest.
    #[must_use]
    pub fn new(broker: BrokerUrl, client_id: String, seed: u64) -> Self {
        Self {
            broker,
            client_id,
            login: None,
            prefix: Prefix::default(),
            retain: Retain::Auto,
            packet_bytes_max: 1 << 20,
            keep_alive: Duration::from_secs(30),
            seed,
        }
    }

    pub(crate) fn check(&self) -> Result<(), LinkError> {
        let wrong = |setting, got: String, expected| Err(LinkError::Setting { setting, got, expected });
        if self.client_id.is_empty() || self.client_id.len() > 128 {
            return wrong("client id", self.client_id.clone(), "1 to 128 bytes");
        }
        if !(64 * 1024..=256 << 20).contains(&self.packet_bytes_max) {
            return wrong("packet_bytes_max", self.packet_bytes_max.to_string(), "64 KiB to 256 MiB");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(u64::from(u16::MAX))).contains(&self.keep_alive) {
            return wrong("keep_alive", format!("{:?}", self.keep_alive), "1 s to 18 h");
        }
        if let Some((user, password)) = &self.login
            && user.len().max(password.len()) > LOGIN_BYTES_MAX
        {
            return wrong("login", "longer".to_owned(), "at most 65,535 bytes of user name and of password");
        }
        Ok(())
    }
}

/// MQTT has room for so much of each.
const LOGIN_BYTES_MAX: usize = 65_535;

impl fmt::Debug for ClientConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("broker", &self.broker)
            .field("client_id", &self.client_id)
            .field("user_name", &self.login.as_ref().map(|(name, _)| name))
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Whether the broker is asked to keep documents for devices that come later (the retain flag).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retain {
    /// Until the broker ends two connections in a row at the first such message.
    Auto,
    /// Always.
    On,
    /// Never. Devices that come later ask for what they missed.
    Off,
}

impl FromStr for Retain {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("must be auto, on or off"),
        }
    }
}

/// `mqtt://HOST` or `mqtt://HOST:PORT`; the port is 1883 by default. An IPv6 address is in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Name or address; with brackets where it is an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
}

impl FromStr for BrokerUrl {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Setting {
            setting: "URL",
            got: text.to_owned(),
            expected: "mqtt://HOST or mqtt://HOST:PORT",
        };
        let rest = text.strip_prefix("mqtt://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A colon inside brackets belongs to an address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = port.map_or(Ok(1883), |port| port.parse().map_err(|_| wrong()))?;
        let plain = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let in_brackets = plain.len() != host.len();
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || in_brackets && byte == b':';
        if plain.is_empty() || port == 0 || !plain.bytes().all(allowed) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mqtt://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_perhaps_a_port() {
        for (text, host, port) in [
            ("mqtt://broker.example", "broker.example", 1883),
            ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884),
            ("mqtt://127.0.0.1:1884/", "127.0.0.1", 1884),
            ("mqtt://[::1]", "[::1]", 1883),
            ("mqtt://[::1]:1999", "[::1]", 1999),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
        }
    }

    #[test]
    fn what_is_not_such_a_url_is_refused_with_the_form_that_would_be_right() {
        for text in [
            "",
            "broker.example",
            "mqtts://broker.example",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://host:",
            "mqtt://host:0",
            "mqtt://host:99999",
            "mqtt://::1",
            "mqtt://user@host",
            "mqtt://host/path",
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains("expected mqtt://HOST"), "{text}: {error}");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        let mut config = ClientConfig::new("mqtt://host".parse().unwrap(), "service".to_owned(), 1);
        config.login = Some(("otaserver".to_owned(), "s3cret".to_owned()));
        let printed = format!("{config:?}");
        assert!(printed.contains("otaserver") && !printed.contains("s3cret"), "{printed}");
    }
}
