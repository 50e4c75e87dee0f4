//! Tells Zed how the language server of regraft is started: the one on `PATH`.

use zed_extension_api as zed;

struct Regraft;

impl zed::Extension for Regraft {
    fn new() -> Self {
        Regraft
    }

    fn language_server_command(
        &mut self,
        _server: &zed::LanguageServerId,
        worktree: &zed::Worktree,
    ) -> zed::Result<zed::Command> {
        let found = worktree.which("regraft");
        let command = found.ok_or("there is no `regraft` on PATH: `cargo install regraft`")?;
        Ok(zed::Command { command, args: vec!["lsp".into()], env: worktree.shell_env() })
    }
}

zed::register_extension!(Regraft);
