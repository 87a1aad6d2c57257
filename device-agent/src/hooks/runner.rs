//! Runs one hook: in its own process group, with a time limit, and with nothing of it left afterwards.

use core::time::Duration;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::HookError;

/// What a hook may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may run.
    pub time: Duration,
    /// How much of its output is kept, in bytes: the end.
    pub output_bytes: usize,
}

/// The exit code that asks to be asked again later, as in Mender's state scripts.
const EXIT_LATER: i32 = 21;
/// How long the output of a hook that has ended may be kept open by what left its process group.
const LINGER: Duration = Duration::from_secs(1);

/// Runs `hook` with exactly these `variables`, and gives back the end of what it printed.
///
/// # Errors
/// [`HookError`] unless it ended with exit code 0.
pub(super) async fn run(
    hook: &Path,
    variables: &[(&'static str, String)],
    limits: Limits,
) -> Result<String, HookError> {
    let mut child = Command::new(hook)
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(HookError::Start)?;
    let group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut output = (Vec::new(), Vec::new());
    let mut reading = Box::pin(async {
        tokio::join!(
            keep(stdout, &mut output.0, limits.output_bytes),
            keep(stderr, &mut output.1, limits.output_bytes)
        );
    });
    let ended = tokio::time::timeout(limits.time, async {
        tokio::select! {
            status = child.wait() => (status, false),
            () = &mut reading => (child.wait().await, true),
        }
    })
    .await;
    // Whatever it started goes with it, whether it ended well, badly or not at all.
    drop(group);
    let Ok((status, read_up)) = ended else {
        drop(child.wait().await);
        return Err(HookError::Time { limit: limits.time });
    };
    if !read_up {
        drop(tokio::time::timeout(LINGER, &mut reading).await);
    }
    drop(reading);
    let output = one_line(&output.0, &output.1, limits.output_bytes);
    judge(status.map_err(HookError::Start)?, output)
}

fn judge(status: ExitStatus, output: String) -> Result<String, HookError> {
    match status.code() {
        Some(0) => Ok(output),
        Some(EXIT_LATER) => Err(HookError::Later { output }),
        _ => Err(HookError::Failed { status: status.to_string(), output }),
    }
}

/// Reads to the end, so that the writer is never stuck, and keeps the last `most` bytes.
async fn keep(source: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, most: usize) {
    let Some(mut source) = source else {
        return;
    };
    let mut buffer = [0; 2048];
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        into.extend(buffer.iter().take(count));
        into.drain(..into.len().saturating_sub(most));
    }
}

/// Standard error last, since that is where failures are explained and the end is what is kept.
fn one_line(stdout: &[u8], stderr: &[u8], most: usize) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" | ")
    };
    let both = [text(stdout), text(stderr)];
    let line =
        both.iter().filter(|text| !text.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" | ");
    let line: String = line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    last_bytes(&line, most).to_owned()
}

/// The last characters of `text` that together have at most `most` bytes.
pub(super) fn last_bytes(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    (from..=text.len()).find_map(|at| text.get(at..)).unwrap_or_default()
}

/// The process group of a hook: killed when this is dropped, also when the one who waits gives up.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error says that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
