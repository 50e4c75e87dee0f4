//! The language server, spoken to over standard input and output as an editor does, on a rule file
//! of the library beside the manifest of a real checkpoint.

use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use lsp_server::{Message, Notification, Request, RequestId};
use serde_json::{Value, json};

struct Client {
    child: Arc<Mutex<Child>>,
    /// Keeps the server from being ended, until it is dropped.
    _alive: mpsc::Sender<()>,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
    next: i32,
    /// What the server told without being asked.
    told: Vec<Notification>,
    capabilities: Value,
}

impl Client {
    fn start(capabilities: Value) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_regraft"))
            .arg("lsp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = BufWriter::new(child.stdin.take().unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        let child = Arc::new(Mutex::new(child));
        let (alive, gone) = mpsc::channel();
        let watched = Arc::clone(&child);
        // A server that says nothing more fails its test, and doesn't hang it.
        std::thread::spawn(move || {
            if gone.recv_timeout(Duration::from_secs(120)) == Err(mpsc::RecvTimeoutError::Timeout) {
                watched.lock().unwrap().kill().unwrap();
            }
        });
        let mut client = Self {
            child,
            _alive: alive,
            input,
            output,
            next: 0,
            told: Vec::new(),
            capabilities: Value::Null,
        };
        let params = json!({ "processId": null, "rootUri": null, "capabilities": capabilities });
        client.capabilities = client.ask("initialize", params).unwrap()["capabilities"].take();
        client.tell("initialized", json!({}));
        client
    }

    fn send(&mut self, message: Message) {
        message.write(&mut self.input).unwrap();
    }

    fn tell(&mut self, method: &str, params: Value) {
        let method = method.to_owned();
        self.send(Message::Notification(Notification { method, params }));
    }

