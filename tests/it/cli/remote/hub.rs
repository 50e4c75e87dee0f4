//! A hub of models on this machine, which breaks as it is told, and notes what it is asked.
//!
//! It serves `<root>/<org>/<name>/<files>` by the paths of the Hugging Face hub. Files of more than
//! [`SMALL`] bytes are redirected to another server, as the hub does with its storage.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::json;

/// Larger files are redirected.
const SMALL: u64 = 1000;

/// What the storage's addresses are signed with.
pub(super) const SIGNATURE: &str = "sEcReTsIgNaTuRe";

/// The commit of every repository.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// This status, and a header.
    Status(u16, &'static str),
    /// The connection ends after so many bytes of the body.
    Cut(u64),
    /// Nothing comes for so many milliseconds.
    Silent(u64),
    /// The range is passed over.
    Whole,
    /// The body is longer than the range.
    Long,
    /// It claims to be other bytes of the file.
    Moved,
    /// Its tag is another one.
    OtherTag,
    /// It leads there.
    Redirect(String),
    /// It isn't HTTP.
    Garbage,
}

/// What was asked, and how much of a body was sent.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Whether it was the storage that was asked.
    pub(super) storage: bool,
    pub(super) path: String,
    pub(super) range: Option<(u64, u64)>,
    pub(super) authorization: Option<String>,
    pub(super) sent: u64,
}

/// An answer that has bytes of a weights file.
pub(super) struct Answer<'a> {
    /// Its number among all such answers, from 1. Which file it is of is up to chance where several
    /// are asked for at a time.
    pub(super) number: usize,
    /// How often bytes of this file up to this one were asked for before: its number of retries.
    pub(super) retry: usize,
    pub(super) file: &'a str,
}

/// Decides what goes wrong.
type Breaks = dyn Fn(&Answer) -> Fault + Send + Sync;

pub(super) struct Hub {
    pub(super) endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    token: Option<String>,
    storage: Mutex<String>,
    breaks: Box<Breaks>,
    /// How often bytes of a file up to one were asked for.
    answers: Mutex<BTreeMap<(String, Option<u64>), usize>>,
    log: Mutex<Vec<Seen>>,
}

struct Asked {
    path: String,
    range: Option<(u64, u64)>,
    authorization: Option<String>,
}

impl Hub {
    pub(super) fn new(root: PathBuf) -> Self {
        Self::breaking(root, |_| Fault::None)
    }

    pub(super) fn breaking(
        root: PathBuf,
        breaks: impl Fn(&Answer) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::start(root, None, Box::new(breaks))
    }

    /// A hub whose repositories want this token.
    pub(super) fn gated(root: PathBuf, token: &str) -> Self {
        Self::start(root, Some(token.to_owned()), Box::new(|_| Fault::None))
    }

    fn start(root: PathBuf, token: Option<String>, breaks: Box<Breaks>) -> Self {
        let shared = Arc::new(Shared {
            root,
            token,
            storage: Mutex::default(),
            breaks,
            answers: Mutex::default(),
            log: Mutex::default(),
        });
        // Another name of this machine: another host.
        let storage = serve(&shared, true);
        *shared.storage.lock().unwrap() = format!("http://localhost:{storage}");
        let endpoint = format!("http://127.0.0.1:{}", serve(&shared, false));
        Self { endpoint, shared }
    }

    pub(super) fn log(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Forgets what was asked so far.
    pub(super) fn clear(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// Bytes of bodies that were sent of files whose names end so.
    pub(super) fn sent(&self, ending: &str) -> u64 {
        let of = |seen: &&Seen| seen.path.split('?').next().unwrap().ends_with(ending);
        self.log().iter().filter(of).map(|seen| seen.sent).sum()
    }
}

fn serve(shared: &Arc<Shared>, storage: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                // A client that goes away ends its connection.
                let _ = shared.talk(&stream.unwrap(), storage);
            });
        }
    });
    port
}

