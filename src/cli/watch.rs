//! `plan --watch`: a command again and again, whenever one of some files changes.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::console::Console;
use super::{Exit, Failure, Result, report};

/// How often files are looked at.
const EVERY: Duration = Duration::from_millis(200);

/// When each file was written, and its size; nothing if it isn't there, as for a moment while an editor saves.
fn state(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let of = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(of).collect()
}

/// Runs a command now and after each change. What is wrong with rules is said, and waited for; only a reader that is gone ends it.
pub(super) fn run(
    files: &[PathBuf],
    console: Console,
    command: impl Fn() -> Result<Exit>,
) -> Result<Exit> {
    if files.is_empty() {
        let why =
            "`--watch` looks at files, and none is named: `--rules FILE` or `--config FILE` does";
        return Err(Failure::Usage(why.to_owned()));
    }
    loop {
        let before = state(files);
        match command() {
            Err(failure @ Failure::Output(_)) => return Err(failure),
            Err(failure) => {
                report(&failure, console);
            }
            Ok(_) => {}
        }
        console.note("note: planned; the next change plans again");
        while state(files) == before {
            std::thread::sleep(EVERY);
        }
    }
}
