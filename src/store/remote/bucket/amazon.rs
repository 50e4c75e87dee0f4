//! S3: the environment and profiles of the AWS command line, and its signature, version 4.
//!
//! Source: "Authenticating Requests: Using the Authorization Header" of the Amazon S3 API Reference.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ring::{digest, hmac};

use super::super::http::{Request, between};
use super::{all_between, civil, first_of, variable};
use crate::error::{Error, ErrorKind, Result};
use crate::store::quote::quoted;

/// Keys, region and endpoint.
pub(super) struct Access {
    /// `None`: requests aren't signed, which public buckets allow.
    keys: Option<Keys>,
    region: String,
    /// Of another server than Amazon's.
    endpoint: Option<String>,
}

struct Keys {
    id: String,
    secret: String,
    session: Option<String>,
}

impl Access {
    /// What the environment says, else the profile.
    ///
    /// # Errors
    /// If a profile is named and has no keys.
    pub(super) fn of_environment() -> Result<Self> {
        let name = first_of(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
        let profile = profile(name.as_deref().unwrap_or("default"));
        let of = |name: &str| profile.get(name).cloned();
        let keys = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => {
                Some(Keys { id, secret, session: variable("AWS_SESSION_TOKEN") })
            }
            _ => match (of("aws_access_key_id"), of("aws_secret_access_key")) {
                (Some(id), Some(secret)) => {
                    Some(Keys { id, secret, session: of("aws_session_token") })
                }
                _ => None,
            },
        };
        if let (Some(name), None) = (&name, &keys) {
            let what = format!("the AWS profile {name:?} has no keys");
            return Err(Error::new(ErrorKind::Denied, what).hint("a profile that signs in elsewhere (SSO, roles) gives its keys by `aws configure export-credentials --format env`"));
        }
        let region = first_of(&["AWS_REGION", "AWS_DEFAULT_REGION"]).or_else(|| of("region"));
        let endpoint = first_of(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let endpoint = endpoint.or_else(|| of("endpoint_url"));
        Ok(Self {
            keys,
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            endpoint: endpoint.map(|text| text.trim_end_matches('/').to_owned()),
        })
    }

    /// Where it is, for the cache.
    pub(super) fn name(&self) -> String {
        self.endpoint.clone().unwrap_or_default()
    }

    /// A request for an object, or for a bucket where the key is empty.
    pub(super) fn request(
        &self,
        (bucket, key): (&str, &str),
        query: &[(&str, &str)],
        headers: Vec<(&'static str, String)>,
        region: Option<&str>,
        now: u64,
    ) -> Request {
        let region = region.unwrap_or(&self.region);
        let end = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let key = quoted(key, true);
        let (base, path) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), format!("/{bucket}/{key}")),
            // A certificate for all buckets has no names with more dots.
            None if bucket.contains('.') => {
                (format!("https://s3.{region}.{end}"), format!("/{bucket}/{key}"))
            }
            None => (format!("https://{bucket}.s3.{region}.{end}"), format!("/{key}")),
        };
        let query = canonical_query(query);
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = Request::new(format!("{base}{path}{mark}{query}"));
        request.headers = headers;
        let Some(keys) = &self.keys else { return request };
        let (_, host) = base.split_once("://").unwrap_or_default();
        // A server under a path of its host signs that path, too.
        let (host, before) = host.split_at(host.find('/').unwrap_or(host.len()));
        let time = time(now);
        let mut signed = vec![
            ("host", host.to_owned()),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD".to_owned()),
            ("x-amz-date", time.clone()),
        ];
        if let Some(session) = &keys.session {
            signed.push(("x-amz-security-token", session.clone()));
        }
        let path = format!("{before}{path}");
        let authorization = sign(keys, region, &time, (&path, &query), &signed);
        request.secrets = signed.into_iter().filter(|(name, _)| *name != "host").collect();
        request.secret("Authorization", authorization)
    }
}

