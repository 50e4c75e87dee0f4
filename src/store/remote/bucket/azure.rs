//! Azure Blob Storage: a shared access signature or the key of an account, as the environment of the
//! Azure command line has them.
//!
//! Source: "Authorize with Shared Key" of the Azure Storage REST API.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::super::http::{Request, between};
use super::amazon::canonical_query;
use super::{all_between, civil, first_of, variable};
use crate::error::{Error, ErrorKind, Result};
use crate::store::quote::quoted;

/// The version of the interface that is spoken.
const VERSION: &str = "2023-11-03";

/// An account, and how it is entered.
pub(super) struct Access {
    account: String,
    endpoint: String,
    way: Way,
}

enum Way {
    /// Public containers allow it.
    Anonymous,
    /// A signature that goes with each address.
    Signature(String),
    Key(Vec<u8>),
}

impl Access {
    /// What the environment says.
    ///
    /// # Errors
    /// If it names no account, or its key is none.
    pub(super) fn of_environment() -> Result<Self> {
        let string = variable("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
        let string: BTreeMap<&str, &str> =
            string.split(';').filter_map(|field| field.split_once('=')).collect();
        let of = |names: &[&str], field: &str| {
            first_of(names).or_else(|| string.get(field).map(|text| (*text).to_owned()))
        };
        let account = of(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"], "AccountName");
        let account = account.ok_or_else(|| {
            let error = Error::new(ErrorKind::Denied, "no storage account of Azure is named");
            error.hint("set AZURE_STORAGE_ACCOUNT_NAME, or AZURE_STORAGE_CONNECTION_STRING")
        })?;
        let signature = ["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"];
        let key = of(&["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"], "AccountKey");
        let way = match (of(&signature, "SharedAccessSignature"), key) {
            (Some(signature), _) => Way::Signature(signature.trim_start_matches('?').to_owned()),
            (None, Some(key)) => Way::Key(STANDARD.decode(key).map_err(|_| {
                Error::new(ErrorKind::Denied, "the key of the storage account isn't base64")
            })?),
            (None, None) => Way::Anonymous,
        };
        let endpoint = of(&["AZURE_STORAGE_BLOB_ENDPOINT"], "BlobEndpoint");
        let endpoint =
            endpoint.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        Ok(Self { account, endpoint: endpoint.trim_end_matches('/').to_owned(), way })
    }

    /// Where it is, for the cache.
    pub(super) fn name(&self) -> String {
        self.endpoint.clone()
    }

    /// A request for an object, or for a container where the key is empty.
    pub(super) fn request(
        &self,
        (container, key): (&str, &str),
        query: &[(&str, &str)],
        headers: Vec<(&'static str, String)>,
        now: u64,
    ) -> Request {
        let path = match key {
            "" => format!("/{container}"),
            key => format!("/{container}/{}", quoted(key, true)),
        };
        let mut fields = canonical_query(query);
        if let Way::Signature(signature) = &self.way {
            fields = [fields.as_str(), signature].join(if fields.is_empty() { "" } else { "&" });
        }
        let mark = if fields.is_empty() { "" } else { "?" };
        let mut request = Request::new(format!("{}{path}{mark}{fields}", self.endpoint));
        request.headers = headers;
        request = request.header("x-ms-version", VERSION);
        let Way::Key(secret) = &self.way else { return request };
        request = request.header("x-ms-date", date(now));
        let (_, host) = self.endpoint.split_once("://").unwrap_or_default();
        let before = host.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"));
        let text = to_sign(&self.account, &format!("{before}{path}"), query, &request.headers);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        request.secret("Authorization", format!("SharedKey {}:{signature}", self.account))
    }
}

/// What is signed.
fn to_sign(
    account: &str,
    path: &str,
    query: &[(&str, &str)],
    headers: &[(&'static str, String)],
) -> String {
    let of = |name: &str| {
        let found = headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    };
    let own: BTreeMap<&str, &String> = headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .map(|(name, value)| (*name, value))
        .collect();
    let own: String = own.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let fields: BTreeMap<&str, &str> = query.iter().copied().collect();
    let fields: String = fields.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
    // Verb; encoding, language, length, MD5, type, date, If-Modified-Since; If-Match;
    // If-None-Match; If-Unmodified-Since; Range.
    format!(
        "GET\n\n\n\n\n\n\n\n\n{}\n\n{}\n{own}/{account}{path}{fields}",
        of("If-None-Match"),
        of("Range")
    )
}

fn date(now: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, rest) = civil(now);
    let at = |number: u64| usize::try_from(number).unwrap_or_default();
    let (of_week, month) = (DAYS[at(now / 86_400 % 7)], MONTHS[at((month + 11) % 12)]);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{of_week}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Objects and folders of an answer, and where to go on.
pub(super) fn listed(text: &str) -> (Vec<String>, Option<String>) {
    let next = between(text, "<NextMarker>", "</NextMarker>").filter(|next| !next.is_empty());
    (all_between(text, "<Name>", "</Name>"), next.map(super::unescaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: Python's `hmac`, `base64` and `email.utils.formatdate`.
    #[test]
    fn a_key_signs_the_range_and_the_resource() {
        let access = Access {
            account: "acc".to_owned(),
            endpoint: "https://acc.blob.core.windows.net".to_owned(),
            way: Way::Key(b"secret key".to_vec()),
        };
        let headers = vec![("Range", "bytes=0-9".to_owned())];
        let request = access.request(("box", "a b/c"), &[], headers, 1_369_353_600);
        assert_eq!(request.url, "https://acc.blob.core.windows.net/box/a%20b/c");
        let date = ("x-ms-date", "Fri, 24 May 2013 00:00:00 GMT".to_owned());
        assert!(request.headers.contains(&date), "{:?}", request.headers);
        let text = "GET\n\n\n\n\n\n\n\n\n\n\nbytes=0-9\nx-ms-date:Fri, 24 May 2013 00:00:00 GMT\nx-ms-version:2023-11-03\n/acc/box/a%20b/c";
        assert_eq!(to_sign("acc", "/box/a%20b/c", &[], &request.headers), text);
        let expected = "SharedKey acc:Vd//aADd6sop5m1MTA2UEdIhUEgdI6KtzKmrwvPybpE=";
        assert_eq!(request.secrets, [("Authorization", expected.to_owned())]);
    }

    #[test]
    fn a_signature_goes_with_the_address() {
        let access = Access {
            account: "acc".to_owned(),
            endpoint: "https://x".to_owned(),
            way: Way::Signature("sv=1&sig=a%2Fb".to_owned()),
        };
        let request = access.request(("box", ""), &[("comp", "list")], Vec::new(), 0);
        assert_eq!(request.url, "https://x/box?comp=list&sv=1&sig=a%2Fb");
        assert!(request.secrets.is_empty());
    }
}
