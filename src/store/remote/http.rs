//! Requests: connections that are used again, redirects, and what an answer means.
//!
//! Redirects are followed by hand: what proves who asks goes to the host that was asked and to no
//! other, and where a redirect led is known, so that the next range of a file needs none. No
//! message holds an address that was given by a server, since such addresses are signed.

use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use ureq::http::{Response, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector};
use ureq::{Agent, Body, Proxy};

use super::proxy::Proxies;
use super::resolver::Remembering;
use super::socket::Sockets;
use crate::error::{Error, ErrorKind};

/// How many redirects are followed.
const REDIRECTS: usize = 10;

/// How long a server may take to be reached.
const CONNECT: Duration = Duration::from_secs(20);

/// How long a server may be silent, unless the environment says otherwise.
const SILENCE: Duration = Duration::from_secs(60);

/// The variable that says so, in seconds.
const TIMEOUT: &str = "REGRAFT_TIMEOUT";

/// Connections that are kept for the next request.
const IDLE: usize = 64;

/// Bytes that a connection reads at once.
const BUFFER: usize = 256 << 10;

/// What is asked of a server.
#[derive(Clone, Default)]
pub(super) struct Request {
    pub(super) url: String,
    /// What everybody may see.
    pub(super) headers: Vec<(&'static str, String)>,
    /// What no other host may see.
    pub(super) secrets: Vec<(&'static str, String)>,
}

impl Request {
    /// For an address, without anything else.
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// With a header.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a header that proves who asks.
    pub(super) fn secret(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.secrets.push((name, value.into()));
        self
    }
}

/// Why there is no answer that can be used.
pub(super) enum Trouble {
    /// It may go away: the request can be made again, not before so long.
    Passing(Error, Option<Duration>),
    /// It stays.
    Lasting(Error),
    /// The server has answered so; what it means is for those to say who asked.
    Status(Refusal),
}

/// An answer that refuses.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// A word that the server gave, as `GatedRepo` or `NoSuchKey`.
    pub(super) code: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// The region that a bucket lies in, if the server says it.
    pub(super) region: Option<String>,
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// Where redirects led, if there were any.
    pub(super) location: Option<String>,
    /// What the first server said of the file's content before it redirected.
    pub(super) linked: Option<String>,
}

/// The connections of this process, by its number: a forked one must not use those of its parent.
static AGENTS: LazyLock<RwLock<(u32, Arc<Agents>)>> = LazyLock::new(|| RwLock::new(fresh()));

/// What the environment says, which is read once.
static SETTINGS: LazyLock<Result<Settings, Unusable>> = LazyLock::new(Settings::of_environment);

/// How servers are asked.
struct Settings {
    proxies: Proxies,
    roots: RootCerts,
}

/// Connections: those that go by no proxy, and others by how the server's address begins.
struct Agents {
    direct: Agent,
    http: Agent,
    https: Agent,
}

/// What is wrong with what the environment says, and what to do.
struct Unusable(String, &'static str);

impl Settings {
    fn of_environment() -> Result<Self, Unusable> {
        let proxies = Proxies::of_environment().map_err(|name| {
            let what = format!("the proxy that {name} names can't be used");
            Unusable(what, "write http://host:port or https://host:port; SOCKS isn't known here")
        })?;
        Ok(Self { proxies, roots: roots()? })
    }
}

impl Agents {
    /// The connections by which an address is asked.
    ///
    /// # Errors
    /// If what the environment says of proxies or authorities can't be used.
    fn by(&self, url: &str) -> Result<&Agent, Trouble> {
        let settings = SETTINGS.as_ref().map_err(|Unusable(what, hint)| {
            Trouble::Lasting(Error::new(ErrorKind::Io, what.clone()).hint(*hint))
        })?;
        Ok(match url.parse::<Uri>() {
            Ok(uri) if settings.proxies.spares(&uri) => &self.direct,
            _ if is_tls(url) => &self.https,
            _ => &self.http,
        })
    }
}

fn fresh() -> (u32, Arc<Agents>) {
    let (http, https) = match &*SETTINGS {
        Ok(Settings { proxies, .. }) => (proxies.http.clone(), proxies.https.clone()),
        Err(_) => (None, None),
    };
    let agents = Agents { direct: agent(None), http: agent(http), https: agent(https) };
    (std::process::id(), Arc::new(agents))
}

fn current() -> Arc<Agents> {
    let of_now = AGENTS.read().unwrap_or_else(PoisonError::into_inner).clone();
    if of_now.0 == std::process::id() {
        return of_now.1;
    }
    let mut current = AGENTS.write().unwrap_or_else(PoisonError::into_inner);
    *current = fresh();
    Arc::clone(&current.1)
}

fn agent(proxy: Option<Proxy>) -> Agent {
    let silence = std::env::var(TIMEOUT).ok().and_then(|text| text.parse().ok());
    let silence = silence
        .map_or(SILENCE, |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(SILENCE));
    let roots = SETTINGS.as_ref().map_or(RootCerts::WebPki, |settings| settings.roots.clone());
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("regraft/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .proxy(proxy)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT.min(silence)))
        .timeout_recv_response(Some(silence))
        .timeout_per_read(Some(silence))
        .max_idle_connections(2 * IDLE)
        .max_idle_connections_per_host(IDLE)
        .input_buffer_size(BUFFER)
        .output_buffer_size(16 << 10)
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    let connector =
        ().chain(ConnectProxyConnector::default()).chain(Sockets).chain(RustlsConnector::default());
    Agent::with_parts(config.build(), connector, Remembering::default())
}

/// The authorities that are trusted: those of a file, where the environment names one, as others
/// read it, or those that browsers trust.
///
/// # Errors
/// If the file can't be read, or has no certificate.
fn roots() -> Result<RootCerts, Unusable> {
    let named = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
        .iter()
        .find_map(|name| Some((name, std::env::var_os(name).filter(|value| !value.is_empty())?)));
    let Some((name, file)) = named else { return Ok(RootCerts::WebPki) };
    let unusable = |why: &str| {
        let file = file.to_string_lossy();
        let what = format!("the authorities of {name} can't be used: {file:?}: {why}");
        Unusable(what, "it names a file with certificates as PEM, one after the other")
    };
    let pem = std::fs::read(&file).map_err(|error| unusable(&error.to_string()))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(unusable("there is no certificate in it"));
    }
    Ok(RootCerts::new_with_certs(&found))
}

/// Ends every read that waits in this process. Whoever isn't meant begins again.
pub(super) fn interrupt() {
    let mut current = AGENTS.write().unwrap_or_else(PoisonError::into_inner);
    let (_, before) = std::mem::replace(&mut *current, fresh());
    [&before.direct, &before.http, &before.https]
        .into_iter()
        .for_each(|agent| agent.clone().shutdown());
}

/// Makes a request, and follows redirects.
///
/// # Errors
/// If there is no answer, or one that isn't of the 200s, but for 304.
pub(super) fn ask(request: &Request) -> Result<Answer, Trouble> {
    let agents = current();
    let mut request = request.clone();
    let first = request.url.clone();
    let (mut location, mut linked) = (None, None);
    for _ in 0..=REDIRECTS {
        let mut call = agents.by(&request.url)?.get(&request.url);
        for (name, value) in request.headers.iter().chain(&request.secrets) {
            call = call.header(*name, value);
        }
        let response = call.call().map_err(|error| trouble(&error))?;
        let status = response.status().as_u16();
        match status {
            200..=299 | 304 => return Ok(Answer { response, location, linked }),
            301 | 302 | 303 | 307 | 308 => {
                let to = text_of(&response, header::LOCATION.as_str());
                // A bucket in another region answers so, without saying where to.
                let Some(to) = to else {
                    return Err(Trouble::Status(refusal(response)));
                };
                linked = linked.or_else(|| tag_of(&response, "x-linked-etag"));
                let next = resolved(&request.url, &to)
                    .ok_or_else(|| lasting("the server redirects to what is no address"))?;
                if is_tls(&request.url) && !is_tls(&next) {
                    return Err(lasting("the server redirects to a connection without TLS"));
                }
                if !same_host(&request.url, &next) {
                    request.secrets.clear();
                }
                request.url = next;
                location = (request.url != first).then(|| request.url.clone());
            }
            _ => return Err(Trouble::Status(refusal(response))),
        }
    }
    Err(lasting(&format!("the server redirects more than {REDIRECTS} times")))
}

/// Posts a form; gives the answer, if it is one of the 200s.
///
/// # Errors
/// If there is none.
pub(super) fn post(url: &str, form: &[(&'static str, String)]) -> Result<Vec<u8>, Trouble> {
    let fields = form.iter().map(|(name, value)| (*name, value.as_str()));
    let sent = current().by(url)?.post(url).send_form(fields);
    let mut response = sent.map_err(|error| trouble(&error))?;
    if !response.status().is_success() {
        return Err(Trouble::Status(refusal(response)));
    }
    response.body_mut().read_to_vec().map_err(|error| trouble(&error))
}

fn lasting(what: &str) -> Trouble {
    Trouble::Lasting(Error::new(ErrorKind::Io, what))
}

/// What to do where no host is found.
const LOST: &str =
    "is the machine connected, and the address right? A proxy is named by HTTPS_PROXY";

/// What became of a connection, in words without addresses.
fn trouble(error: &ureq::Error) -> Trouble {
    let new = |what: String| Error::new(ErrorKind::Io, what);
    let passing = |what: String| Trouble::Passing(new(what), None);
    match error {
        ureq::Error::Timeout(_) => passing("the server didn't answer in time".to_owned()),
        ureq::Error::HostNotFound => Trouble::Lasting(new("no such host".to_owned()).hint(LOST)),
        // What the standard library says when names can't be looked up has no kind.
        ureq::Error::Io(error) if error.to_string().starts_with("failed to lookup") => {
            Trouble::Passing(new("the host can't be looked up".to_owned()).hint(LOST), None)
        }
        ureq::Error::ConnectionFailed => passing("the server can't be reached".to_owned()),
        ureq::Error::Io(error) => match error.kind() {
            std::io::ErrorKind::InvalidData => not_trusted(&error.to_string()),
            kind => passing(format!("the connection failed: {kind}")),
        },
        ureq::Error::Rustls(error) => not_trusted(&error.to_string()),
        ureq::Error::Tls(why) => not_trusted(why),
        ureq::Error::Protocol(_) => passing("the answer isn't HTTP".to_owned()),
        ureq::Error::InvalidProxyUrl | ureq::Error::ConnectProxyFailed(_) => Trouble::Lasting(
            new("the proxy can't be used".to_owned())
                .hint("look at HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"),
        ),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Trouble::Lasting(new("this is no address that can be asked".to_owned()))
        }
        ureq::Error::LargeResponseHeader(..) => lasting("the answer's header is too long"),
        _ => passing("the request failed".to_owned()),
    }
}

fn not_trusted(why: &str) -> Trouble {
    let error = Error::new(ErrorKind::Io, format!("the server isn't trusted: {why}"));
    Trouble::Lasting(error.hint(
        "SSL_CERT_FILE names a file with the authorities to trust, as of a proxy that reads along",
    ))
}

fn refusal(mut response: Response<Body>) -> Refusal {
    let code = text_of(&response, "x-error-code").or_else(|| text_of(&response, "x-ms-error-code"));
    let region = text_of(&response, "x-amz-bucket-region");
    let after = text_of(&response, header::RETRY_AFTER.as_str());
    let retry_after = after.and_then(|after| after.trim().parse().ok()).map(Duration::from_secs);
    let status = response.status().as_u16();
    let code = code.or_else(|| {
        let text = response.body_mut().with_config().limit(16 << 10).read_to_string().ok()?;
        Some(between(&text, "<Code>", "</Code>")?.to_owned())
    });
    let is_word =
        |code: &String| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    Refusal { status, code: code.filter(is_word), retry_after, region }
}

/// What stands between two marks in a text.
pub(super) fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(found, _)| found)
}

/// A header of an answer.
pub(super) fn text_of(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// A header that names the content of a file.
pub(super) fn tag_of(response: &Response<Body>, name: &str) -> Option<String> {
    let text = text_of(response, name)?;
    Some(text.trim().trim_start_matches("W/").trim_matches('"').to_owned())
}

fn is_tls(url: &str) -> bool {
    url.starts_with("https://")
}

/// Whether two addresses are of one server.
pub(super) fn same_host(a: &str, b: &str) -> bool {
    let host = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_owned();
        let usual = if scheme == "https" { 443 } else { 80 };
        Some((scheme, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(usual)))
    };
    host(a).is_some_and(|a| Some(a) == host(b))
}

/// Where a redirect of an address leads.
fn resolved(from: &str, to: &str) -> Option<String> {
    let to = to.split('#').next().unwrap_or_default();
    if to.starts_with("http://") || to.starts_with("https://") {
        return Some(to.to_owned());
    }
    let (scheme, rest) = from.split_once("://")?;
    if let Some(host) = to.strip_prefix("//") {
        return Some(format!("{scheme}://{host}"));
    }
    let host = rest.split(['/', '?']).next()?;
    if to.starts_with('/') {
        return Some(format!("{scheme}://{host}{to}"));
    }
    if to.contains("://") || to.is_empty() {
        return None;
    }
    let path = rest.split('?').next()?;
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    Some(format!("{scheme}://{folder}/{to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_as_links_are() {
        let from = "https://a.b/c/d?e=f/g";
        for (to, expected) in [
            ("https://x/y", Some("https://x/y")),
            ("//x/y", Some("https://x/y")),
            ("/y?z", Some("https://a.b/y?z")),
            ("y", Some("https://a.b/c/y")),
            ("ftp://x/y", None),
            ("", None),
        ] {
            assert_eq!(resolved(from, to).as_deref(), expected, "{to}");
        }
    }

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        assert!(same_host("https://A.b/c", "https://a.b:443/d?e"));
        for (a, b) in [
            ("https://a.b/", "http://a.b/"),
            ("https://a.b/", "https://a.b:444/"),
            ("https://a.b/", "https://a.b.c/"),
            ("x", "x"),
        ] {
            assert!(!same_host(a, b), "{a} {b}");
        }
    }
}
