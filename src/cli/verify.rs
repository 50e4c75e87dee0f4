//! `regraft verify`: holds files to the checksums beside them.

use std::path::PathBuf;

use regraft::diagnostic::plain::one_line;
use regraft::execute::verify;
use regraft::overview::{Size, counted};

use super::console::Console;
use super::{Exit, Result};

/// Compare files with the checksums that `apply --checksums` wrote
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The directory of the checkpoint
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let verified = verify(&arguments.directory)?;
    if console.json {
        console.json(&verified)?;
    } else {
        for finding in &verified.findings {
            console.out(&format!("{}\n", one_line(finding)))?;
        }
        if verified.findings.is_empty() && !console.quiet {
            console.out(&format!(
                "{} as their checksums say, {}\n",
                counted(verified.files, "file"),
                Size(verified.bytes)
            ))?;
        }
    }
    Ok(Exit::findings(!verified.findings.is_empty()))
}
