//! Requests and their answers, as the protocol writes them.

use regraft::diagnostic::{SourceText, Span};
use regraft::editor::{
    Completion, CompletionKind, Definition, Fold, Inlay, Lens, Symbol, SymbolKind, TokenClass,
    classes,
};
use regraft::library::Library;
use regraft::store::cache_directory;
use serde_json::{Value, json};

use super::findings::{shown, span_of};
use super::opened::Opened;
use super::text::{Encoding, Lines, uri_of};
use super::watch::{Found, findings};

/// What the server can.
pub(super) fn capabilities(encoding: Encoding) -> Value {
    let legend: Vec<&str> = classes().iter().map(|class| name_of(*class)).collect();
    json!({
        "positionEncoding": encoding.name(),
        "textDocumentSync": { "openClose": true, "change": 1, "save": true },
        "hoverProvider": true,
        "completionProvider": { "triggerCharacters": [".", "\"", "{", "|", " "] },
        "definitionProvider": true,
        "referencesProvider": true,
        "documentHighlightProvider": true,
        "renameProvider": { "prepareProvider": true },
        "documentFormattingProvider": true,
        "foldingRangeProvider": true,
        "documentSymbolProvider": true,
        "codeActionProvider": { "codeActionKinds": ["quickfix"] },
        "codeLensProvider": {},
        "inlayHintProvider": true,
        "semanticTokensProvider": {
            "legend": { "tokenTypes": legend, "tokenModifiers": [] },
            "full": true,
        },
    })
}

/// The protocol's own names, which editors have colours for.
fn name_of(class: TokenClass) -> &'static str {
    match class {
        TokenClass::Comment => "comment",
        TokenClass::Keyword => "keyword",
        TokenClass::Text => "string",
        TokenClass::Regex => "regexp",
        TokenClass::Number => "number",
        TokenClass::Op => "function",
        TokenClass::Capture => "parameter",
        TokenClass::Let => "variable",
        TokenClass::Field => "property",
        TokenClass::Dtype => "type",
        _ => "operator",
    }
}

/// A request about a text that is open.
pub(super) struct Asked<'a> {
    pub(super) uri: &'a str,
    pub(super) opened: &'a Opened,
    pub(super) params: &'a Value,
    pub(super) found: Option<&'a Found>,
    pub(super) snippets: bool,
}

