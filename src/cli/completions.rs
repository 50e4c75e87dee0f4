//! `regraft completions`: what a shell needs to complete arguments.

use clap::CommandFactory;
use clap_complete::Shell;

use super::console::Console;
use super::{Exit, Result};

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "Example:
  regraft completions bash > ~/.local/share/bash-completion/completions/regraft")]
pub(super) struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut super::Arguments::command(),
        "regraft",
        &mut script,
    );
    console.exact(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
