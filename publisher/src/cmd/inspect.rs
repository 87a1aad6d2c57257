//! `whimbrel inspect`

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Context, Screen};
use crate::cli::InspectFlags;
use crate::inspect;

/// Most bytes that are read from standard input.
const STDIN_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn run(context: &Context, flags: &InspectFlags) -> Result<Screen> {
    let root = context.root(flags.root.as_deref())?.map(|(_, root)| root);
    if flags.file != Path::new("-") {
        return Ok(inspect::explain_file(&flags.file, root.as_ref())?.into());
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    if bytes.len() as u64 > STDIN_BYTES_MAX {
        bail!("standard input has more than {STDIN_BYTES_MAX} bytes; save it and give the file's name");
    }
    Ok(inspect::explain("standard input", &bytes, root.as_ref())?.into())
}
