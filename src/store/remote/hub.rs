//! A hub of models, as Hugging Face's: where it is, who asks, which commit a revision is, which
//! files there are, and what of it lies on this disk already.
//!
//! Its own cache is read, and never written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde::Deserialize;

use super::address::{HubPath, is_commit};
use super::http::Request;
use super::listing::{self, document};
use super::variable;
use crate::error::{Error, ErrorKind, Result};
use crate::store::quote::quoted;

/// The most bytes of an answer that lists files.
const LIST: u64 = 256 << 20;

/// Where the hub is.
pub(super) fn endpoint() -> String {
    let given = variable("HF_ENDPOINT");
    given.map_or_else(
        || "https://huggingface.co".to_owned(),
        |text| text.trim_end_matches('/').to_owned(),
    )
}

/// Whether nothing may be asked.
fn is_offline() -> bool {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| {
        variable(name).is_some_and(|text| {
            matches!(text.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
        })
    })
}

fn home() -> Option<PathBuf> {
    variable("HF_HOME").map(PathBuf::from).or_else(|| {
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        cache
            .or_else(|| Some(std::env::home_dir()?.join(".cache")))
            .map(|cache| cache.join("huggingface"))
    })
}

/// What proves who asks: of the environment, or as `hf auth login` has left it.
pub(super) fn token() -> Option<String> {
    if let Some(token) = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
        return Some(token);
    }
    let file =
        variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home()?.join("token")))?;
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A request that says who asks.
pub(super) fn with_token(request: Request) -> Request {
    match token() {
        Some(token) => request.secret("Authorization", format!("Bearer {token}")),
        None => request,
    }
}

/// Where the hub's own cache keeps a repository.
fn kept(repository: &str) -> Option<PathBuf> {
    let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    let cache = cache.map(PathBuf::from).or_else(|| Some(home()?.join("hub")))?;
    Some(cache.join(format!("models--{}", repository.replace('/', "--"))))
}

/// A file that the hub's cache has.
pub(super) fn kept_file(path: &HubPath) -> Option<PathBuf> {
    let commit = path.revision.as_deref().filter(|revision| is_commit(revision))?;
    let file = kept(&path.repository)?.join("snapshots").join(commit).join(&path.path);
    file.is_file().then_some(file)
}

/// The commit and the files of a revision.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) commit: String,
    /// Files of all folders.
    pub(super) files: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// What is known of commits, which doesn't change, by repository and commit.
static KNOWN: LazyLock<Mutex<HashMap<Commit, Arc<Repository>>>> = LazyLock::new(Mutex::default);

/// A hub, a repository of it, and a commit.
type Commit = (String, String, String);

/// Looks which commit a revision is, and which files it has.
///
/// # Errors
/// If there is none, or the hub can't be asked.
pub(super) fn repository(path: &HubPath) -> Result<Arc<Repository>> {
    let known = |commit: &str| (endpoint(), path.repository.clone(), commit.to_owned());
    let revision = path.revision.as_deref().unwrap_or("main");
    if is_commit(revision) {
        let found =
            KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&known(revision)).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let found = if is_offline() { offline(path, revision)? } else { ask(path, revision)? };
    let found = Arc::new(found);
    let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(known(&found.commit), Arc::clone(&found));
    Ok(found)
}

fn ask(path: &HubPath, revision: &str) -> Result<Repository> {
    let (hub, repository) = (endpoint(), &path.repository);
    let url = format!("{hub}/api/models/{repository}/revision/{}", quoted(revision, false));
    let address = path.text();
    let request = || Ok(with_token(Request::new(url.clone())));
    let text = document(&address, &request, |_| false, LIST)?;
    let answer: Answer = serde_json::from_slice(&text).map_err(|_| {
        Error::corrupt("the hub's answer isn't what a hub says of a model")
            .in_file(&address)
            .hint("does HF_ENDPOINT name a hub?")
    })?;
    let commit = answer.sha.filter(|sha| is_commit(sha)).ok_or_else(|| {
        Error::corrupt("the hub doesn't say which commit the revision is").in_file(&address)
    })?;
    let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename);
    Ok(Repository { commit, files: files.filter(|name| listing::is_plain(name)).collect() })
}

/// What the hub's cache has of a revision.
fn offline(path: &HubPath, revision: &str) -> Result<Repository> {
    let missing = || {
        let error = Error::new(
            ErrorKind::NotFound,
            "HF_HUB_OFFLINE says that the hub isn't asked, and its cache doesn't have this revision",
        );
        error.in_file(path.text()).hint("`hf download` fetches it, or take HF_HUB_OFFLINE away")
    };
    let kept = kept(&path.repository).ok_or_else(missing)?;
    let commit = if is_commit(revision) {
        revision.to_owned()
    } else {
        let text =
            std::fs::read_to_string(kept.join("refs").join(revision)).map_err(|_| missing())?;
        Some(text.trim().to_owned()).filter(|text| is_commit(text)).ok_or_else(missing)?
    };
    let snapshot = kept.join("snapshots").join(&commit);
    let mut files = Vec::new();
    below(&snapshot, "", 0, &mut files).map_err(|_| missing())?;
    Ok(Repository { commit, files })
}

/// The files below a folder.
fn below(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<String>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        if path.is_file() {
            files.push(name);
        } else if path.is_dir() && depth < 16 {
            below(&path, &format!("{name}/"), depth + 1, files)?;
        }
    }
    Ok(())
}
