//! `regraft recover`: completes or takes back a change in place that was interrupted.

use std::path::PathBuf;

use regraft::execute::{Recovery, recover};
use serde_json::json;

use super::console::Console;
use super::{Exit, Result};

/// Complete a change in place that was interrupted, or take it back
///
/// What `apply --in-place` is about to do lies in a journal beside the files until it is done.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The directory of the checkpoint, or its file
    #[arg(value_name = "DIR")]
    path: PathBuf,

    /// Make the files what they were before
    #[arg(long)]
    roll_back: bool,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let way = if arguments.roll_back { Recovery::RollBack } else { Recovery::Complete };
    let found = recover(&arguments.path, way)?;
    if console.json {
        console.json(&json!({ "interrupted": found, "recovery": found.then_some(way) }))?;
    } else if !console.quiet {
        console.out(match (found, way) {
            (false, _) => "no change was interrupted here\n",
            (true, Recovery::Complete) => "the change is complete\n",
            (true, Recovery::RollBack) => "the files are what they were before\n",
        })?;
    }
    Ok(Exit::Done)
}
