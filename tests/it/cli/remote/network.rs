//! What lies between: servers that speak TLS, and proxies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hub::Hub;
use super::relays::{Authority, Proxy};
use super::*;

/// A year that doesn't come soon.
const LATER: i32 = 2999;

/// A checkpoint that is so small that the hub doesn't send one on to its storage.
fn small() -> (Sandbox, Hub) {
    let sandbox = Sandbox::new();
    let tensors = [("a".to_owned(), tensor("a", &[4, 4]))].into();
    sandbox.checkpoint("hub/org/m/model.safetensors", &tensors);
    std::fs::create_dir(sandbox.path("made")).unwrap();
    let hub = Hub::new(sandbox.path("hub"));
    (sandbox, hub)
}

/// Where a hub listens, without a scheme.
fn place(hub: &Hub) -> &str {
    hub.endpoint.strip_prefix("http://").unwrap()
}

/// Asks for all of a small checkpoint with variables; gives what came of it.
fn applied(sandbox: &Sandbox, hub: &Hub, endpoint: &str, variables: &[(&str, &str)]) -> Ran {
    let arguments = ["apply", "hf://org/m", "-o", "made/out"];
    let mut command = command(sandbox, hub, &arguments);
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", endpoint).envs(variables.iter().copied());
    let ran = ran(&mut command);
    let is_there = sandbox.path("made/out").exists();
    assert_eq!(is_there, ran.code == 0, "{}", ran.err);
    if is_there {
        assert!(sandbox.tensors("made/out") == sandbox.tensors("hub/org/m"));
        std::fs::remove_dir_all(sandbox.path("made/out")).unwrap();
    }
    ran
}

#[test]
fn a_server_is_trusted_by_an_authority_that_is_named() {
    let (sandbox, hub) = small();
    let authority = Authority::new();
    sandbox.write("ca.pem", authority.pem());
    sandbox.write("other.pem", Authority::new().pem());
    sandbox.write("empty.pem", "no certificate");
    let path = |name: &str| sandbox.path(name).to_str().unwrap().to_owned();
    let at = |port: u16| format!("https://localhost:{port}");
    let good = at(authority.before(place(&hub), "localhost", LATER));
    let made = applied(&sandbox, &hub, &good, &[("SSL_CERT_FILE", &path("ca.pem"))]);
    assert_eq!(made.code, 0, "{}", made.err);
    hub.clear();
    let old = at(authority.before(place(&hub), "localhost", 2001));
    let elsewhere = at(authority.before(place(&hub), "elsewhere.test", LATER));
    for (endpoint, file, said) in [
        (&good, None, "isn't trusted"),
        (&good, Some("other.pem"), "isn't trusted"),
        (&old, Some("ca.pem"), "isn't trusted"),
        (&elsewhere, Some("ca.pem"), "isn't trusted"),
        (&good, Some("empty.pem"), "there is no certificate"),
        (&good, Some("nothing.pem"), "can't be used"),
    ] {
        let file = file.map(path);
        let variables: Vec<_> = file.iter().map(|file| ("SSL_CERT_FILE", file.as_str())).collect();
        let ran = applied(&sandbox, &hub, endpoint, &variables);
        assert!(ran.code == 3 && ran.err.contains(said), "{endpoint} {file:?}: {}", ran.err);
        assert!(ran.err.contains("SSL_CERT_FILE"), "{}", ran.err);
    }
    assert!(hub.log().is_empty(), "nothing was asked of whoever isn't trusted");
}

#[test]
fn no_redirect_leads_out_of_tls() {
    let sandbox = sandbox();
    let hub = Hub::new(sandbox.path("hub"));
    let authority = Authority::new();
    sandbox.write("ca.pem", authority.pem());
    let port = authority.before(place(&hub), "localhost", LATER);
    let endpoint = format!("https://localhost:{port}");
    let mut command = command(&sandbox, &hub, &["plan", "hf://org/m"]);
    command.env("HF_ENDPOINT", endpoint).env("SSL_CERT_FILE", sandbox.path("ca.pem"));
    let ran = ran(&mut command);
    assert!(ran.code == 3 && ran.err.contains("without TLS"), "{}", ran.err);
    assert!(hub.log().iter().all(|seen| !seen.storage));
}

