//! `regraft completions`: what a shell needs to complete arguments. The script asks regraft itself, which knows rule files and keys
//! (`complete`).

use clap_complete::Shell;
use clap_complete::env::Shells;

use super::console::Console;
use super::{Exit, Failure, Result};

/// Through which the script asks; set for that run alone.
pub(super) const VARIABLE: &str = "REGRAFT_COMPLETE";

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "Example:
  regraft completions bash > ~/.local/share/bash-completion/completions/regraft")]
pub(super) struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let shell = arguments.shell.to_string();
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(&shell) else {
        return Err(Failure::Usage(format!("nothing is completed in {shell}")));
    };
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "regraft", "regraft", "regraft", &mut script)
        .map_err(Failure::Output)?;
    console.exact(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
