//! A drawing as text for other tools: Graphviz and Mermaid.

use std::fmt::Write as _;

use crate::diagnostic::plain::is_harmful;

use super::{Drawing, Kind};

impl Drawing {
    /// As a Graphviz digraph.
    pub fn dot(&self) -> String {
        let mut out = String::from(
            "digraph regraft {\n  rankdir=LR;\n  node [shape=box, style=\"filled,rounded\", fontname=\"monospace\"];\n",
        );
        for (number, one) in self.boxes.iter().enumerate() {
            let text = if one.detail.is_empty() {
                one.label.clone()
            } else {
                format!("{}\n{}", one.label, one.detail)
            };
            let _ = writeln!(
                out,
                "  n{number} [label={}, fillcolor={:?}];",
                quoted(&text),
                one.kind.colour()
            );
        }
        for arrow in &self.arrows {
            let style = if matches!(arrow.kind, Kind::Tied | Kind::Dropped) {
                " [style=dashed]"
            } else {
                ""
            };
            let _ = writeln!(out, "  n{} -> n{}{style};", arrow.from, arrow.to);
        }
        out.push_str("}\n");
        out
    }

    /// As a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (number, one) in self.boxes.iter().enumerate() {
            let text = if one.detail.is_empty() {
                entities(&one.label)
            } else {
                format!("{}<br/>{}", entities(&one.label), entities(&one.detail))
            };
            let _ = writeln!(out, "  n{number}[\"{text}\"]:::{}", one.kind.name());
        }
        for arrow in &self.arrows {
            let line =
                if matches!(arrow.kind, Kind::Tied | Kind::Dropped) { "-.->" } else { "-->" };
            let _ = writeln!(out, "  n{} {line} n{}", arrow.from, arrow.to);
        }
        for kind in Kind::ALL {
            let _ = writeln!(
                out,
                "  classDef {} fill:{},stroke:#666,color:#111",
                kind.name(),
                kind.colour()
            );
        }
        out
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Text with what Mermaid, SVG and HTML would read as markup written as entities.
pub(in crate::overview) fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '#' => out.push_str("&#35;"),
            '\'' => out.push_str("&#39;"),
            c if is_harmful(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
