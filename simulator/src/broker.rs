//! The address of a broker as people write it: `mqtt://[USER[:PASSWORD]@]HOST[:PORT]`.

use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use core::time::Duration;
use std::io;

use crate::error::AddressError;

/// A broker, and how to log in there.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Name or address of the host, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name and password.
    pub login: Option<(String, String)>,
}

impl BrokerAddress {
    /// The socket address of the host, of several the first that answers.
    ///
    /// # Errors
    /// Where the name is not known, or nobody answers.
    pub async fn find(&self) -> io::Result<SocketAddr> {
        let name = (self.host.as_str(), self.port);
        let socket = tokio::time::timeout(ANSWERS_WITHIN, tokio::net::TcpStream::connect(name));
        socket.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.peer_addr()
    }
}

/// Long enough for a broker on the other side of the world.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |why| AddressError::Form { text: without_password(text), why };
        let rest = match text.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => rest,
            Some(("mqtts" | "ssl", _)) => return Err(wrong("TLS is not supported here")),
            Some(_) => return Err(wrong("the scheme is mqtt")),
            None => return Err(wrong("mqtt:// is missing")),
        };
        let (login, place) = match rest.trim_end_matches('/').rsplit_once('@') {
            Some((login, place)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((user.to_owned(), password.to_owned())), place)
            }
            None => (None, rest.trim_end_matches('/')),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some("1883"))),
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, Some("1883")),
            },
        };
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let port = port.ok_or_else(|| wrong("a port is a number from 1 to 65535"))?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wrong("the host is missing or no name"));
        }
        Ok(Self { host: host.to_owned(), port, login })
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "mqtt://[{}]:{}", self.host, self.port),
            false => write!(f, "mqtt://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the password.
        let user = self.login.as_ref().map(|(user, _)| user);
        f.debug_struct("BrokerAddress").field("address", &self.to_string()).field("user", &user).finish()
    }
}

/// The text for an error message.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, place)) => format!("...@{place}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BrokerAddress, AddressError> {
        text.parse()
    }

    #[test]
    fn addresses_are_read_with_the_ports_and_logins_they_have() {
        for (text, host, port, login) in [
            ("mqtt://broker", "broker", 1883, None),
            ("mqtt://127.0.0.1:1884/", "127.0.0.1", 1884, None),
            ("mqtt://[::1]", "::1", 1883, None),
            ("mqtt://[::1]:99", "::1", 99, None),
            ("mqtt://load@broker", "broker", 1883, Some(("load", ""))),
            ("mqtt://load:p@ss:word@broker:1", "broker", 1, Some(("load", "p@ss:word"))),
        ] {
            let login = login.map(|(user, password): (&str, &str)| (user.to_owned(), password.to_owned()));
            assert_eq!(parse(text), Ok(BrokerAddress { host: host.to_owned(), port, login }), "{text}");
        }
        assert_eq!(parse("mqtt://[::1]:99").unwrap().to_string(), "mqtt://[::1]:99");
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong_and_keep_the_password_to_themselves() {
        for text in [
            "",
            "broker",
            "http://broker",
            "mqtts://broker",
            "mqtt://",
            "mqtt://u:secret@",
            "mqtt://b:0",
            "mqtt://b:x",
            "mqtt://b:70000",
            "mqtt://a b",
            "mqtt://[::1]x",
            "mqtt://u:secret@b/path",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("mqtt://HOST") && !error.contains("secret"), "{text}: {error}");
        }
        assert!(!format!("{:?}", parse("mqtt://u:secret@b")).contains("secret"));
    }

    #[tokio::test]
    async fn a_host_is_looked_up_and_has_to_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broker = parse(&format!("mqtt://localhost:{}", address.port())).unwrap();
        assert_eq!(broker.find().await.unwrap(), address);
        drop(listener);
        assert!(broker.find().await.is_err());
    }
}
