//! Plain addresses. What of an address is secret, user and password or a signature, is taken out of
//! it at the start, so that no message and no record can hold it.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::http::{Request, same_host};
use super::hub;
use crate::store::quote::unquoted;

/// What was taken out of an address.
#[derive(Clone, Default)]
struct Secret {
    /// `user:password`
    user: Option<String>,
    /// What stands behind `?`.
    query: Option<String>,
}

/// By the address without it.
static SECRETS: LazyLock<Mutex<HashMap<String, Secret>>> = LazyLock::new(Mutex::default);

/// An address that everybody may see.
pub(in crate::store) fn public(address: &str) -> String {
    let (text, query) = match address.split_once('?') {
        Some((text, query)) => (text, Some(query.to_owned())),
        None => (address, None),
    };
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = match host.rsplit_once('@') {
        Some((user, host)) => (Some(unquoted(user)), host),
        None => (None, host),
    };
    let public = format!("{scheme}://{host}{path}");
    if user.is_some() || query.is_some() {
        let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(public.clone(), Secret { user, query });
    }
    public
}

/// A request for an address, with what was taken out of it. What lies beside it is asked for with
/// the same name and password.
pub(super) fn request(url: &str) -> Request {
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    let own = secrets.get(url).cloned().unwrap_or_default();
    let beside = || {
        let folder = |url: &str| url.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let here = folder(url)?;
        let near = secrets
            .iter()
            .filter(|(other, _)| folder(other).is_some_and(|other| here.starts_with(&other)));
        near.filter_map(|(_, secret)| secret.user.clone()).min()
    };
    let mut request = Request::new(match &own.query {
        Some(query) => format!("{url}?{query}"),
        None => url.to_owned(),
    });
    if let Some(user) = own.user.or_else(beside) {
        let text = format!("Basic {}", STANDARD.encode(user));
        request = request.secret("Authorization", text);
    } else if same_host(url, &hub::endpoint()) {
        request = hub::with_token(request);
    }
    request
}
