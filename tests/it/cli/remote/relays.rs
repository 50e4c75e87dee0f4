//! What stands between a client and a server: one that speaks TLS for it, and a proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// An authority that nobody knows.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server that speaks TLS, as `name` until some year, and hands on what it hears to another
    /// on this machine. Gives its port.
    pub(super) fn before(&self, server: &str, name: &str, until: i32) -> u16 {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(2000, 1, 1), date_time_ymd(until, 1, 1));
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            );
        let (config, server) = (Arc::new(config.unwrap()), server.to_owned());
        listen(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            hand_on(StreamOwned::new(connection, stream), &server)
        })
    }
}

/// Does what it is told with each connection. Gives its port.
fn listen(serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            // A client that goes away ends its connection.
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

/// Hands on requests without a body, and their answers.
fn hand_on(client: impl Read + Write, server: &str) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut server = BufReader::new(TcpStream::connect(server)?);
    loop {
        let head = head(&mut client)?;
        if head.is_empty() {
            return Ok(());
        }
        server.get_mut().write_all(head.as_bytes())?;
        let head = self::head(&mut server)?;
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; len.unwrap().parse().unwrap()];
        server.read_exact(&mut body)?;
        client.get_mut().write_all(&[head.as_bytes(), &body].concat())?;
        client.get_mut().flush()?;
    }
}

/// The lines up to an empty one.
fn head(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && from.read_line(&mut head)? > 0 {}
    Ok(head)
}

/// Where a tunnel leads, and who asked for it.
type Tunnel = (String, Option<String>);

/// A proxy that makes tunnels.
pub(super) struct Proxy {
    pub(super) port: u16,
    log: Arc<Mutex<Vec<Tunnel>>>,
}

impl Proxy {
    /// One that makes a tunnel for everybody, or for nobody.
    pub(super) fn new(opens: bool) -> Self {
        let log: Arc<Mutex<Vec<_>>> = Arc::default();
        let seen = Arc::clone(&log);
        let port = listen(move |stream| {
            let mut lines = BufReader::new(stream.try_clone()?);
            let head = head(&mut lines)?;
            let to = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
            let to = to.unwrap_or_default().to_owned();
            let who = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
            seen.lock().unwrap().push((to.clone(), who.map(str::to_owned)));
            let mut client = stream;
            if !opens {
                return client.write_all(b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n");
            }
            let server = TcpStream::connect(to)?;
            client.write_all(b"HTTP/1.1 200 X\r\n\r\n")?;
            let (mut back, mut answers) = (client.try_clone()?, server.try_clone()?);
            std::thread::spawn(move || {
                let copied = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
                copied
            });
            let mut server = server;
            std::io::copy(&mut lines, &mut server)?;
            server.shutdown(Shutdown::Both)
        });
        Self { port, log }
    }

    pub(super) fn log(&self) -> Vec<Tunnel> {
        self.log.lock().unwrap().clone()
    }
}
