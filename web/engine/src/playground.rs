//! [`Playground`]: what stands on the page, and the answers to what the page asks of it.
//!
//! Offsets go out and come in as a browser counts them. What was worked out stays until what it hangs
//! on changes: keys are read once, and rules are planned when the page asks for the outcome.

use std::sync::Arc;

use indexmap::IndexMap;
use regraft::check::{idempotence, repeats_backwards};
use regraft::config::Config;
use regraft::diagnostic::{Diagnostic, Severity, SourceText, Span};
use regraft::editor::{Completion, CompletionKind, Document, Facts, Outcome, TokenClass};
use regraft::library::Library;
use regraft::overview::{Explained, Overview, Page, Sights, Subject, counted};
use regraft::plan::{Plan, Stage};
use regraft::store::{ReadAt, Window, header_of};
use regraft::syntax::{invert, parse, print};
use regraft::tensor::Header;
use serde_json::{Value, json};

use crate::examples::EXAMPLES;
use crate::families;
use crate::files::Dropped;
use crate::text::Units;

/// How the rules on the page are called where places are named.
const NAME: &str = "rules";

/// What the page of a plan is called.
const TITLE: &str = "What becomes of the keys";

/// What stands on the page.
#[derive(Debug)]
pub struct Playground {
    document: Document,
    units: Units,
    header: Option<Arc<Header>>,
    config: Config,
    facts: Facts,
    outcome: Option<Outcome>,
}

impl Default for Playground {
    fn default() -> Self {
        Self {
            document: document(String::new()),
            units: Units::default(),
            header: None,
            config: Config::empty(),
            facts: Facts::default(),
            outcome: None,
        }
    }
}

/// What can't be done, in words for a person.
type Answer = Result<Value, String>;

impl Playground {
    /// Answers a question: an object whose `ask` says what is asked for. What goes wrong is an answer
    /// with `error`.
    pub fn answer(&mut self, question: &[u8]) -> Value {
        let answer = match serde_json::from_slice::<Value>(question) {
            Ok(question) => self.asked(&question),
            Err(error) => Err(format!("the question is no JSON: {error}")),
        };
        answer.unwrap_or_else(|error| json!({ "error": error }))
    }

    fn asked(&mut self, question: &Value) -> Answer {
        let text = |name: &str| question[name].as_str().unwrap_or_default();
        let at = || {
            let unit = question["at"].as_u64().and_then(|at| usize::try_from(at).ok());
            self.units.byte(unit.unwrap_or(0))
        };
        match text("ask") {
            "examples" => Ok(examples()),
            "example" => example(text("name")),
            "keys" => self.read_keys(text("text")),
            "files" => self.read_files(&question["files"]),
            "config" => self.read_config(text("text")),
            "rules" => {
                self.read_rules(text("text"));
                Ok(self.by_itself())
            }
            "outcome" => Ok(self.work_out()),
            "complete" => Ok(self.complete(at())),
            "hover" => Ok(self.hover(at())),
            "format" => Ok(json!({ "text": self.document.formatted() })),
            "explain" => self.explain(text("key")),
            other => Err(format!("nothing is asked by {other:?}")),
        }
    }

    fn read_rules(&mut self, text: &str) {
        if self.document.source().text == text {
            return;
        }
        self.units = Units::of(text);
        self.document = document(text.to_owned());
        self.outcome = None;
    }

    fn read_config(&mut self, text: &str) -> Answer {
        self.config = Config::empty();
        let read = match text.trim() {
            "" => Ok(()),
            text => Config::from_json(text.as_bytes())
                .map(|config| self.config = config)
                .map_err(|error| error.to_string()),
        };
        self.know();
        read.map(|()| json!({}))
    }

    fn read_keys(&mut self, text: &str) -> Answer {
        let read = match text.trim_start() {
            "" => Ok(Header::default()),
            json if json.starts_with('{') => {
                let bytes = text.as_bytes();
                header_of(&[("keys.json", Window::new(&bytes, bytes.len() as u64))])
                    .map_err(|error| error.to_string())
            }
            lines => families::read(lines),
        };
        self.take_header(read)
    }

