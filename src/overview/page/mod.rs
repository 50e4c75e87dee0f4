//! [`Page`]: what was found, as one page of HTML to attach to a pull request or to show in a
//! browser.
//!
//! The page needs nothing else: its style and a small script stand in it, nothing is fetched, and
//! without scripts all of it can be read and folded; they add the search, and a graph that can be
//! enlarged and followed. Keys, file names and rules are the text of others: every one of them goes
//! through `entities`, none into a script or a style, and the page's policy lets no other script
//! run. However many keys there are, a page has at most [`ROWS`] rows and texts of [`TEXT`]
//! characters.

mod checkpoint;
mod finding;
mod plan;
mod rules;

use std::fmt::Write as _;

use super::drawing::entities;
use super::{Drawing, Kind, counted};
use crate::diagnostic::plain::one_line;
use crate::diagnostic::{Diagnostic, Severity};

/// The style of the page, which the playground shares.
pub const STYLE: &str = include_str!("style.css");

/// The search and the graph; works on any part of a document that has a page in it.
const SCRIPT: &str = include_str!("script.js");

/// The most rows of a page, in all sections together.
const ROWS: usize = 2000;
/// The most characters of a key or a rule that are shown.
const TEXT: usize = 600;
/// The most lines of a plan that are drawn.
const DRAWN: usize = 300;

/// A page.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// What made it, as `regraft plan`.
    pub by: String,
    /// What it is about: the checkpoint.
    pub title: String,
    /// The verdict in a few words, and how it is meant.
    pub verdict: Option<(Tone, String)>,
    /// What there is to know, each with its name.
    pub facts: Vec<(String, String)>,
    /// How many keys are of each kind.
    pub shares: Vec<(Kind, u64)>,
    /// What is to be looked at.
    pub findings: Vec<Diagnostic>,
    /// What becomes of keys.
    pub sections: Vec<Section>,
    /// The graph.
    pub drawing: Option<Drawing>,
    /// Whether the graph is what the page is about, and stands first.
    pub drawing_first: bool,
}

/// How a verdict is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    #[default]
    Good,
    /// Nothing to do, or nothing to say.
    Plain,
    /// To be looked at.
    Poor,
}

impl Tone {
    /// As it is where this was found: a warning is to be looked at.
    pub fn with(self, findings: &[Diagnostic]) -> Self {
        let worst = findings.iter().map(|finding| finding.severity).max();
        if worst >= Some(Severity::Warning) { Tone::Poor } else { self }
    }

    fn name(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Plain => "plain",
            Tone::Poor => "poor",
        }
    }
}

/// A part of a page that can be folded.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The lines above it: the rules that made what follows, or its title.
    pub title: Vec<String>,
    /// Whether the title is rules.
    pub is_rules: bool,
    /// What else its title says.
    pub note: String,
    /// Whether it is unfolded at first.
    pub open: bool,
    /// Each kind of key.
    pub rows: Vec<Row>,
    /// Text as it is, as that of rules.
    pub text: String,
}

/// Keys that are alike, and what becomes of them.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The keys as one pattern.
    pub keys: String,
    /// The first of them; empty if that is no use.
    pub first: String,
    /// How many.
    pub count: u64,
    /// dtype and shape, or what else is to be said.
    pub info: String,
    /// What becomes of them.
    pub kind: Option<Kind>,
    /// What each is made of, and how many of it.
    pub from: Vec<(String, u64)>,
    /// The ops, in order.
    pub ops: Vec<String>,
    /// What else there is to say.
    pub note: String,
}