    /// The next message; what the server asks is answered, as an editor would.
    fn receive(&mut self) -> Option<Message> {
        let message = Message::read(&mut self.output).unwrap().expect("the server is there");
        match message {
            Message::Notification(notification) => {
                self.told.push(notification);
                None
            }
            Message::Request(request) => {
                let response = lsp_server::Response::new_ok(request.id, Value::Null);
                self.send(Message::Response(response));
                None
            }
            response => Some(response),
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.next += 1;
        let id = RequestId::from(self.next);
        let method = method.to_owned();
        self.send(Message::Request(Request { id: id.clone(), method, params }));
        loop {
            if let Some(Message::Response(response)) = self.receive() {
                assert_eq!(response.id, id);
                return response.response_result.map_err(|error| error.message);
            }
        }
    }

    fn open(&mut self, path: &Path, text: &str) -> Open {
        let uri = format!("file://{}", path.display());
        let document = json!({ "uri": uri, "languageId": "graft", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
        Open { uri, text: text.to_owned(), version: 1 }
    }

    fn change(&mut self, open: &mut Open, text: &str) {
        open.version += 1;
        open.text = text.to_owned();
        let document = json!({ "uri": open.uri, "version": open.version });
        let changes = json!([{ "text": text }]);
        self.tell(
            "textDocument/didChange",
            json!({ "textDocument": document, "contentChanges": changes }),
        );
    }

    /// Waits until diagnostics of the newest version are as wanted, and gives them.
    fn diagnostics(&mut self, open: &Open, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        loop {
            let newest = self.told.iter().rev().find(|told| {
                told.method == "textDocument/publishDiagnostics"
                    && told.params["uri"] == open.uri
                    && told.params["version"] == open.version
            });
            if let Some(newest) = newest {
                let found = newest.params["diagnostics"].as_array().unwrap().clone();
                if wanted(&found) {
                    return found;
                }
            }
            self.receive();
        }
    }

    fn at(&mut self, method: &str, open: &Open, what: &str, within: usize) -> Value {
        let params =
            json!({ "textDocument": { "uri": open.uri }, "position": open.find(what, within) });
        self.ask(method, params).unwrap()
    }

    fn of(&mut self, method: &str, open: &Open) -> Value {
        self.ask(method, json!({ "textDocument": { "uri": open.uri } })).unwrap()
    }

    fn stop(mut self) {
        assert_eq!(self.ask("shutdown", Value::Null), Ok(Value::Null));
        self.tell("exit", Value::Null);
        assert!(self.child.lock().unwrap().wait().unwrap().success());
    }
}

/// A text that is open.
struct Open {
    uri: String,
    text: String,
    version: i64,
}

impl Open {
    /// The position of some bytes into the first place where a text stands, in UTF-8.
    fn find(&self, what: &str, within: usize) -> Value {
        let at = self.text.find(what).unwrap_or_else(|| panic!("no {what:?}")) + within;
        let before = &self.text[..at];
        let line = before.matches('\n').count();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        json!({ "line": line, "character": at - start })
    }

    /// The text after edits.
    fn edited(&self, edits: &Value) -> String {
        let offset = |position: &Value| {
            let line = position["line"].as_u64().unwrap() as usize;
            let start: usize = self.text.split_inclusive('\n').take(line).map(str::len).sum();
            start + position["character"].as_u64().unwrap() as usize
        };
        let mut edits: Vec<(usize, usize, &str)> = edits
            .as_array()
            .unwrap()
            .iter()
            .map(|edit| {
                let range = &edit["range"];
                (offset(&range["start"]), offset(&range["end"]), edit["newText"].as_str().unwrap())
            })
            .collect();
        edits.sort_unstable();
        let mut text = self.text.clone();
        for (start, end, new) in edits.into_iter().rev() {
            text.replace_range(start..end, new);
        }
        text
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The library's rules for Stable Diffusion's UNet, which pin the manifest of a checkpoint.
fn unet(client: &mut Client) -> Open {
    let rules = std::fs::read_to_string(root().join("rules/sd_unet_ldm.graft")).unwrap();
    let text = format!("# checkpoint: ../tests/fixtures/layouts/sd_unet_ldm.json\n{rules}");
    client.open(&root().join("rules/pinned.graft"), &text)
}

fn utf8() -> Value {
    json!({ "general": { "positionEncodings": ["utf-16", "utf-8"] } })
}

fn labels(items: &Value) -> Vec<&str> {
    items.as_array().unwrap().iter().map(|item| item["label"].as_str().unwrap()).collect()
}

#[test]
fn a_real_rule_file_is_known_beside_its_checkpoint() {
    let mut client = Client::start(utf8());
    assert_eq!(client.capabilities["positionEncoding"], "utf-8");
    let open = unet(&mut client);

    // What the plan says of the checkpoint stands at the statement that did it.
    let found = client.diagnostics(&open, |found| !found.is_empty());
    assert_eq!((found.len(), &found[0]["code"]), (1, &json!("RG311")), "{found:?}");
    assert_eq!(found[0]["range"]["start"], open.find("keep \"model.diff", 0));

    let hover = client.at("textDocument/hover", &open, "time_embed.{i", 3);
    let text = hover["contents"]["value"].as_str().unwrap();
    assert!(text.starts_with("takes 4 keys of the checkpoint"), "{text}");
    let line = "`model.diffusion_model.time_embed.0.bias` → `time_embedding.linear_1.bias`";
    assert!(text.contains(line), "{text}");
    let hover = client.at("textDocument/hover", &open, "let n", 4);
    assert!(hover["contents"]["value"].as_str().unwrap().contains("here: `2`"), "{hover}");
    let hover = client.at("textDocument/hover", &open, "strict", 2);
    assert!(hover["contents"]["value"].as_str().unwrap().contains("RG352"), "{hover}");

    let lenses = client.of("textDocument/codeLens", &open);
    let titles: Vec<&str> = lenses
        .as_array()
        .unwrap()
        .iter()
        .map(|lens| lens["command"]["title"].as_str().unwrap())
        .collect();
    assert!(titles.contains(&"4 keys match"), "{titles:?}");
    assert!(titles.contains(&"holds") && !titles.contains(&"does not hold"), "{titles:?}");

    let symbols = client.of("textDocument/documentSymbol", &open);
    assert_eq!(symbols[0]["name"], "ruleset sd_unet_ldm: ldm <-> hub");
    let folds = client.of("textDocument/foldingRange", &open);
    assert_eq!((&folds[0]["startLine"], &folds[0]["kind"]), (&json!(0), &json!("comment")));
    let tokens = client.of("textDocument/semanticTokens/full", &open);
    let tokens = tokens["data"].as_array().unwrap();
    assert!(tokens.len() > 200 && tokens.len().is_multiple_of(5), "{}", tokens.len());
    assert_eq!(tokens[..5], [json!(0), json!(0), json!(56), json!(0), json!(0)], "the pin");
    // It is formatted as the library is, but for the line that was added.
    let edits = client.ask(
        "textDocument/formatting",
        json!({ "textDocument": { "uri": open.uri }, "options": {} }),
    );
    assert_eq!(edits.map(|edits| open.edited(&edits)), Ok(open.text.clone()));
    client.stop();
}

#[test]
fn names_are_followed_and_changed() {
    let mut client = Client::start(utf8());
    let open = unet(&mut client);
    let definition = client.at("textDocument/definition", &open, "{(n+1)*b+n}.1.conv", 2);
    assert_eq!(definition["range"]["start"], open.find("let n", 4));
    let references = client.at("textDocument/references", &open, "let n", 4);
    let references = references.as_array().unwrap().len();
    let uses = client.at("textDocument/documentHighlight", &open, "let n", 4);
    assert_eq!(uses.as_array().unwrap().len(), references);

    let asked = |name: &str| {
        json!({ "textDocument": { "uri": open.uri }, "newName": name,
                "position": open.find("{i: 0=>1 | 2=>2}", 1) })
    };
    let edits = client.ask("textDocument/rename", asked("which")).unwrap();
    let edits = &edits["changes"][&open.uri];
    assert_eq!(edits.as_array().unwrap().len(), 2);
    let text = open.edited(edits);
    assert!(text.contains("label_emb.0.{which: 0=>1 | 2=>2}"), "{text}");
    assert!(text.contains("add_embedding.linear_{which}"), "{text}");
    assert!(text.contains("time_embedding.linear_{i}"), "another rule's stays");
    let refused = client.ask("textDocument/rename", asked("leaf")).unwrap_err();
    assert!(refused.contains("already"), "{refused}");
    let params = json!({ "textDocument": { "uri": open.uri }, "position": open.find("strict", 1) });
    assert_eq!(client.ask("textDocument/prepareRename", params), Ok(Value::Null));
    client.stop();
}

#[test]
fn what_is_typed_is_completed_and_corrected() {
    let mut client = Client::start(utf8());
    let mut open = unet(&mut client);
    let typed = format!("{}drp \"x\"\ndrop \"model.diffusion_model.\"\n", open.text);
    client.change(&mut open, &typed);
    let items = client.at("textDocument/completion", &open, "drop \"model.diffusion_model.\"", 28);
    let segments = labels(&items);
    for segment in ["input_blocks", "middle_block", "time_embed", "out"] {
        assert!(segments.contains(&segment), "{segments:?}");
    }
    let items = client.at("textDocument/completion", &open, "drp", 2);
    let item = items.as_array().unwrap().iter().find(|item| item["label"] == "drop").unwrap();
    assert_eq!(item["textEdit"]["range"]["start"], open.find("drp", 0));
    assert_eq!(item["textEdit"]["newText"], "drop", "no places to fill in for this client");

    let found = client.diagnostics(&open, |found| !found.is_empty());
    let unknown = found.iter().find(|one| one["code"] == "RG102").expect("an unknown statement");
    let params = json!({ "textDocument": { "uri": open.uri }, "range": unknown["range"],
                         "context": { "diagnostics": [] } });
    let actions = client.ask("textDocument/codeAction", params).unwrap();
    assert_eq!(actions[0]["title"], "change `drp` to `drop`");
    let text = open.edited(&actions[0]["edit"]["changes"][&open.uri]);
    assert!(text.contains("\ndrop \"x\"\n"), "{text}");
    client.change(&mut open, &text);
    client.diagnostics(&open, |found| found.iter().all(|one| one["code"] != "RG102"));
    client.stop();
}

#[test]
fn rule_files_lead_to_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    std::fs::write(folder.join("inner.graft"), "drop \"a\"\n").unwrap();
    let mut client = Client::start(json!({}));
    assert_eq!(client.capabilities["positionEncoding"], "utf-16");
    let open = client.open(&folder.join("outer.graft"), "use \"./inner.graft\"\nuse mixtral\n");
    let definition = client.at("textDocument/definition", &open, "inner", 1);
    assert_eq!(definition["uri"], format!("file://{}", folder.join("inner.graft").display()));

    // What is wrong in the other file is told here, at what brings it.
    std::fs::write(folder.join("inner.graft"), "dorp \"a\"\n").unwrap();
    client.tell("textDocument/didSave", json!({ "textDocument": { "uri": open.uri } }));
    let found = client.diagnostics(&open, |found| !found.is_empty());
    assert_eq!(found[0]["range"]["start"], json!({ "line": 0, "character": 4 }));
    let elsewhere = &found[0]["relatedInformation"][0]["location"];
    assert!(elsewhere["uri"].as_str().unwrap().ends_with("inner.graft"), "{elsewhere}");
    client.stop();
}

#[test]
fn positions_are_counted_in_utf_16_if_nothing_else_is_agreed() {
    let mut client = Client::start(json!({}));
    // Each of these is one character, two units, four bytes.
    let open = client.open(
        Path::new("/nowhere/𝄞 x.graft"),
        "# 𝄞𝄞\nrename \"𝄞.{l}\" <-> \"b.{l}\" where m > 2\n",
    );
    let found = client.diagnostics(&open, |found| !found.is_empty());
    let column = "rename \"𝄞.{l}\" <-> \"b.{l}\" where ".encode_utf16().count();
    let start = json!({ "line": 1, "character": column });
    assert_eq!(found[0]["range"]["start"], start);
    let params = json!({ "textDocument": { "uri": open.uri },
                         "position": { "line": 1, "character": 12 } });
    let found = client.ask("textDocument/references", params).unwrap();
    assert_eq!(found[0]["range"]["start"], json!({ "line": 1, "character": 12 }));
    client.stop();
}

#[test]
fn what_cannot_be_opened_is_said_where_it_is_named() {
    let mut client = Client::start(utf8());
    let text = "drop \"a\"\n# checkpoint: not/there.json\n";
    let open = client.open(&root().join("rules/pinned.graft"), text);
    let found = client.diagnostics(&open, |found| !found.is_empty());
    assert_eq!(found[0]["range"]["start"], json!({ "line": 1, "character": 0 }));
    assert!(found[0]["message"].as_str().unwrap().contains("there.json"), "{found:?}");
    // A request that isn't known is refused, and the server goes on.
    let params = json!({ "textDocument": { "uri": open.uri } });
    let refused = client.ask("textDocument/colorOfTheSky", params).unwrap_err();
    assert!(refused.contains("not known"), "{refused}");
    client.tell("textDocument/didClose", json!({ "textDocument": { "uri": open.uri } }));
    let params =
        json!({ "textDocument": { "uri": open.uri }, "position": { "line": 0, "character": 0 } });
    assert_eq!(client.ask("textDocument/hover", params), Ok(Value::Null));
    client.stop();
}
