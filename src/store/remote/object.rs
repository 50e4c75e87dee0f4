//! [`Object`]: a file that is read by ranges of bytes.
//!
//! * Every answer says which content it is of. If that changes, or the length does, reading fails:
//!   bytes of two versions never come together.
//! * A connection that breaks is gone on with at the byte it had come to.
//! * While a header is read, what comes is kept, and small reads bring somewhat more than they ask
//!   for. What that is of tensors stays, and isn't asked for again; their other bytes are read past
//!   it, each once.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::cache::{self, Known, Pieces};
use super::http::{self, Answer, Request, Trouble, tag_of, text_of};
use super::retry::{Interrupts, Tries};
use super::site::Site;
use crate::error::{Error, ErrorKind, Result};
use crate::store::archive::ReadAt;

/// Bytes that are asked for at first, and by any small read while headers are read: half of all
/// headers are no longer, and what is too much costs less than a request.
const FIRST: u64 = 16 << 10;

/// A read of so many bytes is what it is, and brings nothing else.
const LARGE: u64 = 64 << 10;

/// A whole file of so many bytes is taken from a server that knows no ranges.
const SMALL_FILE: u64 = 8 << 20;

/// Bytes between two ranges that are read through while headers are read.
const NEAR: u64 = 4 << 10;

/// How many ranges of a header are read side by side.
const BESIDE: usize = 16;

/// Most bytes that are kept of one file while its header is read, and in the cache.
pub(super) const KEPT: u64 = 128 << 20;

/// Most that are kept of it from then on.
const REMAINS: usize = 64 << 10;

/// What a file is, as far as a server says: which content, and how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Version {
    pub(super) len: u64,
    /// The tag or time of the server that has the bytes.
    pub(super) tag: Option<String>,
    /// The tag of the server that redirected there.
    pub(super) linked: Option<String>,
}

/// A file far away.
pub(in crate::store) struct Object {
    /// As it is called in messages.
    address: String,
    site: Site,
    version: OnceLock<Version>,
    /// Where the last redirect led.
    location: Mutex<Option<String>>,
    /// What has been read of it while its header was, by its place.
    kept: Mutex<BTreeMap<u64, Vec<u8>>>,
    interrupts: Interrupts,
    fetched: AtomicU64,
}