impl Asked<'_> {
    /// The answer; nothing to a request that isn't known.
    ///
    /// # Errors
    /// What can't be done as it was asked for, in words for a person.
    pub(super) fn answer(&self, method: &str) -> Result<Option<Value>, String> {
        Ok(Some(match method {
            "textDocument/hover" => self.hover(),
            "textDocument/completion" => self.complete(),
            "textDocument/definition" => self.definition(),
            "textDocument/references" => self.references(),
            "textDocument/documentHighlight" => self.highlights(),
            "textDocument/prepareRename" => self.prepare_rename(),
            "textDocument/rename" => self.rename()?,
            "textDocument/formatting" => self.format(),
            "textDocument/foldingRange" => self.folds(),
            "textDocument/documentSymbol" => self.symbols(),
            "textDocument/codeAction" => self.actions(),
            "textDocument/codeLens" => self.lenses(),
            "textDocument/inlayHint" => self.inlays(),
            "textDocument/semanticTokens/full" => self.tokens(),
            _ => return Ok(None),
        }))
    }

    fn offset(&self) -> Option<usize> {
        self.opened.offset(&self.params["position"])
    }

    fn hover(&self) -> Value {
        let outcome = self.found.and_then(|found| found.outcome.as_ref());
        let hover = self.offset().and_then(|offset| {
            let library = Library::default();
            self.opened.document.hover(offset, &self.opened.facts, outcome, &library)
        });
        hover.map_or(Value::Null, |hover| {
            json!({
                "contents": { "kind": "markdown", "value": hover.text },
                "range": self.opened.range(hover.span),
            })
        })
    }

    fn complete(&self) -> Value {
        let Some(offset) = self.offset() else { return Value::Null };
        let found = self.opened.document.complete(offset, &self.opened.facts);
        found.iter().map(|one| self.completion(one)).collect()
    }

    fn completion(&self, completion: &Completion) -> Value {
        let kind = match completion.kind {
            CompletionKind::Statement | CompletionKind::Keyword => 14,
            CompletionKind::Op => 3,
            CompletionKind::Dtype => 25,
            CompletionKind::File => 9,
            CompletionKind::Capture | CompletionKind::Let => 6,
            CompletionKind::Field => 5,
            _ => 12,
        };
        let snippet = completion.snippet.as_ref().filter(|_| self.snippets);
        let mut item = json!({
            "label": completion.text,
            "kind": kind,
            "detail": completion.detail,
            "insertTextFormat": if snippet.is_some() { 2 } else { 1 },
            "filterText": completion.text,
            "textEdit": {
                "range": self.opened.range(completion.span),
                "newText": snippet.unwrap_or(&completion.text),
            },
        });
        if let Some(docs) = &completion.docs {
            item["documentation"] = json!({ "kind": "markdown", "value": docs });
        }
        item
    }

    fn definition(&self) -> Value {
        let found = self
            .offset()
            .and_then(|offset| self.opened.document.definition(offset, &Library::default()));
        match found {
            Some(Definition::Here(span)) => {
                json!({ "uri": self.uri, "range": self.opened.range(span) })
            }
            Some(Definition::File(source)) => file(&source).map_or(Value::Null, |path| {
                let lines = Lines::of(&source.text, self.opened.lines.encoding());
                json!({ "uri": uri_of(&path), "range": lines.range(&source.text, Span::default()) })
            }),
            _ => Value::Null,
        }
    }

    fn spans(&self) -> Vec<Span> {
        self.offset().map(|offset| self.opened.document.references(offset)).unwrap_or_default()
    }

    fn references(&self) -> Value {
        let location = |span| json!({ "uri": self.uri, "range": self.opened.range(span) });
        self.spans().into_iter().map(location).collect()
    }

    fn highlights(&self) -> Value {
        self.spans().into_iter().map(|span| json!({ "range": self.opened.range(span) })).collect()
    }

    fn prepare_rename(&self) -> Value {
        let named = self.offset().and_then(|offset| self.opened.document.renamable(offset));
        named.map_or(
            Value::Null,
            |(span, name)| json!({ "range": self.opened.range(span), "placeholder": name }),
        )
    }

    fn rename(&self) -> Result<Value, String> {
        let name = self.params["newName"].as_str().unwrap_or_default();
        let offset = self.offset().ok_or("no such place")?;
        let spans = self.opened.document.rename(offset, name).map_err(|why| why.to_string())?;
        let edit = |span| json!({ "range": self.opened.range(span), "newText": name });
        Ok(self.edits(spans.into_iter().map(edit).collect()))
    }

    fn edits(&self, edits: Value) -> Value {
        let mut changes = serde_json::Map::new();
        changes.insert(self.uri.to_owned(), edits);
        json!({ "changes": changes })
    }

    fn format(&self) -> Value {
        let text = self.opened.text();
        match self.opened.document.formatted() {
            Some(new) if new != text => {
                let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
                json!([{ "range": self.opened.range(Span { start: 0, end }), "newText": new }])
            }
            Some(_) => json!([]),
            None => Value::Null,
        }
    }

    fn folds(&self) -> Value {
        let line = |offset: u32| self.opened.lines.line(offset as usize);
        let fold = |fold: Fold| {
            let kind = if fold.comment { "comment" } else { "region" };
            json!({ "startLine": line(fold.span.start), "endLine": line(fold.span.end), "kind": kind })
        };
        self.opened.document.folds().into_iter().map(fold).collect()
    }

    fn symbols(&self) -> Value {
        self.opened.document.outline().iter().map(|symbol| self.symbol(symbol)).collect()
    }

    fn symbol(&self, symbol: &Symbol) -> Value {
        let kind = match symbol.kind {
            SymbolKind::File => 2,
            SymbolKind::Use => 4,
            SymbolKind::Let => 13,
            SymbolKind::Block => 3,
            SymbolKind::Example => 24,
            _ => 12,
        };
        let children: Vec<Value> = symbol.children.iter().map(|child| self.symbol(child)).collect();
        json!({
            "name": symbol.name,
            "kind": kind,
            "range": self.opened.range(symbol.span),
            "selectionRange": self.opened.range(self.opened.first_line(symbol.span)),
            "children": children,
        })
    }

    fn actions(&self) -> Value {
        let asked = &self.params["range"];
        let from = self.opened.offset(&asked["start"]).unwrap_or(0);
        let to = self.opened.offset(&asked["end"]).unwrap_or(from);
        let near = |span: Span| span.start as usize <= to && from <= span.end as usize;
        let mut actions = Vec::new();
        for finding in findings(self.opened, self.found) {
            if !near(span_of(self.opened, finding)) {
                continue;
            }
            for action in self.opened.document.actions(finding) {
                let range = self.opened.range(action.span);
                actions.push(json!({
                    "title": action.title,
                    "kind": "quickfix",
                    "isPreferred": action.preferred,
                    "diagnostics": [shown(self.opened, self.uri, finding)],
                    "edit": self.edits(json!([{ "range": range, "newText": action.text }])),
                }));
            }
        }
        Value::Array(actions)
    }

    fn lenses(&self) -> Value {
        let (outcome, examples) = match self.found {
            Some(found) => (found.outcome.as_ref(), found.examples.as_deref()),
            None => (None, None),
        };
        let lens = |lens: Lens| {
            json!({
                "range": self.opened.range(self.opened.first_line(lens.span)),
                "command": { "title": lens.title, "command": "" },
            })
        };
        self.opened.document.lenses(outcome, examples).into_iter().map(lens).collect()
    }

    fn inlays(&self) -> Value {
        let Some(outcome) = self.found.and_then(|found| found.outcome.as_ref()) else {
            return json!([]);
        };
        let text = self.opened.text();
        let inlay = |inlay: Inlay| {
            json!({
                "position": self.opened.lines.position(text, inlay.offset as usize),
                "label": inlay.text,
                "kind": 1,
                "paddingLeft": true,
            })
        };
        self.opened.document.inlays(outcome).into_iter().map(inlay).collect()
    }

    /// Each token as five numbers, its place relative to the one before.
    fn tokens(&self) -> Value {
        let mut data: Vec<usize> = Vec::new();
        let (mut line, mut character) = (0, 0);
        for (span, class) in self.opened.document.classified() {
            let Some(which) = classes().iter().position(|known| *known == class) else { continue };
            let (at, column, length) = self.opened.lines.stretch(self.opened.text(), span);
            let after = if at == line { column.saturating_sub(character) } else { column };
            data.extend([at.saturating_sub(line), after, length, which, 0]);
            (line, character) = (at, column);
        }
        json!({ "data": data })
    }
}

/// Where a rule file can be opened. One that is built in is put into the user's cache for that.
fn file(source: &SourceText) -> Option<String> {
    if std::path::Path::new(&source.name).is_absolute() {
        return Some(source.name.clone());
    }
    let path =
        cache_directory()?.join(env!("CARGO_PKG_VERSION")).join(format!("{}.graft", source.name));
    if std::fs::read_to_string(&path).is_ok_and(|text| text == source.text) {
        return path.to_str().map(str::to_owned);
    }
    std::fs::create_dir_all(path.parent()?).ok()?;
    std::fs::write(&path, &source.text).ok()?;
    path.to_str().map(str::to_owned)
}
