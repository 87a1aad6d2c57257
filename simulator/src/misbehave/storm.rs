//! A thousand connections a second. A third says nothing and stays, a third stops in the middle of CONNECT, a third
//! logs in under a name that nobody has.

use core::time::Duration;
use std::io;

use super::Client;
use super::raw::{Raw, connect};

/// Connections of one burst; all of them are reset when the next one begins.
const AT_ONCE: u32 = 200;
const HELD: Duration = Duration::from_millis(150);

pub(super) async fn burst(client: &Client) -> io::Result<()> {
    let mut open = Vec::new();
    for number in 0..AT_ONCE {
        let mut raw = Raw::open(client).await?;
        let name = format!("nobody-{}", getrandom::u64().unwrap_or(0));
        let words = connect(client, &name)?;
        let said = match number % 3 {
            0 => &[],
            1 => words.get(..words.len() / 2).unwrap_or_default(),
            _ => &words[..],
        };
        raw.send(said).await?;
        open.push(raw);
    }
    tokio::time::sleep(HELD).await;
    Ok(())
}
