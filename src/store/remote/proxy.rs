//! Which proxy a server is asked by: that of `HTTPS_PROXY` or `HTTP_PROXY`, as its address begins,
//! else of `ALL_PROXY`, unless `NO_PROXY` names the server. Small letters stand before large ones,
//! as with other tools.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

use super::variable;

/// The proxies that the environment names.
#[derive(Default)]
pub(super) struct Proxies {
    pub(super) http: Option<Proxy>,
    pub(super) https: Option<Proxy>,
    exempt: Vec<String>,
}

impl Proxies {
    /// Those of the environment.
    ///
    /// # Errors
    /// The name of a variable whose proxy can't be used: what was to go by one doesn't go without.
    pub(super) fn of_environment() -> Result<Self, &'static str> {
        let exempt = either("no_proxy", "NO_PROXY").unwrap_or_default();
        let exempt = exempt.split(',').map(|one| one.trim().to_ascii_lowercase());
        Ok(Self {
            http: named("http_proxy", "HTTP_PROXY")?,
            https: named("https_proxy", "HTTPS_PROXY")?,
            exempt: exempt.filter(|one| !one.is_empty()).collect(),
        })
    }

    /// Whether a server is asked without a proxy.
    pub(super) fn spares(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual).to_string();
        self.exempt.iter().any(|entry| match entry.rsplit_once(':') {
            // With a port; more colons are of an address.
            Some((name, of)) if !name.contains(':') => of == port && is_meant(name, &host),
            _ => is_meant(entry, &host),
        })
    }
}

fn either(small: &str, large: &str) -> Option<String> {
    variable(small).or_else(|| variable(large))
}

fn named(small: &str, large: &'static str) -> Result<Option<Proxy>, &'static str> {
    let (url, name) = match (either(small, large), either("all_proxy", "ALL_PROXY")) {
        (Some(url), _) => (url, large),
        (None, Some(url)) => (url, "ALL_PROXY"),
        (None, None) => return Ok(None),
    };
    if url.to_ascii_lowercase().starts_with("socks") {
        return Err(name);
    }
    Proxy::new(&url).map(Some).map_err(|_| name)
}

/// Whether an entry of `NO_PROXY` means a host: `*` any, a domain itself and all below it, a
/// network (`10.0.0.0/8`) the addresses in it.
fn is_meant(entry: &str, host: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some((network, bits)), Ok(address)) = (entry.split_once('/'), host.parse::<IpAddr>()) {
        return is_within(network, bits, address).unwrap_or(false);
    }
    let domain = entry.trim_start_matches('*').trim_start_matches('.').trim_matches(['[', ']']);
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn is_within(network: &str, bits: &str, address: IpAddr) -> Option<bool> {
    let (network, bits): (IpAddr, u32) = (network.parse().ok()?, bits.parse().ok()?);
    let as_bits = |address| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((a, width), (b, other)) = (as_bits(network), as_bits(address));
    let rest = u32::checked_sub(width, bits)?;
    Some(width == other && a.checked_shr(rest) == b.checked_shr(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_spared_as_other_tools_do() {
        for (entry, address, spared) in [
            ("*", "https://a.b/", true),
            ("a.b", "https://a.b/", true),
            ("a.b", "https://c.A.b/", true),
            ("a.b", "https://ca.b/", false),
            (".a.b", "https://c.a.b/", true),
            ("*.a.b", "https://c.a.b/", true),
            ("x, a.b ,y", "https://a.b/", true),
            ("a.b:8000", "http://a.b:8000/", true),
            ("a.b:8000", "http://a.b/", false),
            ("a.b:443", "https://a.b/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("10.0.0.0/8", "http://a.b/", false),
            ("0.0.0.0/0", "http://10.1.2.3/", true),
            ("10.0.0.0/99", "http://10.1.2.3/", false),
            ("::1", "http://[::1]:80/", true),
            ("fd00::/8", "http://[fd00::1]/", true),
            ("fd00::/8", "http://10.0.0.1/", false),
            ("", "https://a.b/", false),
        ] {
            let exempt = entry.split(',').map(|one| one.trim().to_owned());
            let exempt = exempt.filter(|one| !one.is_empty()).collect();
            let proxies = Proxies { exempt, ..Proxies::default() };
            assert_eq!(proxies.spares(&address.parse().unwrap()), spared, "{entry} {address}");
        }
    }
}
