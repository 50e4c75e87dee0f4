//! Checked rules: what is said of rule text alone, which is all that a case of the corpus holds.

mod costly;
mod exclusion;
mod proofs;

use regraft::check::idempotence;
use regraft::compile;
use regraft::diagnostic::{Diagnostic, render_all};

use super::corpus::hold;

pub(crate) fn shown(findings: &[Diagnostic]) -> String {
    if findings.is_empty() { "(nothing)\n".to_owned() } else { render_all(findings, false) }
}

#[test]
fn corpus() {
    hold("check", |case| match compile(&case.body) {
        Ok(rules) => shown(&rules.findings),
        Err(diagnostics) => shown(&diagnostics.0),
    });
}

#[test]
fn proof_corpus() {
    hold("proof", |case| match compile(&case.body) {
        Ok(rules) => format!("{}{:?}\n", shown(&rules.findings), idempotence(&rules)),
        Err(diagnostics) => shown(&diagnostics.0),
    });
}