impl Page {
    /// The whole document.
    pub fn html(&self) -> String {
        // Inline handlers and scripts without this word don't run.
        const POLICY: &str =
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-page'; img-src data:";
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{} · {}</title>\n<style>\n{STYLE}</style>\n</head>\n\
             <body>\n<main class=\"page\">\n{}</main>\n<script nonce=\"page\">\n{SCRIPT}</script>\n</body>\n</html>\n",
            text(&self.title),
            text(&self.by),
            self.body()
        )
    }

    /// It as a part of another document, as a notebook: with its style, and without a script.
    pub fn fragment(&self) -> String {
        format!("<div class=\"page\">\n<style>\n{STYLE}</style>\n{}</div>\n", self.body())
    }

    /// What stands in the document, to be put into another one that has the style.
    pub fn body(&self) -> String {
        let mut out = String::new();
        self.write_head(&mut out);
        finding::write_all(&self.findings, &mut out);
        if self.drawing_first {
            self.write_drawing(&mut out);
        }
        out.push_str("<p class=\"search\" hidden><input type=\"search\" placeholder=\"Search keys, ops and rules\" aria-label=\"Search keys, ops and rules\"> <span role=\"status\"></span></p>\n");
        let mut left = ROWS;
        for section in &self.sections {
            section.write(&mut left, &mut out);
        }
        if !self.drawing_first {
            self.write_drawing(&mut out);
        }
        out
    }

    fn write_head(&self, out: &mut String) {
        let _ = write!(out, "<header class=\"head\">\n<p class=\"by\">{}</p>\n", text(&self.by));
        let _ = write!(out, "<h1>{}</h1>\n", text(&self.title));
        if let Some((tone, verdict)) = &self.verdict {
            let _ = writeln!(out, "<p class=\"verdict {}\">{}</p>", tone.name(), text(verdict));
        }
        out.push_str("</header>\n<dl class=\"facts\">\n");
        for (name, value) in &self.facts {
            let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", text(name), text(value));
        }
        out.push_str("</dl>\n");
        let all: u64 = self.shares.iter().map(|(_, count)| count).sum();
        let shares = || self.shares.iter().filter(|(_, count)| *count > 0);
        if all == 0 {
            return;
        }
        out.push_str("<div class=\"bar\" aria-hidden=\"true\">");
        for (kind, count) in shares() {
            let _ = write!(out, "<i class=\"{}\" style=\"flex-grow:{count}\"></i>", kind.name());
        }
        out.push_str("</div>\n<ul class=\"legend\">");
        for (kind, count) in shares() {
            let name = kind.name();
            let _ = write!(
                out,
                "<li class=\"{name}\" title=\"{}\"><b>{count}</b> {name}</li>",
                kind.meaning()
            );
        }
        out.push_str("</ul>\n");
    }

    fn write_drawing(&self, out: &mut String) {
        let Some(drawing) = self.drawing.as_ref().filter(|drawing| !drawing.boxes.is_empty())
        else {
            return;
        };
        let open = if self.drawing_first { " open" } else { "" };
        let _ = write!(
            out,
            "<details class=\"graph\"{open}>\n<summary><h2>Graph</h2></summary>\n<p class=\"zoom\" hidden>\
             <button type=\"button\" data-zoom=\"1.25\" aria-label=\"Larger\">+</button><button type=\"button\" data-zoom=\"0.8\" aria-label=\"Smaller\">−</button>\
             <button type=\"button\" data-zoom=\"fit\">Fit</button> <span role=\"status\">choose a box to follow its arrows</span></p>\n\
             <div class=\"canvas\" tabindex=\"0\" role=\"group\" aria-label=\"The graph of keys, to be scrolled\">\n{}</div>\n</details>\n",
            drawing.svg()
        );
    }
}

impl Section {
    fn write(&self, left: &mut usize, out: &mut String) {
        let shown = self.rows.len().min(*left);
        *left -= shown;
        let open = if self.open { " open" } else { "" };
        let _ = write!(out, "<details class=\"group\"{open}>\n<summary>");
        for title in &self.title {
            if self.is_rules {
                write_rule(title, out);
            } else {
                let _ = write!(out, "<h2>{}</h2>", text(title));
            }
        }
        let _ = write!(out, "<span class=\"note\">{}</span></summary>\n", text(&self.note));
        if shown > 0 {
            out.push_str("<ul class=\"rows\">\n");
            self.rows.iter().take(shown).for_each(|row| row.write(out));
            out.push_str("</ul>\n");
        }
        if !self.text.is_empty() {
            let lines: Vec<String> = self.text.lines().map(entities).collect();
            let _ = writeln!(out, "<pre>{}</pre>", lines.join("\n"));
        }
        let more = (self.rows.len() - shown) as u64;
        if more > 0 {
            let _ = writeln!(
                out,
                "<p class=\"more\">and {} that this page has no room for</p>",
                counted(more, "more line")
            );
        }
        out.push_str("</details>\n");
    }
}

/// A rule as `file:line text`, the place apart.
fn write_rule(rule: &str, out: &mut String) {
    let (place, code) = rule.split_once(' ').unwrap_or((rule, ""));
    let _ = write!(
        out,
        "<span class=\"rule\" data-place=\"{}\"><span class=\"place\">{}</span> <code>{}</code></span>",
        text(place),
        text(place),
        text(code)
    );
}