impl Object {
    /// Opens a file: asks for its first bytes, unless the cache has them. `None` if there is none.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn open(address: &str, site: Site, interrupts: &Interrupts) -> Result<Option<Self>> {
        let object = Self {
            address: address.to_owned(),
            site,
            version: OnceLock::new(),
            location: Mutex::default(),
            kept: Mutex::default(),
            interrupts: interrupts.clone(),
            fetched: AtomicU64::new(0),
        };
        let found = cache::load(&object.site);
        if let Some((version, kept)) = &found
            && object.site.is_immutable()
        {
            object.take(version.clone(), kept.clone());
            return Ok(Some(object));
        }
        Ok(object.first(found)?.then_some(object))
    }

    fn take(&self, version: Version, kept: Pieces) {
        let _ = self.version.set(version);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept.into_iter().collect();
    }

    /// Asks for the first bytes. Says whether there is such a file.
    fn first(&self, known: Option<Known>) -> Result<bool> {
        let mut tries = Tries::new(&self.address, &self.interrupts);
        loop {
            match self.try_first(known.as_ref()) {
                Ok(Some((version, bytes))) => {
                    self.take(version, vec![(0, bytes)]);
                    return Ok(true);
                }
                Ok(None) => {
                    let (version, kept) = known.unwrap_or_default();
                    self.take(version, kept);
                    return Ok(true);
                }
                Err(Trouble::Status(refusal)) if refusal.status == 404 && !is_lost(&refusal) => {
                    return Ok(false);
                }
                Err(trouble) => tries.again(trouble)?,
            }
        }
    }

    /// The file's version and first bytes; `None` if it is the known one.
    fn try_first(
        &self,
        known: Option<&Known>,
    ) -> std::result::Result<Option<(Version, Vec<u8>)>, Trouble> {
        let unless = known.and_then(|(version, _)| version.tag.as_deref());
        let mut answer = match self.site.ask((0, FIRST - 1), unless) {
            Ok(answer) => answer,
            // An empty file has no first byte.
            Err(Trouble::Status(refusal)) if refusal.status == 416 => {
                return Ok(Some((Version::default(), Vec::new())));
            }
            Err(trouble) => return Err(trouble),
        };
        let status = answer.response.status().as_u16();
        if status == 304 {
            return Ok(None);
        }
        let len = match status {
            206 => range_of(&answer).filter(|(first, ..)| *first == 0).map(|(.., len)| len),
            _ => answer.response.body().content_length(),
        };
        self.note(&answer);
        let Some(len) = len else { return self.unmeasured(answer).map(Some) };
        let wanted = if status == 206 || len > SMALL_FILE { len.min(FIRST) } else { len };
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or_default()];
        let came = self.receive(&mut answer, &mut Sink::of(&mut bytes), wanted)?;
        if came < wanted {
            return Err(Trouble::Passing(self.short(came, wanted), None));
        }
        let version = Version { len, tag: tag(&answer), linked: answer.linked };
        Ok(Some((version, bytes)))
    }

    /// How many bytes it has.
    pub(in crate::store) fn len(&self) -> u64 {
        self.version.get().map_or(0, |version| version.len)
    }

    /// A small file from a server that doesn't say how long it is.
    fn unmeasured(&self, mut answer: Answer) -> std::result::Result<(Version, Vec<u8>), Trouble> {
        let mut bytes = Vec::new();
        let mut reader = answer.response.body_mut().as_reader().take(SMALL_FILE + 1);
        let read = reader.read_to_end(&mut bytes);
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let len = bytes.len() as u64;
        if len > SMALL_FILE {
            let error = self.error("the server doesn't say how long the file is");
            let hint = "it has to answer ranges of bytes, or give the file's length";
            return Err(Trouble::Lasting(error.hint(hint)));
        }
        read.map_err(|_| Trouble::Passing(self.short(len, len), None))?;
        Ok((Version { len, tag: tag(&answer), linked: answer.linked }, bytes))
    }

    /// What is known of its beginning already.
    pub(in crate::store) fn begun(&self) -> Vec<u8> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&0).cloned().unwrap_or_default()
    }

    /// What tells its content from any other; `None` if the server says nothing that does.
    pub(in crate::store) fn tag(&self) -> Option<String> {
        let version = self.version.get()?;
        let tag = version.linked.clone().or_else(|| version.tag.clone());
        self.site
            .commit()
            .map(str::to_owned)
            .into_iter()
            .chain(tag)
            .reduce(|commit, tag| format!("{commit} {tag}"))
    }

    /// Bytes that have come of it.
    pub(in crate::store) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Ends all reads that wait.
    pub(in crate::store) fn interrupt(&self) {
        self.interrupts.interrupt();
    }

    /// Its header is read: what was kept goes to the cache, and out of memory, but for the little
    /// that small headers bring along of tensors.
    pub(in crate::store) fn settle(&self) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let mut kept: Pieces = kept.into_iter().collect();
        if let Some(version) = self.version.get() {
            cache::save(&self.site, version, &kept);
        }
        let mut room = REMAINS;
        kept.retain(|(_, bytes)| match room.checked_sub(bytes.len()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept.into_iter().collect();
    }

    /// Reads bytes, each once.
    ///
    /// # Errors
    /// If they can't be had, or the file is another than before.
    pub(in crate::store) fn read_into(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        self.bring(at, &mut Sink::of(buffer))
    }

    /// Reads bytes, each once, by one request if nothing breaks, and hands them on in order as
    /// they come: as many at once as the buffer holds, and less at the end.
    ///
    /// # Errors
    /// As [`Object::read_into`], and that of `take`.
    pub(in crate::store) fn stream(
        &self,
        (at, len): (u64, u64),
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.bring(at, &mut Sink { buffer, filled: 0, left: len, take: Some(take) })
    }

    /// Reads what a sink wants from a place on.
    fn bring(&self, mut at: u64, sink: &mut Sink<'_, '_>) -> Result<()> {
        let end = at.checked_add(sink.left).filter(|end| *end <= self.len());
        let end = end.ok_or_else(|| self.error("the bytes asked for leave the file"))?;
        // What was kept need not come again.
        while sink.left > 0 {
            let count = self.kept_at(at, sink.room(sink.left));
            if count == 0 {
                break;
            }
            sink.filled(count)?;
            at += count as u64;
        }
        let mut tries = Tries::new(&self.address, &self.interrupts);
        while sink.left > 0 {
            let done = self.stretch(at, sink);
            if end - sink.left > at {
                tries.progress();
                at = end - sink.left;
            } else if done.is_ok() {
                tries.again(Trouble::Passing(self.short(0, sink.left), None))?;
            }
            if let Err(trouble) = done {
                tries.again(trouble)?;
            }
        }
        Ok(())
    }

    /// One request for what a sink wants; what has come is in it, whatever happens then.
    fn stretch(&self, at: u64, sink: &mut Sink<'_, '_>) -> std::result::Result<(), Trouble> {
        let last = at + sink.left - 1;
        let mut answer = self.answer((at, last))?;
        if answer.response.status().as_u16() != 206 {
            return self.whole(at, sink, &mut answer);
        }
        let said = range_of(&answer).filter(|(first, end, _)| *first == at && *end <= last);
        let Some((first, end, len)) = said else {
            let what = "the server answers with other bytes than were asked for";
            return Err(Trouble::Lasting(self.error(what)));
        };
        self.same(&answer, len)?;
        let part = end - first + 1;
        let own = answer.response.body().content_length();
        if let Some(own) = own.filter(|own| *own > part) {
            let what = format!("the answer has {own} bytes and says that it has {part}");
            return Err(Trouble::Lasting(self.error(what)));
        }
        let came = self.receive(&mut answer, sink, part)?;
        if came < part {
            return Err(Trouble::Passing(self.short(came, part), None));
        }
        Ok(())
    }

    /// Takes what is wanted from a server that sends the file from its start instead of a range: of
    /// headers, and of files that are small anyway.
    fn whole(
        &self,
        at: u64,
        sink: &mut Sink<'_, '_>,
        answer: &mut Answer,
    ) -> std::result::Result<(), Trouble> {
        let len = answer.response.body().content_length();
        if len.is_some_and(|len| len != self.len()) || at + sink.left > SMALL_FILE {
            let what =
                "the server doesn't answer ranges of bytes: it sends the whole file for each";
            let error = self.error(what);
            return Err(Trouble::Lasting(error.hint("fetch the file, and give it from the disk")));
        }
        self.same(answer, self.len())?;
        let mut before = vec![0; usize::try_from(at).unwrap_or_default()];
        if self.receive(answer, &mut Sink::of(&mut before), at)? == at {
            let rest = sink.left;
            self.receive(answer, sink, rest)?;
        }
        Ok(())
    }

    /// Asks for a range, where the last answer came from if a redirect led there.
    fn answer(&self, range: (u64, u64)) -> std::result::Result<Answer, Trouble> {
        let known = self.location.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(location) = known {
            let request = Request::new(location).header("Range", bytes(range));
            match http::ask(&request) {
                // Such an address is good for some time only.
                Err(Trouble::Status(refusal)) if matches!(refusal.status, 400..=410) => {
                    *self.location.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                answer => return answer,
            }
        }
        let answer = self.site.ask(range, None).map_err(|trouble| match trouble {
            Trouble::Status(refusal) if refusal.status == 416 => Trouble::Lasting(self.changed()),
            other => other,
        })?;
        self.note(&answer);
        Ok(answer)
    }

    fn note(&self, answer: &Answer) {
        if answer.location.is_some() {
            let mut known = self.location.lock().unwrap_or_else(PoisonError::into_inner);
            known.clone_from(&answer.location);
        }
    }

    /// Checks that an answer is of the content whose header was read.
    fn same(&self, answer: &Answer, len: u64) -> std::result::Result<(), Trouble> {
        let Some(version) = self.version.get() else { return Ok(()) };
        let differ =
            |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        if len != version.len
            || differ(&version.tag, &tag(answer))
            || differ(&version.linked, &answer.linked)
        {
            cache::forget(&self.site);
            return Err(Trouble::Lasting(self.changed()));
        }
        Ok(())
    }

    /// Gives a sink at most so many bytes of an answer; says how many came. More than it takes is
    /// no error of a whole file.
    fn receive(
        &self,
        answer: &mut Answer,
        sink: &mut Sink<'_, '_>,
        most: u64,
    ) -> std::result::Result<u64, Trouble> {
        let is_part = answer.response.status().as_u16() == 206;
        let mut reader = answer.response.body_mut().as_reader();
        let mut came = 0;
        while came < most {
            match reader.read(sink.room(most - came)) {
                Ok(0) => break,
                Ok(count) => {
                    came += count as u64;
                    self.fetched.fetch_add(count as u64, Ordering::Relaxed);
                    sink.filled(count).map_err(Trouble::Lasting)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What has come is used; who asked sees that it is less.
                Err(_) => break,
            }
        }
        // A connection whose answer was read to its end can be used again.
        if is_part && came == most && reader.read(&mut [0]).is_ok_and(|more| more > 0) {
            let what = "the answer is longer than the bytes that were asked for";
            return Err(Trouble::Lasting(self.error(what)));
        }
        Ok(came)
    }

    fn changed(&self) -> Error {
        let error = Error::corrupt("the file changed while it was read").in_file(&self.address);
        error.hint("somebody has put another one there: run it again")
    }

    fn short(&self, came: u64, of: u64) -> Error {
        self.error(format!("the connection broke: {came} of {of} bytes came"))
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Io, what).in_file(&self.address)
    }

    /// Fills a buffer while the header is read.
    fn fill_kept(&self, mut at: u64, mut rest: &mut [u8]) -> Result<()> {
        while !rest.is_empty() {
            let count = self.kept_at(at, rest);
            let (_, later) = std::mem::take(&mut rest).split_at_mut(count);
            (at, rest) = (at + count as u64, later);
            if count == 0 {
                let (start, len) = self.around(at, rest.len() as u64);
                self.keep(start, len)?;
            }
        }
        Ok(())
    }

    /// Whether the byte at a place is there.
    fn has(&self, at: u64) -> bool {
        self.kept_at(at, &mut [0]) > 0
    }

    /// Copies what is there from a place on; gives how many bytes.
    fn kept_at(&self, at: u64, buffer: &mut [u8]) -> usize {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((start, bytes)) = kept.range(..=at).next_back() else { return 0 };
        let from = usize::try_from(at - start).unwrap_or(usize::MAX);
        let there = bytes.get(from..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        count
    }

    /// Reads bytes, and keeps them.
    fn keep(&self, start: u64, len: u64) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        self.read_into(start, &mut bytes)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.values().map(|bytes| bytes.len() as u64).sum::<u64>() > KEPT {
            kept.clear();
        }
        kept.insert(start, bytes);
        Ok(())
    }

    /// What is read for so many bytes from a place on: more if they are few, and nothing that is
    /// there already.
    fn around(&self, at: u64, count: u64) -> (u64, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.len();
        let mut end = (at + if count < LARGE { count.max(FIRST) } else { count }).min(all);
        let mut start = at;
        // What is read near the end leads backwards: archives end with what they hold.
        if count < LARGE && all - at < FIRST {
            start = all.saturating_sub(LARGE);
        }
        if let Some((known, bytes)) = kept.range(..=at).next_back() {
            start = start.max(known + bytes.len() as u64);
        }
        if let Some((known, _)) = kept.range(at..).next() {
            end = end.min(*known);
        }
        (start, end - start)
    }
}

/// Is handed bytes.
type Take<'t> = dyn FnMut(&[u8]) -> Result<()> + 't;

/// Where bytes go as they come.
struct Sink<'b, 't> {
    buffer: &'b mut [u8],
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes that are still to come.
    left: u64,
    /// Is given the buffer whenever it is full, and at the end; without it, the buffer is filled
    /// once.
    take: Option<&'t mut Take<'t>>,
}

impl<'b> Sink<'b, '_> {
    /// Bytes that are to fill a buffer.
    fn of(buffer: &'b mut [u8]) -> Self {
        let left = buffer.len() as u64;
        Self { buffer, filled: 0, left, take: None }
    }

    /// Where at most so many of the next bytes belong.
    fn room(&mut self, most: u64) -> &mut [u8] {
        let most = usize::try_from(most.min(self.left)).unwrap_or(usize::MAX);
        let end = self.filled.saturating_add(most).min(self.buffer.len());
        self.buffer.get_mut(self.filled..end).unwrap_or_default()
    }

    /// So many bytes have come there.
    fn filled(&mut self, count: usize) -> Result<()> {
        self.filled += count;
        self.left -= count as u64;
        if let Some(take) = &mut self.take
            && (self.filled == self.buffer.len() || self.left == 0)
        {
            take(self.buffer.get(..self.filled).unwrap_or_default())?;
            self.filled = 0;
        }
        Ok(())
    }
}

