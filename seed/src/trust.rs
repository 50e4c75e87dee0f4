//! Whose code may run: the allow-list that embedding converters ask before a framework loads code
//! from a model repository.
//!
//! regraft never runs such code itself. A pattern, as in `trust "nvidia/*"`, is an owner and a name
//! of a hub repository, where `*` stands for any text without a slash. A directory is never
//! trusted: what is in it may be anybody's.

use std::path::Path;

use super::Compat;

/// The reference's allow-list.
pub const REFERENCE_PATTERNS: &[&str] = &["nvidia/*"];

/// Whether a model's own code may run: its name is a hub repository that a pattern allows, and no
/// directory is in the way.
///
/// The patterns are those of `trust` statements, as [`Rules::trust`](regraft::check::Rules::trust)
/// has them. `is_dir` says whether a path is a directory; [`Path::is_dir`] is right for most
/// callers. The reference asks only for a directory and the prefix `nvidia/`, whatever follows, and
/// has no patterns.
pub fn resolve_trust_remote_code(
    name: Option<&str>,
    patterns: &[impl AsRef<str>],
    is_dir: impl Fn(&Path) -> bool,
    compat: Compat,
) -> bool {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return false };
    if is_dir(Path::new(name)) {
        return false;
    }
    match compat {
        Compat::Reference => name.starts_with("nvidia/"),
        Compat::Strict => {
            is_repository(name) && patterns.iter().any(|pattern| allows(pattern.as_ref(), name))
        }
    }
}

/// Whether a name is `owner/name` as the hub has them: letters, digits, `-`, `_` and `.`, neither
/// part beginning or ending with `-` or `.`. Source: `validate_repo_id` of huggingface_hub.
fn is_repository(name: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
    };
    name.split_once('/').is_some_and(|(owner, name)| good(owner) && good(name))
}

/// Whether a pattern matches, part by part.
fn allows(pattern: &str, name: &str) -> bool {
    match (pattern.split_once('/'), name.split_once('/')) {
        (Some((owner_pattern, name_pattern)), Some((owner, name))) => {
            glob(owner_pattern, owner) && glob(name_pattern, name)
        }
        _ => false,
    }
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| rest.get(at..).is_some_and(|rest| glob(after, rest)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(name: &str, patterns: &[&str]) -> bool {
        resolve_trust_remote_code(
            Some(name),
            patterns,
            |path| path == Path::new("nvidia/local"),
            Compat::Strict,
        )
    }

    #[test]
    fn only_an_allowed_repository() {
        assert!(strict("nvidia/NVIDIA-Nemotron-Nano-9B-v2", REFERENCE_PATTERNS));
        for name in [
            "nvidia/local",
            "nvidia/",
            "nvidia",
            "NVIDIA/x",
            "nvidia/../etc",
            "nvidia/a/b",
            "nvidia/ x",
            "./nvidia/x",
            "nvidia/.x",
            "/nvidia/x",
            "",
        ] {
            assert!(!strict(name, REFERENCE_PATTERNS), "{name:?}");
        }
        assert!(!strict("nvidia/x", &[] as &[&str]));
    }

    #[test]
    fn a_trust_statement_gives_the_patterns() {
        let rules =
            regraft::library::compile("ruleset mine\ntrust \"nvidia/*\", \"acme/chat\"").unwrap();
        for (name, trusted) in [("nvidia/x", true), ("acme/chat", true), ("acme/other", false)] {
            assert_eq!(
                resolve_trust_remote_code(Some(name), &rules.trust, |_| false, Compat::Strict),
                trusted,
                "{name}"
            );
        }
    }

    #[test]
    fn patterns_match_part_by_part() {
        assert!(strict("acme/model-7b-chat", &["acme/model-*-chat"]));
        assert!(strict("acme/model", &["*/model"]));
        assert!(!strict("acme/model", &["acme/*-chat", "acme", "acm*"]));
    }
}