#[test]
fn a_proxy_is_asked_for_what_it_is_named_for() {
    let (sandbox, hub) = small();
    let (proxy, other) = (Proxy::new(true), Proxy::new(false));
    let at = |proxy: &Proxy| format!("http://127.0.0.1:{}", proxy.port);
    let (good, bad) = (at(&proxy), at(&other));
    let authority = Authority::new();
    sandbox.write("ca.pem", authority.pem());
    let ca = sandbox.path("ca.pem").to_str().unwrap().to_owned();
    let port = authority.before(place(&hub), "localhost", LATER);
    let (plain, tls) = (hub.endpoint.as_str(), format!("https://localhost:{port}"));
    for (endpoint, variables, by_proxy) in [
        (plain, &[("HTTP_PROXY", &*good), ("HTTPS_PROXY", &bad)][..], true),
        (plain, &[("http_proxy", &good), ("HTTP_PROXY", &bad)], true),
        (plain, &[("ALL_PROXY", &good)], true),
        (plain, &[("HTTPS_PROXY", &bad)], false),
        (plain, &[("HTTP_PROXY", &bad), ("NO_PROXY", "a.b, 127.0.0.1")], false),
        (plain, &[("ALL_PROXY", &bad), ("no_proxy", "*")], false),
        (&tls, &[("HTTPS_PROXY", &good), ("HTTP_PROXY", &bad), ("SSL_CERT_FILE", &ca)], true),
        (&tls, &[("HTTP_PROXY", &bad), ("SSL_CERT_FILE", &ca)], false),
    ] {
        let before = proxy.log().len();
        let made = applied(&sandbox, &hub, endpoint, variables);
        assert_eq!(made.code, 0, "{variables:?}: {}", made.err);
        let log = proxy.log().split_off(before);
        let host = endpoint.split("://").nth(1).unwrap();
        assert_eq!(!log.is_empty(), by_proxy, "{variables:?}");
        assert!(log.iter().all(|(to, _)| to == host), "{log:?}");
    }
    assert!(other.log().is_empty(), "{:?}", other.log());
}

#[test]
fn a_proxy_that_cannot_be_used_is_not_passed_over() {
    let (sandbox, hub) = small();
    let proxy = Proxy::new(true);
    let password = "pAsSwOrDoFaPrOxY";
    let at = |proxy: &Proxy| format!("http://who:{password}@127.0.0.1:{}", proxy.port);
    let made = applied(&sandbox, &hub, &hub.endpoint, &[("HTTP_PROXY", &at(&proxy))]);
    assert_eq!(made.code, 0, "{}", made.err);
    let expected = format!("Basic {}", STANDARD.encode(format!("who:{password}")));
    assert!(proxy.log().iter().all(|(_, who)| who.as_ref() == Some(&expected)));
    assert!(hub.log().iter().all(|seen| seen.authorization.is_none()), "it isn't the hub's");
    hub.clear();
    let closed = Proxy::new(false);
    for (name, value, said) in [
        ("HTTP_PROXY", at(&closed), "the proxy can't be used"),
        ("ALL_PROXY", format!("socks5://who:{password}@127.0.0.1:1"), "that ALL_PROXY names"),
        ("HTTP_PROXY", format!("gopher://who:{password}@127.0.0.1:1"), "that HTTP_PROXY names"),
    ] {
        let ran = applied(&sandbox, &hub, &hub.endpoint, &[(name, &value)]);
        assert!(ran.code == 3 && ran.err.contains(said), "{value}: {}", ran.err);
        assert!(!ran.err.contains(password), "{}", ran.err);
    }
    assert!(hub.log().is_empty(), "nothing was asked past it");
}
