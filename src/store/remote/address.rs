//! What the address of a remote source says.

use std::fmt::Write as _;

use super::web::public;
use crate::error::{Error, ErrorKind, Result};
use crate::store::quote::{quoted, unquoted};

/// An address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `hf://org/name[@revision][/path]`
    Hub(HubPath),
    /// `http://…` or `https://…`
    Web(String),
    /// `s3://bucket/key`, `gs://bucket/key`, `az://container/key`
    Bucket(BucketPath),
}

/// A repository of a hub, and what is meant of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubPath {
    /// `org/name`, or one name, as the oldest models have.
    pub(super) repository: String,
    pub(super) revision: Option<String>,
    /// A file or a folder; empty for all.
    pub(super) path: String,
}

/// What is meant of an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BucketPath {
    pub(super) kind: BucketKind,
    pub(super) bucket: String,
    pub(super) key: String,
}

impl BucketPath {
    /// What the keys of everything in it begin with, where it is a folder.
    pub(super) fn folder(&self) -> String {
        if self.key.is_empty() { String::new() } else { format!("{}/", self.key) }
    }
}

/// Whose object store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BucketKind {
    Amazon,
    Google,
    Azure,
}

impl Address {
    /// Takes an address apart.
    ///
    /// # Errors
    /// If it names nothing.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let bucket = |kind| {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            let (bucket, key) = (bucket.to_owned(), key.trim_matches('/').to_owned());
            if bucket.is_empty() {
                return Err(names_nothing(text, "write s3://bucket/folder"));
            }
            Ok(Self::Bucket(BucketPath { kind, bucket, key }))
        };
        match scheme {
            "hf" => HubPath::parse(rest).map(Self::Hub).ok_or_else(|| {
                names_nothing(text, "write hf://org/name, with @revision if need be")
            }),
            "s3" => bucket(BucketKind::Amazon),
            "gs" => bucket(BucketKind::Google),
            "az" => bucket(BucketKind::Azure),
            _ if rest.split('/').next().is_none_or(str::is_empty) => {
                Err(names_nothing(text, "write https://host/path/model.safetensors"))
            }
            _ => Ok(Self::Web(text.to_owned())),
        }
    }
}

fn names_nothing(text: &str, hint: &str) -> Error {
    let text = public(text);
    Error::new(ErrorKind::Unsupported, format!("{text:?} names no source")).hint(hint)
}

impl HubPath {
    /// `org/name[@revision][/path]`. A revision with slashes is quoted (`%2F`), but for those that
    /// the hub makes itself: `refs/pr/1`, `refs/convert/parquet`.
    fn parse(rest: &str) -> Option<Self> {
        let rest = rest.trim_end_matches('/');
        let mut parts = rest.split('/');
        let first = parts.next().filter(|part| !part.is_empty())?;
        if matches!(first, "datasets" | "spaces") {
            return None;
        }
        // Only a name stands before the revision.
        let (mut repository, mut revision) = match first.split_once('@') {
            Some((name, revision)) => (name.to_owned(), Some(revision.to_owned())),
            None => (first.to_owned(), None),
        };
        if revision.is_none()
            && let Some(name) = parts.next()
        {
            let (name, found) = match name.split_once('@') {
                Some((name, revision)) => (name, Some(revision.to_owned())),
                None => (name, None),
            };
            (repository, revision) = (format!("{repository}/{name}"), found);
        }
        let mut path: Vec<&str> = parts.collect();
        if revision.as_deref() == Some("refs") {
            if path.len() < 2 {
                return None;
            }
            revision = Some(format!("refs/{}", path.drain(..2).collect::<Vec<_>>().join("/")));
        }
        let names = |text: &str| text.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let is_whole = names(&repository)
            && revision.as_ref().is_none_or(|revision| !revision.is_empty())
            && (path.is_empty() || path.iter().all(|part| names(part)));
        is_whole.then(|| Self {
            repository,
            revision: revision.map(|revision| unquoted(&revision)),
            path: path.join("/"),
        })
    }

    /// The address again.
    pub(super) fn text(&self) -> String {
        let mut text = format!("hf://{}", self.repository);
        if let Some(revision) = &self.revision {
            let _ = write!(text, "@{}", quoted(revision, false));
        }
        if !self.path.is_empty() {
            let _ = write!(text, "/{}", self.path);
        }
        text
    }
}

/// Whether a revision is a commit, which never means anything else.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(text: &str) -> Option<(String, Option<String>, String)> {
        match Address::parse(text) {
            Ok(Address::Hub(hub)) => Some((hub.repository, hub.revision, hub.path)),
            _ => None,
        }
    }

    #[test]
    fn addresses_of_a_hub_are_taken_apart() {
        let is = |text, repository: &str, revision: Option<&str>, path: &str| {
            let expected = (repository.to_owned(), revision.map(str::to_owned), path.to_owned());
            assert_eq!(hub(text), Some(expected), "{text}");
        };
        is("hf://org/name", "org/name", None, "");
        is("hf://org/name/", "org/name", None, "");
        is("hf://org/name@v1.0/unet", "org/name", Some("v1.0"), "unet");
        is("hf://org/name@a%2Fb/x/y.safetensors", "org/name", Some("a/b"), "x/y.safetensors");
        is("hf://org/name@refs/pr/1/vae", "org/name", Some("refs/pr/1"), "vae");
        is("hf://gpt2", "gpt2", None, "");
        is("hf://gpt2@main", "gpt2", Some("main"), "");
        for wrong in [
            "hf://",
            "hf:///name",
            "hf://datasets/a/b",
            "hf://a/b@",
            "hf://a/b@refs/pr",
            "hf://a/b/../c",
        ] {
            assert_eq!(hub(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_of_a_hub_reads_back() {
        for text in ["hf://org/name", "hf://org/name@a%2Fb/x/y.safetensors", "hf://gpt2@main"] {
            let Ok(Address::Hub(hub)) = Address::parse(text) else { panic!("{text}") };
            assert_eq!(hub.text(), text);
        }
    }
}
