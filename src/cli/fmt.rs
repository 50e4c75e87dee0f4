//! `regraft fmt`: rule files in their canonical form.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft::diagnostic::{Diagnostics, SourceText};
use regraft::error::{Error, ErrorKind};
use regraft::{library, syntax};

use super::check::rule_files;
use super::console::Console;
use super::{Exit, Failure, Result};

/// Format rule files in place
///
/// A file that doesn't parse is reported and left as it is.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft fmt my.graft
  regraft fmt --check rules/        list what would change, exit 1 if anything would
  cat my.graft | regraft fmt -")]
pub(super) struct Arguments {
    /// Rule files, directories of them, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,

    /// Change nothing; list the files that would change
    #[arg(long)]
    check: bool,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let (mut changed, mut broken) = (Vec::new(), Vec::new());
    for file in &arguments.files {
        if file.as_os_str() == "-" {
            let source = standard_input()?;
            match formatted(&source) {
                Ok(text) if arguments.check && text != source.text => changed.push("-".to_owned()),
                Ok(_) if arguments.check => {}
                Ok(text) => console.exact(&text)?,
                Err(diagnostics) => broken.extend(diagnostics.0),
            }
            continue;
        }
        for name in rule_files(std::slice::from_ref(file))? {
            let source = library::read(Path::new(&name))?;
            match formatted(&source) {
                Ok(text) if text != source.text => {
                    if !arguments.check {
                        replace(Path::new(&name), &text)?;
                    }
                    changed.push(name);
                }
                Ok(_) => {}
                Err(diagnostics) => broken.extend(diagnostics.0),
            }
        }
    }
    if console.json {
        console.json(&serde_json::json!({ "changed": changed, "findings": broken }))?;
    } else if arguments.check {
        console.out(&changed.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    } else {
        changed.iter().for_each(|name| console.note(&format!("formatted {name}")));
    }
    if !broken.is_empty() {
        console.findings(&broken);
        return Err(Failure::Shown(2));
    }
    Ok(Exit::findings(arguments.check && !changed.is_empty()))
}

fn formatted(source: &Arc<SourceText>) -> std::result::Result<String, Diagnostics> {
    let parsed = syntax::parse(Arc::clone(source));
    if parsed.diagnostics.is_empty() {
        Ok(syntax::print(&parsed.file))
    } else {
        Err(Diagnostics(parsed.diagnostics))
    }
}

/// The largest rule file that is read from standard input, in bytes.
const MAX_TEXT: u64 = 1 << 20;

fn standard_input() -> Result<Arc<SourceText>> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_TEXT + 1).read_to_string(&mut text);
    read.map_err(|error| Error::io("cannot read", "standard input", error))?;
    if text.len() as u64 > MAX_TEXT {
        return Err(Error::new(ErrorKind::Limit, "a rule file is at most 1 MiB")
            .in_file("standard input")
            .into());
    }
    Ok(Arc::new(SourceText { name: "standard input".to_owned(), text }))
}

/// Puts another text in a file's place, whole or not at all; its mode stays.
fn replace(path: &Path, text: &str) -> Result<()> {
    let failed = |error| Error::io("cannot write", path, error);
    // Where the file is a link, what it leads to is replaced, and the link stays.
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mode = std::fs::metadata(&path).map_err(failed)?.permissions();
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}
