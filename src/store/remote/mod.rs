//! Files far away: on hubs of models, web servers and object stores, read by ranges of bytes.
//!
//! * `address`: what an address says; `site`: how a file is asked for there, and what a refusal
//!   means; `hub`, `web`, `bucket`: the kinds of sites
//! * `http`: requests and redirects; `socket`: connections; `resolver`: where servers are;
//!   `proxy`: by whom requests go; `retry`: tries and waits
//! * `object`: a file that is read by ranges; `cache`: headers that were read before
//! * `listing`: folders
//!
//! An address stands wherever a path does. Nothing here writes but to the cache of headers. No
//! token, key, password or signature is in a message, a record, or the cache, and none goes to a
//! host that wasn't asked.

mod address;
mod bucket;
mod cache;
mod http;
mod hub;
mod listing;
mod object;
mod proxy;
mod resolver;
mod retry;
mod site;
mod socket;
mod web;

use std::path::PathBuf;

use address::{Address, HubPath, is_commit};
use bucket::Bucket;
use site::Site;

pub use cache::directory as cache_directory;
pub(super) use listing::Kind;
pub(super) use object::Object;
pub(crate) use retry::Interrupts;
pub(super) use web::public;

use crate::error::{Error, ErrorKind, Result};

/// A file that was opened.
pub(super) enum Opened {
    /// It lies on this disk already.
    Kept(PathBuf),
    Far(Box<Object>),
}

/// How many files are opened at once.
pub(super) const AT_ONCE: usize = 32;

/// The same address without what is secret, of a commit where a revision was named: whatever is
/// asked later is asked of that.
///
/// # Errors
/// If there is no such revision, or the hub can't be asked.
pub(super) fn pinned(text: &str) -> Result<String> {
    match Address::parse(text)? {
        Address::Hub(path) => {
            if path.revision.as_deref().is_some_and(is_commit) {
                return Ok(path.text());
            }
            let commit = hub::repository(&path)?.commit.clone();
            Ok(HubPath { revision: Some(commit), ..path }.text())
        }
        Address::Web(url) => Ok(public(&url)),
        Address::Bucket(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}

/// A variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What is at an address; `None` if nothing is. What looks like a file and can't be listed is taken
/// for one: who opens it finds out.
///
/// # Errors
/// If that can't be found out.
pub(super) fn kind(text: &str) -> Result<Option<Kind>> {
    match Address::parse(text)? {
        Address::Hub(path) => Ok(listing::kind_among(&hub::repository(&path)?.files, &path.path)),
        Address::Web(url) if url.ends_with('/') => Ok(Some(Kind::Folder)),
        Address::Web(_) => Ok(Some(Kind::File)),
        Address::Bucket(path) => {
            // Who may read an object may not always list.
            if is_named_as_file(&path.key) {
                return Ok(Some(Kind::File));
            }
            let found = Bucket::of(path.clone())?.list(&path.key)?;
            let folder = path.folder();
            Ok(match found.contains(&path.key) {
                true => Some(Kind::File),
                false => found.iter().any(|name| name.starts_with(&folder)).then_some(Kind::Folder),
            })
        }
    }
}

/// Whether there is a file at an address.
///
/// # Errors
/// If that can't be found out.
pub(super) fn is_file(text: &str) -> Result<bool> {
    match Address::parse(text)? {
        Address::Hub(_) => Ok(kind(text)? == Some(Kind::File)),
        address => match Object::open(text, Site::of(address)?, &Interrupts::default()) {
            Ok(found) => {
                // Who reads it next need not fetch it again.
                found.iter().for_each(Object::settle);
                Ok(found.is_some())
            }
            // Where one may not list, what isn't there is denied.
            Err(error) if error.kind() == ErrorKind::Denied => Ok(false),
            Err(error) => Err(error),
        },
    }
}

/// Whether a name in an object store is one of a file by its ending.
fn is_named_as_file(key: &str) -> bool {
    const ENDINGS: &[&str] = &[
        "safetensors",
        "json",
        "bin",
        "pt",
        "pth",
        "ckpt",
        "npz",
        "npy",
        "txt",
        "metadata",
        "nemo",
    ];
    key.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

/// The names of the files in a folder.
///
/// # Errors
/// If it can't be listed, as those of web servers.
pub(super) fn names(text: &str) -> Result<Vec<String>> {
    match Address::parse(text)? {
        Address::Hub(path) => Ok(listing::names_in(&hub::repository(&path)?.files, &path.path)),
        Address::Web(_) => {
            let error =
                Error::new(ErrorKind::Unsupported, "a folder of a web server can't be listed");
            Err(error
                .in_file(text)
                .hint("give a file, or an index: https://…/model.safetensors.index.json"))
        }
        Address::Bucket(path) => {
            let found = Bucket::of(path.clone())?.list(&path.folder())?;
            Ok(listing::names_in(&found, &path.key))
        }
    }
}

/// Opens a file; `None` if there is none. Whatever waits for it ends by `interrupts`.
///
/// # Errors
/// If it can't be read.
pub(super) fn open(text: &str, interrupts: &Interrupts) -> Result<Option<Opened>> {
    let address = Address::parse(text)?;
    if let Address::Hub(path) = &address {
        if let Some(kept) = hub::kept_file(path) {
            return Ok(Some(Opened::Kept(kept)));
        }
        if listing::kind_among(&hub::repository(path)?.files, &path.path) != Some(Kind::File) {
            return Ok(None);
        }
    }
    let object = Object::open(text, Site::of(address)?, interrupts)?;
    Ok(object.map(|object| Opened::Far(Box::new(object))))
}