    /// Files that were dropped, each with its name and length, by their numbers.
    fn read_files(&mut self, files: &Value) -> Answer {
        let listed = files.as_array().map(Vec::as_slice).unwrap_or_default();
        let numbered: Vec<Dropped> = (0..).take(listed.len()).map(Dropped).collect();
        let windows: Vec<(&str, Window<'_>)> = listed
            .iter()
            .zip(&numbered)
            .map(|(said, file)| {
                let name = said["name"].as_str().unwrap_or_default();
                (name, Window::new(file as &dyn ReadAt, said["len"].as_u64().unwrap_or(0)))
            })
            .collect();
        let read = header_of(&windows).map_err(|error| error.to_string());
        self.take_header(read)
    }

    fn take_header(&mut self, read: Result<Header, String>) -> Answer {
        let header = read.as_ref().ok().filter(|header| !header.tensors.is_empty());
        self.header = header.cloned().map(Arc::new);
        self.know();
        let header = read?;
        let bytes = |info: &regraft::tensor::TensorInfo| info.nbytes().unwrap_or(0);
        let sum = header.tensors.values().map(|entry| bytes(&entry.info));
        let sum = regraft::overview::Size(sum.fold(0, u64::saturating_add));
        let count = counted(header.tensors.len() as u64, "key");
        Ok(json!({ "about": format!("{count}, {sum}"), "lines": families::write(&header) }))
    }

    fn know(&mut self) {
        self.facts = Facts::new(self.header.clone(), self.config.clone(), IndexMap::new());
        self.outcome = None;
    }

    /// What is known of the rules alone, at once.
    fn by_itself(&self) -> Value {
        let classified = self.document.classified();
        let token = |(span, class): &(Span, TokenClass)| {
            json!([self.from(*span), self.to(*span), format!("{class:?}").to_lowercase()])
        };
        json!({
            "tokens": classified.iter().map(token).collect::<Vec<_>>(),
            "findings": self.findings(),
        })
    }

    /// What the rules do to the keys.
    fn work_out(&mut self) -> Value {
        self.outcome = self.facts.outcome(&self.document);
        let outcome = self.outcome.as_ref();
        let lenses: Vec<Value> = self
            .document
            .lenses(outcome, None)
            .iter()
            .map(|lens| json!([self.from(lens.span), lens.title]))
            .collect();
        let inlays = outcome.map(|outcome| self.document.inlays(outcome)).unwrap_or_default();
        let inlays: Vec<Value> = inlays
            .iter()
            .map(|inlay| json!([self.units.unit(inlay.offset as usize), inlay.text]))
            .collect();
        json!({
            "findings": self.findings(),
            "lenses": lenses,
            "inlays": inlays,
            "page": self.page().map(|page| page.body()),
            "backwards": outcome.is_some_and(|outcome| outcome.direction == regraft::Direction::Reverse),
            "inverse": self.inverse(),
            "proofs": self.proofs(),
        })
    }

    /// The page of the plan; of what was found, where there is none.
    fn page(&self) -> Option<Page> {
        let header = self.header.as_deref()?;
        let outcome = self.outcome.as_ref()?;
        let findings = self.document.findings().iter().chain(&outcome.findings).cloned().collect();
        let Some(plan) = &outcome.plan else {
            return Some(Page::without_plan(TITLE, findings));
        };
        let sights = Sights { unchanged: true, sharing: true };
        let mut page = Page::of_plan(TITLE, plan, &Overview::of(plan, header, sights));
        page.verdict = page.verdict.map(|(tone, verdict)| (tone.with(&findings), verdict));
        page.findings = findings;
        Some(page)
    }

    fn inverse(&self) -> Value {
        if !self.document.is_sound() {
            return Value::Null;
        }
        let source = Arc::clone(self.document.source());
        let inverse = invert(&parse(source).file);
        let left_out: Vec<Value> = inverse
            .left_out
            .iter()
            .map(|one| json!({ "at": self.from(one.span), "text": one.text, "reason": one.reason }))
            .collect();
        json!({ "text": print(&inverse.file), "left_out": left_out })
    }

    /// What is proven of the rules, each with its name; witnesses are in the words.
    fn proofs(&self) -> Value {
        if !self.document.is_sound() {
            return Value::Null;
        }
        let rules = self.document.rules();
        let backwards = match repeats_backwards(rules) {
            Ok(None) => "no key is read twice".to_owned(),
            Ok(Some(found)) => format!("refuted, as {found}"),
            Err(because) => format!("undecided, as {because}"),
        };
        json!([
            [
                "Applied to their own output, the rules change nothing",
                idempotence(rules).to_string()
            ],
            ["So backwards", backwards],
        ])
    }

    fn explain(&self, key: &str) -> Answer {
        let (Some(header), Some(outcome)) = (&self.header, &self.outcome) else {
            return Err("there are no keys yet".to_owned());
        };
        let (nothing, parameters) = (Plan::default(), IndexMap::new());
        let direction = outcome.direction;
        let subject = Subject {
            header,
            stages: vec![Stage { rules: self.document.rules(), direction, named: true }],
            config: &self.config,
            tied: None,
            parameters: &parameters,
            plan: outcome.plan.as_ref().unwrap_or(&nothing),
        };
        let unknown = || format!("neither the checkpoint nor its result has the key {key}");
        let explained = Explained::of(key, &subject).ok_or_else(unknown)?;
        Ok(json!({ "text": explained.text().map_err(|error| error.to_string())? }))
    }

    fn complete(&self, at: usize) -> Value {
        let found = self.document.complete(at, &self.facts);
        let options: Vec<Value> = found.iter().map(|one| self.completion(one)).collect();
        json!({ "options": options })
    }

    fn completion(&self, one: &Completion) -> Value {
        let kind = match one.kind {
            CompletionKind::Statement | CompletionKind::Keyword => "keyword",
            CompletionKind::Op => "function",
            CompletionKind::Dtype => "type",
            CompletionKind::File => "namespace",
            CompletionKind::Capture | CompletionKind::Let => "variable",
            CompletionKind::Field => "property",
            _ => "text",
        };
        json!({
            "label": one.text, "kind": kind, "detail": one.detail, "docs": one.docs,
            "snippet": one.snippet, "from": self.from(one.span), "to": self.to(one.span),
        })
    }

    fn hover(&self, at: usize) -> Value {
        let outcome = self.outcome.as_ref();
        let hover = self.document.hover(at, &self.facts, outcome, &Library::default());
        hover.map_or(Value::Null, |hover| {
            json!({ "from": self.from(hover.span), "to": self.to(hover.span), "text": hover.text })
        })
    }

    /// All that was found, where it is in the text.
    fn findings(&self) -> Vec<Value> {
        let of_plan = self.outcome.iter().flat_map(|outcome| &outcome.findings);
        self.document.findings().iter().chain(of_plan).map(|found| self.finding(found)).collect()
    }

    fn finding(&self, finding: &Diagnostic) -> Value {
        let places = finding.primary.iter().chain(&finding.labels);
        let mut mine = places.filter(|(place, _)| self.document.is_mine(&place.source));
        let used = || self.document.use_of(&finding.primary.as_ref()?.0.source);
        let (span, label) = match mine.next() {
            Some((place, label)) => (Some(place.span), label.as_str()),
            None => (used(), ""),
        };
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "info",
        };
        let actions: Vec<Value> = self
            .document
            .actions(finding)
            .iter()
            .map(|action| {
                json!({ "name": action.title, "from": self.from(action.span), "to": self.to(action.span), "text": action.text })
            })
            .collect();
        json!({
            "severity": severity, "code": finding.code.to_string(), "message": finding.message,
            "label": label, "hints": finding.hints, "keys": finding.keys.iter().take(5).collect::<Vec<_>>(),
            "count": finding.keys.len(), "actions": actions,
            "from": span.map(|span| self.from(span)), "to": span.map(|span| self.to(span)),
        })
    }

    fn from(&self, span: Span) -> usize {
        self.units.unit(span.start as usize)
    }

    fn to(&self, span: Span) -> usize {
        self.units.unit(span.end as usize)
    }
}

fn document(text: String) -> Document {
    let source = Arc::new(SourceText { name: NAME.to_owned(), text });
    Document::new(source, &Library::default())
}

fn examples() -> Value {
    let one = |example: &crate::examples::Example| json!({ "name": example.name, "about": example.about });
    json!({ "examples": EXAMPLES.iter().map(one).collect::<Vec<_>>() })
}

fn example(name: &str) -> Answer {
    let found = EXAMPLES.iter().find(|example| example.name == name);
    let example = found.ok_or_else(|| format!("no example is called {name:?}"))?;
    Ok(json!({ "rules": example.rules, "keys": example.keys, "config": example.config }))
}
