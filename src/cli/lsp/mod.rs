//! `regraft lsp`: the language server, for editors. It holds the texts that are open, and answers
//! from `regraft::editor`.
//!
//! One thread reads and answers. What a pinned checkpoint says takes longer than a keystroke, so
//! another thread plans, always for the newest text only, and tells the editor when it is done.

mod answer;
mod facts;
mod findings;
mod opened;
mod text;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use regraft::error::Error;
use serde_json::{Value, json};

use super::console::Console;
use super::{Exit, Failure, Result};
use facts::Pinned;
use opened::Opened;
use text::{Encoding, path_of};
use watch::{Tell, Watch};

/// Speak the language server protocol on standard input and output, for editors
///
/// docs/editors.md says how editors are told.
#[derive(clap::Args)]
#[command(after_help = "A rule file says in a comment which checkpoint it is for:
  # checkpoint: mixtral-8x7b/model.safetensors.index.json")]
pub(super) struct Arguments {
    /// What many editors add; there is no other way
    #[arg(long, hide = true)]
    stdio: bool,
}

pub(super) fn run(arguments: &Arguments, _: Console) -> Result<Exit> {
    // Both ways are this one.
    let _ = arguments.stdio;
    let (connection, threads) = Connection::stdio();
    serve(connection)?;
    threads.join().map_err(Failure::Output)?;
    Ok(Exit::Done)
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::World(Error::corrupt(format!("the editor stopped in the middle: {error}")))
}

/// Answers until the editor says that it is done.
fn serve(connection: Connection) -> Result<()> {
    let (id, params) = connection.initialize_start().map_err(broken)?;
    let encoding = Encoding::negotiated(&params);
    let result = json!({
        "capabilities": answer::capabilities(encoding),
        "serverInfo": { "name": "regraft", "version": env!("CARGO_PKG_VERSION") },
    });
    connection.initialize_finish(id, result).map_err(broken)?;
    let mut server = Server {
        encoding,
        snippets:
            params["capabilities"]["textDocument"]["completion"]["completionItem"]["snippetSupport"]
                .as_bool()
                .unwrap_or(false),
        opened: BTreeMap::new(),
        pinned: Pinned::default(),
        watch: Watch::new(teller(&connection), &params),
    };
    for message in &connection.receiver {
        match message {
            Message::Request(request) => {
                if connection.handle_shutdown(&request).map_err(broken)? {
                    break;
                }
                let response = server.respond(request);
                connection.sender.send(Message::Response(response)).map_err(broken)?;
            }
            Message::Notification(notification) => server.note(&notification),
            Message::Response(_) => {}
        }
    }
    Ok(())
}

/// What the editor is told through.
fn teller(connection: &Connection) -> Tell {
    let sender = connection.sender.clone();
    // An editor that is gone hears nothing; that it is, reading says.
    Arc::new(move |message| drop(sender.send(message)))
}

struct Server {
    encoding: Encoding,
    /// Whether completions may have places to fill in.
    snippets: bool,
    opened: BTreeMap<String, Arc<Opened>>,
    pinned: Pinned,
    watch: Watch,
}

impl Server {
    fn respond(&mut self, request: Request) -> Response {
        let uri = request.params["textDocument"]["uri"].as_str().unwrap_or_default();
        let Some(opened) = self.opened.get(uri) else {
            return Response::new_ok(request.id, Value::Null);
        };
        let found = self.watch.found(uri);
        let asked = answer::Asked {
            uri,
            opened,
            params: &request.params,
            found: found.as_deref(),
            snippets: self.snippets,
        };
        match asked.answer(&request.method) {
            Ok(Some(answer)) => Response::new_ok(request.id, answer),
            Ok(None) => {
                let message = format!("`{}` is not known here", request.method);
                Response::new_err(request.id, ErrorCode::MethodNotFound as i32, message)
            }
            Err(message) => Response::new_err(request.id, ErrorCode::InvalidParams as i32, message),
        }
    }

    fn note(&mut self, notification: &Notification) {
        let params = &notification.params;
        let document = &params["textDocument"];
        let uri = document["uri"].as_str().unwrap_or_default();
        let version = document["version"].as_i64().unwrap_or(0);
        match notification.method.as_str() {
            "textDocument/didOpen" => {
                self.read(uri, version, document["text"].as_str().unwrap_or_default());
            }
            "textDocument/didChange" => {
                // All of the text comes each time; of several, the last is how it is.
                let changes = params["contentChanges"].as_array();
                let text = changes.and_then(|changes| changes.last()?["text"].as_str());
                if let Some(text) = text {
                    self.read(uri, version, text);
                }
            }
            "textDocument/didSave" | "workspace/didChangeWatchedFiles" => self.read_again(),
            "textDocument/didClose" => {
                self.opened.remove(uri);
                self.watch.close(uri);
            }
            _ => {}
        }
    }

    /// Reads a text as it is now, says what is wrong with it, and has it planned.
    fn read(&mut self, uri: &str, version: i64, text: &str) {
        let path = path_of(uri).unwrap_or_else(|| uri.to_owned());
        let folder = Path::new(&path).parent().map(PathBuf::from).unwrap_or_default();
        let opened =
            Opened::new(path, version, text, self.encoding, |pins| self.pinned.load(&folder, pins));
        let opened = Arc::new(opened);
        self.opened.insert(uri.to_owned(), Arc::clone(&opened));
        self.watch.changed(uri, opened);
    }

    /// Files changed: those that rule files use, or checkpoints that they pin.
    fn read_again(&mut self) {
        self.pinned.forget();
        let all: Vec<(String, i64, String)> = self
            .opened
            .iter()
            .map(|(uri, opened)| (uri.clone(), opened.version, opened.text().to_owned()))
            .collect();
        for (uri, version, text) in all {
            self.read(&uri, version, &text);
        }
    }
}
