//! [`Watch`]: plans texts over the checkpoints that they pin, in a thread of its own, and tells the
//! editor what it finds. Of several versions of a text only the newest is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use lsp_server::{Message, Notification, Request, RequestId};
use regraft::diagnostic::Diagnostic;
use regraft::editor::Outcome;
use regraft::library::check_examples;
use serde_json::{Value, json};

use super::findings::{not_there, shown};
use super::opened::Opened;

/// Tells the editor something.
pub(super) type Tell = Arc<dyn Fn(Message) + Send + Sync>;

/// How long a text must be left alone before it is planned.
const QUIET: Duration = Duration::from_millis(50);

/// What is known of a text that is open.
pub(super) struct Known {
    pub(super) opened: Arc<Opened>,
    pub(super) found: Option<Arc<Found>>,
}

/// What following keys through a text found.
pub(super) struct Found {
    /// What is wrong with its examples; nothing is known if its rules aren't sound.
    pub(super) examples: Option<Vec<Diagnostic>>,
    /// What its rules do to the checkpoint that it pins.
    pub(super) outcome: Option<Outcome>,
}

/// By URI.
type Shared = Mutex<BTreeMap<String, Known>>;

pub(super) struct Watch {
    known: Arc<Shared>,
    changed: mpsc::Sender<String>,
    tell: Tell,
}

impl Watch {
    pub(super) fn new(tell: Tell, params: &Value) -> Self {
        let known = Arc::new(Shared::default());
        let (changed, texts) = mpsc::channel();
        let worker = Worker {
            known: Arc::clone(&known),
            tell: Arc::clone(&tell),
            refreshes: ["codeLens", "inlayHint"]
                .into_iter()
                .filter(|what| {
                    let can = &params["capabilities"]["workspace"][what]["refreshSupport"];
                    can.as_bool().unwrap_or(false)
                })
                .collect(),
            asked: 0,
        };
        // It ends when the other end of the channel is gone.
        std::thread::spawn(move || worker.run(&texts));
        Self { known, changed, tell }
    }

    /// Takes note of a text as it is now, tells what is wrong with it by itself, and has it planned.
    pub(super) fn changed(&self, uri: &str, opened: Arc<Opened>) {
        publish(&self.tell, uri, &opened, None);
        lock(&self.known).insert(uri.to_owned(), Known { opened, found: None });
        // Without a worker nothing is planned; the rest goes on.
        let _ = self.changed.send(uri.to_owned());
    }

    pub(super) fn close(&self, uri: &str) {
        lock(&self.known).remove(uri);
        tell_findings(&self.tell, uri, None, Vec::new());
    }

    /// What was found of a text, if it is as it was then.
    pub(super) fn found(&self, uri: &str) -> Option<Arc<Found>> {
        lock(&self.known).get(uri)?.found.clone()
    }
}

fn lock(known: &Shared) -> MutexGuard<'_, BTreeMap<String, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    known: Arc<Shared>,
    tell: Tell,
    /// What the editor asks for anew when it is told so.
    refreshes: Vec<&'static str>,
    asked: i32,
}

impl Worker {
    fn run(mut self, texts: &mpsc::Receiver<String>) {
        while let Ok(first) = texts.recv() {
            let mut uris = BTreeSet::from([first]);
            while let Ok(next) = texts.recv_timeout(QUIET) {
                uris.insert(next);
            }
            uris.iter().for_each(|uri| self.follow(uri));
        }
    }

    fn follow(&mut self, uri: &str) {
        let Some(opened) = lock(&self.known).get(uri).map(|known| Arc::clone(&known.opened)) else {
            return;
        };
        let document = &opened.document;
        let examples = document.is_sound().then(|| check_examples(document.rules()));
        let outcome = opened.facts.outcome(document);
        let found = Arc::new(Found { examples, outcome });
        let mut known = lock(&self.known);
        let Some(known) = known.get_mut(uri).filter(|known| Arc::ptr_eq(&known.opened, &opened))
        else {
            return;
        };
        // Told under the lock, so that a newer text is told of after it.
        publish(&self.tell, uri, &opened, Some(&found));
        known.found = Some(found);
        for what in &self.refreshes {
            self.asked = self.asked.wrapping_add(1);
            let method = format!("workspace/{what}/refresh");
            let id = RequestId::from(self.asked);
            (self.tell)(Message::Request(Request { id, method, params: Value::Null }));
        }
    }
}

/// Everything that there is to say of a text.
pub(super) fn findings<'a>(
    opened: &'a Opened,
    found: Option<&'a Found>,
) -> impl Iterator<Item = &'a Diagnostic> {
    let examples = found.and_then(|found| found.examples.as_deref()).unwrap_or_default();
    // Rules that are half read fit no checkpoint, and that is no news.
    let outcome = found
        .and_then(|found| found.outcome.as_ref())
        .filter(|_| opened.document.is_sound())
        .map(|outcome| outcome.findings.as_slice())
        .unwrap_or_default();
    opened.document.findings().iter().chain(examples).chain(outcome)
}

fn publish(tell: &Tell, uri: &str, opened: &Opened, found: Option<&Found>) {
    let own = findings(opened, found).map(|finding| shown(opened, uri, finding));
    let failed = opened.failed.iter().map(|(span, why)| not_there(opened, *span, why));
    tell_findings(tell, uri, Some(opened.version), own.chain(failed).collect());
}

fn tell_findings(tell: &Tell, uri: &str, version: Option<i64>, diagnostics: Vec<Value>) {
    let mut params = json!({ "uri": uri, "diagnostics": diagnostics });
    if let Some(version) = version {
        params["version"] = json!(version);
    }
    let method = "textDocument/publishDiagnostics".to_owned();
    tell(Message::Notification(Notification { method, params }));
}
