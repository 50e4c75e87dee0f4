//! [`Console`]: the one place that prints. Results go to standard output; findings, notes and
//! progress to standard error.

use std::io::{self, BufWriter, Write};

use anstream::{AutoStream, ColorChoice};
use regraft::diagnostic::plain::{self, harmless};
use regraft::diagnostic::{Diagnostic, Severity, render};
use serde::Serialize;

use super::Failure;

/// Where and how output appears.
#[derive(Clone, Copy, Debug)]
pub(super) struct Console {
    pub(super) colour: ColorChoice,
    /// Only errors, warnings and what was asked for.
    pub(super) quiet: bool,
    /// Results are one JSON document on standard output.
    pub(super) json: bool,
}

impl Console {
    /// Prints a result. Keys may hold anything; no control character of theirs reaches the
    /// terminal.
    pub(super) fn out(self, text: &str) -> Result<(), Failure> {
        self.exact(&harmless(text))
    }

    /// Prints a result whose lines are as long as they need be: on a terminal they end where it
    /// does, and what follows stands behind their beginning.
    pub(super) fn fitted(self, text: &str) -> Result<(), Failure> {
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into());
        match width {
            Some(width) => self.out(&fit(text, width)),
            None => self.out(text),
        }
    }

    /// Prints a result that must not be changed: a formatted file, a script.
    pub(super) fn exact(self, text: &str) -> Result<(), Failure> {
        let mut stream = AutoStream::new(io::stdout().lock(), self.colour);
        stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).map_err(Failure::Output)
    }

    /// Prints a result as JSON.
    pub(super) fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failure> {
        let mut stream = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        serde_json::to_writer(&mut stream, value).map_err(|error| Failure::Output(error.into()))?;
        stream.write_all(b"\n").and_then(|()| stream.flush()).map_err(Failure::Output)
    }

    /// Says something on the side, unless told to be quiet. Nobody reading it is no failure.
    pub(super) fn note(self, text: &str) {
        if !self.quiet && !self.json {
            self.line(text);
        }
    }

    /// Prints findings: errors and warnings with the rule text, notes in a line each.
    pub(super) fn findings(self, findings: &[Diagnostic]) {
        if self.json {
            return;
        }
        let colour = self.is_coloured();
        for finding in findings {
            match finding.severity {
                Severity::Note if self.quiet => {}
                Severity::Note => self.line(&one_line(finding)),
                _ => self.say(&format!("{}\n", render(finding, colour))),
            }
        }
    }

    /// Prints a line on standard error, whatever is in it.
    pub(super) fn line(self, text: &str) {
        self.say(&format!("{}\n", plain::one_line(text)));
    }

    /// Prints on standard error, without control characters.
    pub(super) fn aside(self, text: &str) {
        self.say(&harmless(text));
    }

    fn say(self, text: &str) {
        let mut stream = AutoStream::new(io::stderr().lock(), self.colour);
        let _ = stream.write_all(text.as_bytes());
    }

    /// Whether standard error shows colour.
    pub(super) fn is_coloured(self) -> bool {
        AutoStream::new(io::stderr(), self.colour).current_choice() != ColorChoice::Never
    }

    /// Whether a progress bar makes sense.
    pub(super) fn shows_progress(self) -> bool {
        use io::IsTerminal;
        !self.quiet && !self.json && io::stderr().is_terminal()
    }
}

/// Lines of at most so many characters, broken between words; a word that is longer stays whole.
fn fit(text: &str, width: usize) -> String {
    let fit_line = |line: &str| {
        let body = line.trim_start_matches(' ');
        let begin = " ".repeat(line.len() - body.len());
        let behind = format!("{begin}    ");
        let options = textwrap::Options::new(width.max(40))
            .initial_indent(&begin)
            .subsequent_indent(&behind)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .break_words(false);
        if line.chars().count() <= width { line.to_owned() } else { textwrap::fill(body, options) }
    };
    let mut fitted: String = text.lines().map(|line| fit_line(line) + "\n").collect();
    if !text.ends_with('\n') {
        fitted.pop();
    }
    fitted
}

/// A finding in one line: where in the rules, what, and which keys.
pub(super) fn one_line(finding: &Diagnostic) -> String {
    let mut line = finding.to_string();
    if let Some((place, _)) = &finding.primary {
        line.push_str(&format!(" ({}:{})", place.source.name, place.line()));
    }
    match finding.keys.as_slice() {
        [] => {}
        // Said already.
        [key, ..] if finding.message.contains(key.as_str()) => {}
        [key] => line.push_str(&format!(": {key}")),
        [key, rest @ ..] => line.push_str(&format!(": {key} and {} more", rest.len())),
    }
    line
}

/// Whether anything was found that a person should look at.
pub(super) fn has_findings(findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| finding.severity >= Severity::Warning)
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn lines_end_where_the_terminal_does() {
        let key = "model.layers.0.self_attn.q_proj.weight.that.is.longer.than.a.line";
        let text = format!(
            "a short  line, as it is\n  one two three four five six seven eight nine ten\n  {key} x\n"
        );
        let expected = format!(
            "a short  line, as it is\n  one two three four five six seven eight\n      nine ten\n  {key}\n      x\n"
        );
        assert_eq!(fit(&text, 42), expected);
        assert_eq!(fit(&text, 400), text);
        assert_eq!(fit("no end", 80), "no end");
        assert_eq!(fit("", 80), "");
    }
}
