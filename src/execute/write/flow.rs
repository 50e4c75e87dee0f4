//! Bytes that come from afar and go into files as they come: a stretch of a blob is one request,
//! however many tensors lie in it, and no more of it is held than a buffer.
//!
//! What is the same bytes on both sides goes so, as on a disk what the system copies. What has to
//! be computed, or is put together of small parts, is read by itself.

use std::sync::Arc;

use super::leaves::FileLeaves;
use super::stream::OutFile;
use super::together::{Span, joined};
use crate::error::{Error, Result};
use crate::execute::fuse::gather::outside;

/// Most bytes of one request: so many that asking doesn't count, so few that workers end together.
const MOST: u64 = 32 << 20;

/// Requests are no shorter than this for the sake of ending together.
const LEAST: u64 = 1 << 20;

/// Bytes of a blob that go to a place in a file.
pub(super) struct Landing<'a> {
    pub(super) span: Span,
    pub(super) key: &'a str,
    pub(super) to: &'a Arc<OutFile>,
    pub(super) at: u64,
}

/// A stretch of a blob, and what goes on from it.
pub(super) struct Flow<'a> {
    pub(super) span: Span,
    /// By where they begin. A byte may be in none, or in several.
    landings: Vec<Landing<'a>>,
    /// Bytes of one request.
    chunk: u64,
}

/// Makes flows of landings that follow each other. What is too short for one, no longer than `gap`, is
/// given back: it may be read together with others.
pub(super) fn flows<'a, T>(
    mut landings: Vec<(Landing<'a>, T)>,
    gap: u64,
    workers: usize,
) -> (Vec<Flow<'a>>, Vec<T>) {
    landings.sort_by_key(|(landing, _)| landing.span);
    let (mut groups, mut end): (Vec<Vec<_>>, _) = (Vec::new(), None);
    for (landing, own) in landings {
        let Span { blob, start, end: until } = landing.span;
        match (groups.last_mut(), end) {
            (Some(group), Some((of, last))) if of == blob && start <= last => {
                end = Some((blob, until.max(last)));
                group.push((landing, own));
            }
            _ => {
                end = Some((blob, until));
                groups.push(vec![(landing, own)]);
            }
        }
    }
    let (mut flows, mut short) = (Vec::new(), Vec::new());
    for group in groups {
        let (landings, own): (Vec<Landing<'_>>, Vec<T>) = group.into_iter().unzip();
        let Some(first) = landings.first().map(|landing| landing.span) else { continue };
        let end = landings.iter().map(|landing| landing.span.end).max().unwrap_or(first.end);
        if end - first.start > gap {
            flows.push(Flow { span: Span { end, ..first }, landings, chunk: MOST });
        } else {
            short.extend(own);
        }
    }
    let total: u64 = flows.iter().map(|flow| flow.span.end - flow.span.start).sum();
    let chunk = total.div_ceil(workers.max(1) as u64).clamp(LEAST, MOST);
    flows.iter_mut().for_each(|flow| flow.chunk = chunk);
    (flows, short)
}

/// Joins flows over gaps that are cheaper read through than asked around, unless others read what
/// lies there: no byte comes twice.
pub(super) fn bridged<'a>(flows: Vec<Flow<'a>>, others: Vec<Span>, gap: u64) -> Vec<Flow<'a>> {
    let others = joined(others, 0);
    let is_free = |between: Span| {
        let next = others
            .partition_point(|other| (other.blob, other.end) <= (between.blob, between.start));
        others
            .get(next)
            .is_none_or(|other| (other.blob, other.start) >= (between.blob, between.end))
    };
    let mut bridged: Vec<Flow<'a>> = Vec::with_capacity(flows.len());
    for flow in flows {
        match bridged.last_mut() {
            Some(last)
                if last.span.blob == flow.span.blob
                    && flow.span.start <= last.span.end.saturating_add(gap)
                    && is_free(Span {
                        start: last.span.end,
                        end: flow.span.start,
                        ..flow.span
                    }) =>
            {
                last.span.end = flow.span.end;
                last.landings.extend(flow.landings);
            }
            _ => bridged.push(flow),
        }
    }
    bridged
}

impl Flow<'_> {
    /// How many requests it takes.
    pub(super) fn jobs(&self) -> u64 {
        (self.span.end - self.span.start).div_ceil(self.chunk)
    }

    /// Makes one of its requests. `wrote` is told of each file how many bytes have come to it.
    pub(super) fn run(
        &self,
        job: u64,
        leaves: &dyn FileLeaves,
        buffer: &mut [u8],
        wrote: &mut dyn FnMut(&Arc<OutFile>, u64) -> Result<()>,
    ) -> Result<()> {
        let start = self.span.start + job * self.chunk;
        let end = start.saturating_add(self.chunk).min(self.span.end);
        let len = end.checked_sub(start).ok_or_else(outside)?;
        let here = |landing: &&Landing<'_>| landing.span.start < end && landing.span.end > start;
        let landings: Vec<&Landing<'_>> = self.landings.iter().filter(here).collect();
        let mut at = start;
        let mut take = |bytes: &[u8]| {
            let until = at + bytes.len() as u64;
            for landing in landings.iter().take_while(|landing| landing.span.start < until) {
                let (first, last) = (landing.span.start.max(at), landing.span.end.min(until));
                if first < last {
                    landing.write((first, last), at, bytes)?;
                    wrote(landing.to, last - first)?;
                }
            }
            at = until;
            Ok(())
        };
        let done = leaves.stream(self.span.blob, (start, len), buffer, &mut take);
        let reached = landings.iter().find(|landing| landing.span.end > at);
        done.map_err(|error| {
            reached.iter().fold(error, |error, landing| error.or_at_key(landing.key))
        })
    }
}

impl Landing<'_> {
    /// Writes some of its bytes; `bytes` begin at a place in the blob.
    fn write(&self, (first, last): (u64, u64), at: u64, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let within = |place: u64| usize::try_from(place - at).map_err(|_| outside());
        let part = bytes.get(within(first)?..within(last)?).ok_or_else(outside)?;
        let to = self.at + (first - self.span.start);
        let written = self.to.file.write_all_at(part, to);
        written.map_err(|error| Error::io("cannot write", &self.to.path, error))
    }
}
