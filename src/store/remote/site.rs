//! [`Site`]: where a file is, and how it is asked for there.

use super::address::{Address, HubPath};
use super::bucket::Bucket;
use super::http::{self, Answer, Refusal, Request, Trouble};
use super::object::bytes;
use super::{hub, web};
use crate::error::{Error, ErrorKind, Result};
use crate::store::quote::quoted;

/// Where a file is.
pub(super) enum Site {
    /// In a repository of a hub, at a commit.
    Hub(HubPath),
    /// At an address.
    Web(String),
    /// In an object store.
    Bucket(Bucket),
}

impl Site {
    /// Of an address.
    ///
    /// # Errors
    /// If what proves who asks can't be read.
    pub(super) fn of(address: Address) -> Result<Self> {
        Ok(match address {
            Address::Hub(path) => Self::Hub(path),
            Address::Web(url) => Self::Web(url),
            Address::Bucket(path) => Self::Bucket(Bucket::of(path)?),
        })
    }

    /// Asks for some of its bytes, or for all if they have changed since a tag.
    ///
    /// # Errors
    /// As [`http::ask`]; and if there is no way to prove who asks.
    pub(super) fn ask(
        &self,
        range: (u64, u64),
        unless: Option<&str>,
    ) -> std::result::Result<Answer, Trouble> {
        let mut headers = vec![("Range", bytes(range))];
        headers.extend(unless.map(|tag| ("If-None-Match", format!("\"{tag}\""))));
        let request = self.request(headers.clone()).map_err(Trouble::Lasting)?;
        match (http::ask(&request), self) {
            (Err(Trouble::Status(refusal)), Self::Bucket(bucket)) if bucket.learn(&refusal) => {
                http::ask(&self.request(headers).map_err(Trouble::Lasting)?)
            }
            (answer, _) => answer,
        }
    }

    fn request(&self, headers: Vec<(&'static str, String)>) -> Result<Request> {
        let mut request = match self {
            Self::Hub(path) => {
                let revision = quoted(path.revision.as_deref().unwrap_or("main"), false);
                let (repository, file) = (&path.repository, quoted(&path.path, true));
                let url = format!("{}/{repository}/resolve/{revision}/{file}", hub::endpoint());
                hub::with_token(Request::new(url))
            }
            Self::Web(url) => web::request(url),
            Self::Bucket(bucket) => return bucket.get(headers),
        };
        request.headers = headers;
        Ok(request)
    }

    /// Whether its content can never be another one.
    pub(super) fn is_immutable(&self) -> bool {
        self.commit().is_some()
    }

    /// The commit that it is of.
    pub(super) fn commit(&self) -> Option<&str> {
        match self {
            Self::Hub(path) => path.revision.as_deref(),
            Self::Web(_) | Self::Bucket(_) => None,
        }
    }

    /// What it is called in the cache.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Hub(path) => format!("{} {}", hub::endpoint(), path.text()),
            Self::Web(url) => url.clone(),
            Self::Bucket(bucket) => bucket.name(),
        }
    }
}

/// What it means that a server refused, and what to do.
pub(super) fn refused(address: &str, refusal: &Refusal) -> Error {
    let is_hub = address.starts_with("hf://");
    let code = refusal.code.as_deref().unwrap_or_default();
    let new = |kind, what: &str| {
        let word = if code.is_empty() { String::new() } else { format!(", {code}") };
        Error::new(kind, format!("{what} ({}{word})", refusal.status)).in_file(address)
    };
    let asks = |what: &str| {
        let error = new(ErrorKind::Denied, what);
        match (is_hub, hub::token().is_some()) {
            (true, false) => error.hint("if it is gated or private, set HF_TOKEN, or run `hf auth login`"),
            (true, true) => error.hint("the token that was sent doesn't open it: ask for access on its page, or use another HF_TOKEN"),
            (false, _) => error.hint(credentials(address)),
        }
    };
    match (refusal.status, code) {
        (401 | 404, "RepoNotFound") => {
            let error = asks("there is no such repository, or it is private");
            if hub::token().is_some() {
                error.hint("look at the name; the token that was sent sees no such repository")
            } else {
                error
            }
        }
        (_, "GatedRepo") => asks("the repository is gated"),
        (404, "RevisionNotFound") => {
            new(ErrorKind::NotFound, "the repository has no such revision")
                .hint("a branch, a tag or a commit stands behind the name: hf://org/name@main")
        }
        (404, "NoSuchBucket") => new(ErrorKind::NotFound, "there is no such bucket")
            .hint("look at its name, and at AWS_ENDPOINT_URL and the region"),
        (401, _) => asks("the server wants to know who asks"),
        (403, _) => asks("the server refuses access"),
        (404 | 410, _) => {
            new(ErrorKind::NotFound, "there is no such file").hint("look at the address")
        }
        (408 | 429, _) => {
            let error = new(ErrorKind::Unavailable, "the server is asked too often");
            if is_hub && hub::token().is_none() {
                error.hint("wait some minutes, or set HF_TOKEN: who is known may ask more often")
            } else {
                error.hint("wait some minutes, and run it again")
            }
        }
        // It won't do so later either: what stands in for a store may list no folders, say.
        (501, _) => new(ErrorKind::Io, "the server can't do what it is asked for").hint(
            "is it the server that the address means? Look at the variable that names the endpoint",
        ),
        (500..=599, _) => new(ErrorKind::Unavailable, "the server has failed")
            .hint("run it again later; with --resume, finished files are not fetched again"),
        _ => new(ErrorKind::Io, "the server refuses"),
    }
}

fn credentials(address: &str) -> &'static str {
    match address.split("://").next() {
        Some("s3") => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        Some("gs") => {
            "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"
        }
        Some("az") => {
            "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
        }
        _ => {
            "an address with a signature, or with user and password before its host, opens what is protected"
        }
    }
}
