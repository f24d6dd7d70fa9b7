//! Other programs, each with an end: run to completion or stopped in time, together with what they started.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command to its end or to the end of its time; whether it succeeded, what it wrote, what it said.
pub(crate) fn finish(
    command: &mut Command,
    limit: Duration,
) -> Result<(bool, String, String), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that a tool that hangs can be ended together with what it started.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start: {error}"))?;
    let out = child.stdout.take().map(collect);
    let said = child.stderr.take().map(collect);
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() > deadline => {
                end_group(&mut child);
                return Err(format!(
                    "ended after {} s without a result",
                    limit.as_secs()
                ));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(format!("waiting: {error}")),
        }
    };
    let text = |thread: Option<std::thread::JoinHandle<String>>| {
        thread
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    };
    Ok((status.success(), text(out), text(said)))
}

/// Reads to the end on a thread of its own: a full pipe would stop the child.
fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Output that came before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn end_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    // Gone already is fine.
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]);
        let begun = Instant::now();
        let ended = finish(&mut command, Duration::from_millis(50));
        assert!(ended.is_err());
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_a_command_says_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let (succeeded, out, said) =
            finish(&mut command, Duration::from_secs(60)).expect("it ends");
        assert!(!succeeded);
        assert_eq!((out.as_str(), said.as_str()), ("out\n", "err\n"));
    }
}