/// The value of `Authorization`. Headers are in order, and one of them is the hash of the body.
fn sign(
    keys: &Keys,
    region: &str,
    time: &str,
    (path, query): (&str, &str),
    headers: &[(&str, String)],
) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let body = headers.iter().find(|(name, _)| *name == "x-amz-content-sha256");
    let body = body.map_or("UNSIGNED-PAYLOAD", |(_, value)| value);
    let canonical = format!("GET\n{path}\n{query}\n{lines}\n{names}\n{body}");
    let day = time.get(..8).unwrap_or_default();
    let scope = format!("{day}/{region}/s3/aws4_request");
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
    let with = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
    };
    let key = with(format!("AWS4{}", keys.secret).as_bytes(), day);
    let key = [region, "s3", "aws4_request"].iter().fold(key, |key, text| with(key.as_ref(), text));
    let signature = hex(with(key.as_ref(), &text).as_ref());
    let id = &keys.id;
    format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
}

fn time(now: u64) -> String {
    let (year, month, day, rest) = civil(now);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A query with its fields in order, quoted.
pub(super) fn canonical_query(query: &[(&str, &str)]) -> String {
    let mut fields: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{}={}", quoted(name, false), quoted(value, false)))
        .collect();
    fields.sort();
    fields.join("&")
}

/// Objects and folders of an answer, and where to go on.
pub(super) fn listed(text: &str) -> (Vec<String>, Option<String>) {
    let mut names = all_between(text, "<Key>", "</Key>");
    for folder in all_between(text, "<CommonPrefixes>", "</CommonPrefixes>") {
        names.extend(all_between(&folder, "<Prefix>", "</Prefix>"));
    }
    let next = between(text, "<NextContinuationToken>", "</NextContinuationToken>");
    (names, next.map(super::unescaped))
}

/// The fields of a profile, of both files.
fn profile(name: &str) -> BTreeMap<String, String> {
    let home = std::env::home_dir().map(|home| home.join(".aws"));
    let file = |variable: &str, usual: &str| {
        let given = std::env::var_os(variable).map(PathBuf::from);
        let text = given.or_else(|| Some(home.as_ref()?.join(usual)));
        text.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    };
    let mut fields = section(&file("AWS_CONFIG_FILE", "config"), &format!("profile {name}"));
    if name == "default" {
        fields.extend(section(&file("AWS_CONFIG_FILE", "config"), name));
    }
    fields.extend(section(&file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), name));
    fields
}

/// The fields of a section; nested ones, which are indented, are none.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut is_here = false;
    let mut fields = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t', '#', ';'])) {
        if let Some(title) = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_here = title.split_whitespace().eq(name.split_whitespace());
        } else if is_here && let Some((field, value)) = line.split_once('=') {
            fields.insert(field.trim().to_owned(), value.trim().to_owned());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "GET Object" of the reference.
    #[test]
    fn a_signature_is_that_of_the_reference() {
        let keys = Keys {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session: None,
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com".to_owned()),
            ("range", "bytes=0-9".to_owned()),
            ("x-amz-content-sha256", empty.to_owned()),
            ("x-amz-date", time(1_369_353_600)),
        ];
        let signed = sign(&keys, "us-east-1", &time(1_369_353_600), ("/test.txt", ""), &headers);
        assert!(
            signed.ends_with(
                "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
            ),
            "{signed}"
        );
    }

    #[test]
    fn a_profile_is_a_section() {
        let text =
            "[default]\nregion = a\n[profile  x]\nregion=b\ns3 =\n  max = 3\n# c\nkey = d=e\n";
        let found = section(text, "profile x");
        let expected = [("region", "b"), ("s3", ""), ("key", "d=e")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn a_listing_has_objects_folders_and_a_way_on() {
        let text = "<R><Contents><Key>a/b</Key></Contents><CommonPrefixes><Prefix>a/c/</Prefix></CommonPrefixes><Prefix>a/</Prefix><NextContinuationToken>x&amp;y</NextContinuationToken></R>";
        let expected = (vec!["a/b".to_owned(), "a/c/".to_owned()], Some("x&y".to_owned()));
        assert_eq!(listed(text), expected);
    }
}
