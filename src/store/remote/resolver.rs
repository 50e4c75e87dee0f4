//! [`Remembering`]: where servers are, looked up once in a while.
//!
//! ureq looks a server up for each request, where a connection is used again too: a request to the
//! server of names each time, and a thread that waits for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long what was looked up is believed: no longer than a failing request is tried again, so
/// that a server that moves is found.
const BELIEVED: Duration = Duration::from_secs(3);

/// Asks another one, and remembers what it said.
#[derive(Debug)]
pub(super) struct Remembering<R> {
    resolver: R,
    believed: Duration,
    /// By host and port: when it was asked, and what it said.
    known: Mutex<HashMap<String, (Instant, ResolvedSocketAddrs)>>,
}

impl Default for Remembering<DefaultResolver> {
    fn default() -> Self {
        Self::new(DefaultResolver::default(), BELIEVED)
    }
}

impl<R> Remembering<R> {
    fn new(resolver: R, believed: Duration) -> Self {
        Self { resolver, believed, known: Mutex::default() }
    }
}

impl<R: Resolver> Resolver for Remembering<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri
            .scheme()
            .zip(uri.authority())
            .and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let Some(name) = name else { return self.resolver.resolve(uri, config, timeout) };
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, said)) = known().get(&name)
            && asked.elapsed() < self.believed
        {
            return Ok(said.clone());
        }
        // Nobody waits for another one's server.
        let said = self.resolver.resolve(uri, config, timeout)?;
        known().insert(name, (Instant::now(), said.clone()));
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use ureq::{Agent, Timeout};

    use super::*;

    /// Says another port each time; knows no server that is called so.
    #[derive(Debug, Default)]
    struct Counting(Arc<AtomicU16>);

    impl Resolver for Counting {
        fn resolve(
            &self,
            uri: &Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            let port = self.0.fetch_add(1, Ordering::Relaxed);
            if uri.host() == Some("unknown") {
                return Err(Error::HostNotFound);
            }
            let mut said = self.empty();
            said.push(SocketAddr::from(([127, 0, 0, 1], port)));
            Ok(said)
        }
    }

    fn ask(resolver: &impl Resolver, url: &str) -> Option<u16> {
        let timeout = NextTimeout {
            after: Duration::from_secs(1).into(),
            reason: Timeout::Resolve,
            per_read: None,
            per_write: None,
        };
        let config = Agent::config_builder().build();
        let said = resolver.resolve(&url.parse().unwrap(), &config, timeout).ok()?;
        Some(said[0].port())
    }

    #[test]
    fn a_server_is_looked_up_once_by_host_and_port() {
        let resolver = Remembering::new(Counting::default(), Duration::from_secs(3600));
        assert_eq!(ask(&resolver, "https://a/b"), Some(0));
        assert_eq!(ask(&resolver, "https://a:443/c?d"), Some(0));
        assert_eq!(ask(&resolver, "http://a/b"), Some(1));
        assert_eq!(ask(&resolver, "https://b/b"), Some(2));
        assert_eq!(ask(&resolver, "https://a/e"), Some(0));
    }

    #[test]
    fn what_is_old_or_failed_is_looked_up_again() {
        let asked = Arc::default();
        let resolver = Remembering::new(Counting(Arc::clone(&asked)), Duration::ZERO);
        assert_eq!(ask(&resolver, "https://a/b"), Some(0));
        assert_eq!(ask(&resolver, "https://a/b"), Some(1));
        let resolver = Remembering::new(Counting(Arc::clone(&asked)), Duration::from_secs(3600));
        assert_eq!(ask(&resolver, "https://unknown/b"), None);
        assert_eq!(ask(&resolver, "https://unknown/b"), None);
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}
