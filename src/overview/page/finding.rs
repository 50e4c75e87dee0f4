//! Findings on a page.

use std::fmt::Write as _;

use super::text;
use crate::diagnostic::{Diagnostic, Place, Severity};

/// Findings that are shown.
const FINDINGS: usize = 200;
/// Keys of a finding that are listed.
const KEYS: usize = 50;

/// All findings, the worst first.
pub(super) fn write_all(findings: &[Diagnostic], out: &mut String) {
    if findings.is_empty() {
        return;
    }
    let mut sorted: Vec<&Diagnostic> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    out.push_str("<section class=\"findings\" aria-label=\"Findings\">\n<h2>Findings</h2>\n<ul>\n");
    for finding in sorted.iter().take(FINDINGS) {
        write(finding, out);
    }
    out.push_str("</ul>\n");
    if sorted.len() > FINDINGS {
        let _ = writeln!(out, "<p class=\"more\">and {} more</p>", sorted.len() - FINDINGS);
    }
    out.push_str("</section>\n");
}

fn write(finding: &Diagnostic, out: &mut String) {
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let _ = write!(
        out,
        "<li class=\"finding {severity}\"><p><b class=\"severity\">{severity}</b> <span class=\"code\">{}</span> {}</p>",
        text(&finding.code.to_string()),
        text(&finding.message)
    );
    let places = finding.primary.iter().chain(&finding.labels);
    for (place, label) in places {
        write_place(place, label, out);
    }
    for hint in &finding.hints {
        let _ = write!(out, "<p class=\"hint\">{}</p>", text(hint));
    }
    match finding.keys.as_slice() {
        [] => {}
        [one] => {
            let _ = write!(out, "<p class=\"of\"><code class=\"keys\">{}</code></p>", text(one));
        }
        keys => write_keys(keys, out),
    }
    out.push_str("</li>\n");
}

fn write_place(place: &Place, label: &str, out: &mut String) {
    let at = text(&format!("{}:{}", place.source.name, place.line()));
    let _ = write!(out, "<p class=\"at\"><span class=\"place\" data-place=\"{at}\">{at}</span>");
    // The line that is meant, with what is said there.
    if let Some(line) = place.source.text.lines().nth(place.line() - 1).filter(|_| place.has_text())
    {
        let _ = write!(out, " <code>{}</code>", text(line.trim()));
    }
    if !label.is_empty() {
        let _ = write!(out, " <span class=\"label\">{}</span>", text(label));
    }
    out.push_str("</p>");
}

fn write_keys(keys: &[String], out: &mut String) {
    let _ = write!(out, "<details class=\"of\"><summary>{} keys</summary><ul>", keys.len());
    for key in keys.iter().take(KEYS) {
        let _ = write!(out, "<li><code class=\"keys\">{}</code></li>", text(key));
    }
    if keys.len() > KEYS {
        let _ = write!(out, "<li>and {} more</li>", keys.len() - KEYS);
    }
    out.push_str("</ul></details>");
}
