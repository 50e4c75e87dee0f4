//! Tree to text: the formatter.

use super::ast::RuleFile;

/// The canonical text of a rule file.
pub fn print(file: &RuleFile) -> String {
    let _ = file;
    String::new()
}

/// One rule in one line, without comments.
pub fn print_rule(rule: &super::ast::Rule) -> String {
    let _ = rule;
    String::new()
}

/// One statement in one line, without comments.
pub fn print_statement_line(statement: &super::ast::StatementKind) -> String {
    let _ = statement;
    String::new()
}