impl Row {
    fn write(&self, out: &mut String) {
        let kind = self.kind.map_or("", Kind::name);
        let _ = write!(
            out,
            "<li class=\"row {kind}\" data-first=\"{}\"><div class=\"made\">",
            text(&self.first)
        );
        let _ = write!(
            out,
            "<code class=\"keys\">{}</code> <span class=\"info\">{}</span>",
            text(&self.keys),
            text(&self.info)
        );
        if self.count > 1 {
            let _ = write!(out, " <span class=\"count\">× {}</span>", self.count);
        }
        if let Some(kind) = self.kind {
            let _ = write!(
                out,
                " <span class=\"kind\" title=\"{}\">{}</span>",
                kind.meaning(),
                kind.name()
            );
        }
        out.push_str("</div>");
        if !self.from.is_empty() || !self.ops.is_empty() {
            out.push_str("<div class=\"from\"><span class=\"back\" aria-label=\"from\">←</span> ");
            for (at, (keys, count)) in self.from.iter().take(SOURCES).enumerate() {
                let plus = if at > 0 { " <span class=\"plus\">+</span> " } else { "" };
                let _ = write!(out, "{plus}<code class=\"keys\">{}</code>", text(keys));
                if *count > 1 {
                    let _ = write!(out, " <span class=\"count\">× {count}</span>");
                }
            }
            if self.from.len() > SOURCES {
                let _ = write!(
                    out,
                    " <span class=\"plus\">+</span> {} more kinds",
                    self.from.len() - SOURCES
                );
            }
            if !self.ops.is_empty() {
                let ops: String =
                    self.ops.iter().map(|op| format!("<li>{}</li>", text(op))).collect();
                let _ = write!(out, " <ol class=\"ops\" aria-label=\"ops\">{ops}</ol>");
            }
            out.push_str("</div>");
        }
        if !self.note.is_empty() {
            let _ = write!(out, "<div class=\"why\">{}</div>", text(&self.note));
        }
        out.push_str("</li>\n");
    }
}

/// Kinds of sources of a row that are named.
const SOURCES: usize = 8;

/// Text of others as HTML, in one line of at most [`TEXT`] characters.
fn text(of_others: &str) -> String {
    let line = one_line(of_others);
    match line.char_indices().nth(TEXT) {
        None => entities(&line),
        Some((end, _)) => format!("{}…", entities(line.get(..end).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a key may be called by someone who means harm.
    const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\"'&\u{202e}\n";

    #[test]
    fn nothing_that_others_named_is_markup() {
        let texts = || vec![HOSTILE.to_owned()];
        let row = Row {
            keys: HOSTILE.to_owned(),
            first: HOSTILE.to_owned(),
            count: 2,
            info: HOSTILE.to_owned(),
            kind: Some(Kind::Copied),
            from: vec![(HOSTILE.to_owned(), 2)],
            ops: texts(),
            note: HOSTILE.to_owned(),
        };
        let section = |is_rules| Section {
            title: texts(),
            is_rules,
            note: HOSTILE.to_owned(),
            open: true,
            rows: vec![row.clone()],
            text: HOSTILE.to_owned(),
        };
        let finding = Diagnostic::warning(crate::diagnostic::codes::COLLISION, HOSTILE)
            .keys([HOSTILE])
            .hint(HOSTILE);
        let page = Page {
            by: HOSTILE.to_owned(),
            title: HOSTILE.to_owned(),
            verdict: Some((Tone::Poor, HOSTILE.to_owned())),
            facts: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
            findings: vec![finding],
            sections: vec![section(true), section(false)],
            ..Page::default()
        };
        let html = page.html();
        assert!(!html.contains("<img") && !html.contains('\u{202e}'));
        // The one script is the page's own.
        assert_eq!(html.matches("</script>").count(), 1);
        assert_eq!(
            html.matches("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;")
                .count(),
            27
        );
    }

    #[test]
    fn a_page_has_bounds() {
        let row = |at: usize| Row { keys: format!("{at}{}", "k".repeat(70_000)), ..Row::default() };
        let section = Section { rows: (0..ROWS + 5).map(row).collect(), ..Section::default() };
        let html = Page { sections: vec![section], ..Page::default() }.html();
        assert!(html.len() < 3_000_000, "{}", html.len());
        assert!(html.contains("and 5 more lines that this page has no room for"));
    }
}