/// Whether more than the file is missing.
fn is_lost(refusal: &http::Refusal) -> bool {
    let code = refusal.code.as_deref();
    matches!(code, Some("RepoNotFound" | "RevisionNotFound" | "NoSuchBucket"))
}

impl ReadAt for Object {
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.fill_kept(at, buffer).map_err(io::Error::other)
    }

    /// Asks for them side by side, those that lie close together as one.
    fn soon(&self, ranges: &mut dyn Iterator<Item = (u64, u64)>) {
        let mut wanted: Vec<(u64, u64)> = ranges.filter(|(at, _)| !self.has(*at)).collect();
        wanted.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (at, len) in wanted {
            let end = at.saturating_add(len).min(self.len());
            match joined.last_mut() {
                Some((_, last)) if at <= last.saturating_add(NEAR) => *last = end.max(*last),
                _ if at < end => joined.push((at, end)),
                _ => {}
            }
        }
        if joined.len() < 2 {
            return;
        }
        let rest = Mutex::new(joined.into_iter());
        let next = || rest.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..BESIDE {
                scope.spawn(|| {
                    // What fails is asked for again, and says why.
                    while let Some((at, end)) = next() {
                        if self.keep(at, end - at).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
}

/// A range as it is asked for.
pub(super) fn bytes((first, last): (u64, u64)) -> String {
    format!("bytes={first}-{last}")
}

/// What names the content of an answer.
fn tag(answer: &Answer) -> Option<String> {
    tag_of(&answer.response, "etag").or_else(|| text_of(&answer.response, "last-modified"))
}

/// The first and last byte of an answer, and the length of the file.
fn range_of(answer: &Answer) -> Option<(u64, u64, u64)> {
    let text = text_of(&answer.response, "content-range")?;
    let (range, len) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let len: u64 = len.trim().parse().ok()?;
    (first <= last && last < len).then_some((first, last, len))
}