impl Shared {
    fn talk(&self, stream: &TcpStream, storage: bool) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let Some(path) = line.split(' ').nth(1) else { return Ok(()) };
            let mut asked = Asked { path: path.to_owned(), range: None, authorization: None };
            loop {
                let mut line = String::new();
                lines.read_line(&mut line)?;
                let Some((name, value)) = line.trim().split_once(": ") else { break };
                match name.to_ascii_lowercase().as_str() {
                    "range" => {
                        let (first, last) =
                            value.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                        asked.range = Some((first.parse().unwrap(), last.parse().unwrap()));
                    }
                    "authorization" => asked.authorization = Some(value.to_owned()),
                    _ => {}
                }
            }
            if !self.answer(stream, &asked, storage)? {
                return Ok(());
            }
        }
    }

    fn note(&self, asked: &Asked, storage: bool, sent: u64) {
        self.log.lock().unwrap().push(Seen {
            storage,
            path: asked.path.clone(),
            range: asked.range,
            authorization: asked.authorization.clone(),
            sent,
        });
    }

    /// Answers without a fault.
    fn say(
        &self,
        mut stream: &TcpStream,
        (asked, storage): (&Asked, bool),
        status: u16,
        headers: &str,
        body: &[u8],
    ) -> std::io::Result<bool> {
        self.note(asked, storage, body.len() as u64);
        let head =
            format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat())?;
        Ok(true)
    }

    fn answer(&self, stream: &TcpStream, asked: &Asked, storage: bool) -> std::io::Result<bool> {
        let of = (asked, storage);
        let path = asked.path.split('?').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let is_known = self
            .token
            .as_ref()
            .is_none_or(|token| asked.authorization.as_ref() == Some(&format!("Bearer {token}")));
        if let ["api", "models", org, name, "revision", revision] = parts[..] {
            let directory = self.root.join(org).join(name);
            if !directory.is_dir() {
                return self.say(stream, of, 401, "X-Error-Code: RepoNotFound\r\n", b"");
            }
            if !is_known {
                return self.say(stream, of, 401, "X-Error-Code: GatedRepo\r\n", b"");
            }
            if !["main", COMMIT].contains(&revision) {
                return self.say(stream, of, 404, "X-Error-Code: RevisionNotFound\r\n", b"");
            }
            let mut files: Vec<_> = std::fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let files: Vec<_> = files.iter().map(|name| json!({ "rfilename": name })).collect();
            let body = json!({ "sha": COMMIT, "siblings": files }).to_string();
            return self.say(stream, of, 200, "", body.as_bytes());
        }
        let [org, name, "resolve" | "storage", _, file] = parts[..] else {
            return self.say(stream, of, 404, "", b"");
        };
        if !storage && !is_known {
            return self.say(stream, of, 401, "X-Error-Code: GatedRepo\r\n", b"");
        }
        let Ok(bytes) = std::fs::read(self.root.join(org).join(name).join(file)) else {
            return self.say(stream, of, 404, "X-Error-Code: EntryNotFound\r\n", b"");
        };
        if !storage && bytes.len() as u64 > SMALL {
            let to = self.storage.lock().unwrap().clone();
            let headers = format!(
                "Location: {to}/{org}/{name}/storage/x/{file}?sig={SIGNATURE}\r\nX-Linked-Etag: \"l{}\"\r\n",
                blake3::hash(&bytes).to_hex()
            );
            return self.say(stream, of, 302, &headers, b"");
        }
        let fault = if file.contains(".json") {
            Fault::None
        } else {
            let mut answers = self.answers.lock().unwrap();
            let times = answers.entry((path.to_owned(), asked.range.map(|(_, last)| last)));
            let retry = *times.and_modify(|times| *times += 1).or_default();
            let number = answers.values().map(|retries| retries + 1).sum();
            (self.breaks)(&Answer { number, retry, file })
        };
        self.give(stream, of, &bytes, fault)
    }

    /// Gives bytes of a file, as well as a fault lets it.
    fn give(
        &self,
        mut stream: &TcpStream,
        (asked, storage): (&Asked, bool),
        bytes: &[u8],
        fault: Fault,
    ) -> std::io::Result<bool> {
        let of = (asked, storage);
        let all = bytes.len() as u64;
        let (first, last) = match asked.range {
            Some((first, last)) if fault != Fault::Whole => (first, last.min(all - 1)),
            _ => (0, all - 1),
        };
        let is_part = asked.range.is_some() && fault != Fault::Whole;
        let mut body = bytes[first as usize..=last as usize].to_vec();
        let mut tag = blake3::hash(bytes).to_hex().to_string();
        let (mut said, mut cut) = (first, None);
        match fault {
            Fault::None | Fault::Whole => {}
            Fault::Status(status, header) => return self.say(stream, of, status, header, b""),
            Fault::Redirect(to) => {
                return self.say(stream, of, 302, &format!("Location: {to}\r\n"), b"");
            }
            Fault::Cut(at) => cut = Some(at),
            Fault::Silent(time) => std::thread::sleep(std::time::Duration::from_millis(time)),
            Fault::Long => body.extend([7; 100]),
            Fault::Moved => said += 1,
            Fault::OtherTag => tag.push('x'),
            Fault::Garbage => {
                self.note(asked, storage, 0);
                stream.write_all(b"\x00\x01\x02 no\r\n\r\n")?;
                return Ok(false);
            }
        }
        let status = if is_part { 206 } else { 200 };
        let mut head =
            format!("HTTP/1.1 {status} X\r\nETag: \"{tag}\"\r\nContent-Length: {}\r\n", body.len());
        if is_part {
            head.push_str(&format!(
                "Content-Range: bytes {said}-{}/{all}\r\n",
                last + said - first
            ));
        }
        head.push_str("\r\n");
        let end = cut.map_or(body.len(), |at| body.len().min(at as usize));
        self.note(asked, storage, end as u64);
        stream.write_all(&[head.as_bytes(), &body[..end]].concat())?;
        Ok(end == body.len())
    }
}
