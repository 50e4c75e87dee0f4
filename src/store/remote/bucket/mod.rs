//! Object stores: S3 and what speaks as it does, Google Cloud Storage, Azure Blob Storage.
//!
//! Each has a request for the bytes of an object and one for the names below a prefix, both simple
//! GETs; what differs is how a request proves who makes it. That is signed here, with the
//! primitives that TLS brings along: the clients of the stores themselves are hundreds of crates.

mod amazon;
mod azure;
mod google;

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::address::{BucketKind, BucketPath};
use super::http::{Refusal, Request, between};
use super::listing::{document, is_plain};
use super::variable;
use crate::error::Result;

/// The most bytes of one answer that lists objects, and the most of them.
const LIST: u64 = 64 << 20;
const MOST: usize = 1 << 20;

/// A file or folder of an object store.
pub(super) struct Bucket {
    path: BucketPath,
    access: Access,
}

/// How requests prove who makes them.
enum Access {
    Amazon(amazon::Access),
    Google(google::Access),
    Azure(azure::Access),
}

/// Regions that servers have named, by bucket.
static REGIONS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

impl Bucket {
    /// Of a path, with what the environment says of access.
    ///
    /// # Errors
    /// If that is no whole.
    pub(super) fn of(path: BucketPath) -> Result<Self> {
        let access = match path.kind {
            BucketKind::Amazon => Access::Amazon(amazon::Access::of_environment()?),
            BucketKind::Google => Access::Google(google::Access::of_environment()?),
            BucketKind::Azure => Access::Azure(azure::Access::of_environment()?),
        };
        Ok(Self { path, access })
    }

    /// A request for the object; these headers go with it.
    ///
    /// # Errors
    /// If there is no way to prove who asks.
    pub(super) fn get(&self, headers: Vec<(&'static str, String)>) -> Result<Request> {
        self.request(&self.path.key, &[], headers)
    }

    fn request(
        &self,
        key: &str,
        query: &[(&str, &str)],
        headers: Vec<(&'static str, String)>,
    ) -> Result<Request> {
        let bucket = &self.path.bucket;
        match &self.access {
            Access::Amazon(access) => {
                let regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
                let region = regions.get(bucket).map(String::as_str);
                Ok(access.request((bucket, key), query, headers, region, now()))
            }
            Access::Google(access) => access.request((bucket, key), query, headers),
            Access::Azure(access) => Ok(access.request((bucket, key), query, headers, now())),
        }
    }

    /// Takes note of what a refusal says of where the bucket is. Whether that is news.
    pub(super) fn learn(&self, refusal: &Refusal) -> bool {
        let Some(region) = &refusal.region else { return false };
        let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
        regions.insert(self.path.bucket.clone(), region.clone()).as_ref() != Some(region)
    }

    /// What it is called in the cache.
    pub(super) fn name(&self) -> String {
        let at = match &self.access {
            Access::Amazon(access) => access.name(),
            Access::Google(access) => access.name(),
            Access::Azure(access) => access.name(),
        };
        format!("{:?} {at} {}/{}", self.path.kind, self.path.bucket, self.path.key)
    }

    /// The address, for messages.
    fn address(&self) -> String {
        let scheme = match self.path.kind {
            BucketKind::Amazon => "s3",
            BucketKind::Google => "gs",
            BucketKind::Azure => "az",
        };
        format!("{scheme}://{}/{}", self.path.bucket, self.path.key)
    }

    /// The objects whose keys begin with the path, down to the next folder: objects, and folders
    /// with a `/` at their end.
    ///
    /// # Errors
    /// If they can't be listed.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let is_azure = matches!(self.access, Access::Azure(_));
        let (mut found, mut next) = (Vec::new(), None::<String>);
        loop {
            let mut query = match is_azure {
                true => vec![("comp", "list"), ("restype", "container")],
                false => vec![("list-type", "2")],
            };
            query.extend([("delimiter", "/"), ("prefix", prefix)]);
            if let Some(next) = &next {
                query.push((if is_azure { "marker" } else { "continuation-token" }, next));
            }
            let ask = || self.request("", &query, Vec::new());
            let text = document(&self.address(), &ask, |refusal| self.learn(refusal), LIST)?;
            let text = String::from_utf8_lossy(&text);
            let (names, more) = if is_azure { azure::listed(&text) } else { amazon::listed(&text) };
            found.extend(names.into_iter().filter(|name| is_plain(name.trim_end_matches('/'))));
            match more {
                Some(more) if found.len() < MOST && next.as_ref() != Some(&more) => {
                    next = Some(more);
                }
                _ => return Ok(found),
            }
        }
    }
}

/// The texts between marks, each as it is meant.
fn all_between(text: &str, from: &str, to: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(text) = between(rest, from, to) {
        found.push(unescaped(text));
        rest = rest.split_once(from).map_or("", |(_, rest)| rest);
    }
    found
}

/// The text of XML as it is meant.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A time in UTC, in seconds since 1970: year, month, day, and the seconds of the day.
fn civil(seconds: u64) -> (u64, u64, u64, u64) {
    // Counted in eras of 400 years that begin in March, so that the leap day is the last.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day, seconds % 86_400)
}

/// The first of some variables that is set.
fn first_of(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| variable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // As Python's datetime has them.
        for (seconds, expected) in [
            (0, (1970, 1, 1, 0)),
            (951_782_399, (2000, 2, 28, 86_399)),
            (951_782_400, (2000, 2, 29, 0)),
            (1_369_353_600, (2013, 5, 24, 0)),
            (4_102_444_799, (2099, 12, 31, 86_399)),
        ] {
            assert_eq!(civil(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn texts_of_xml_are_as_they_are_meant() {
        let text = "<a><Key>x/&amp;lt;y</Key><Key>z</Key></a>";
        assert_eq!(all_between(text, "<Key>", "</Key>"), ["x/&lt;y", "z"]);
    }
}
