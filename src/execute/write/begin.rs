//! The second phase: a hidden place beside the output, and which files an earlier run or another
//! process has finished there already.

use std::collections::BTreeMap;

use super::finished::Finished;
use super::place::Mode;
use super::prepare::Prepared;
use super::staging::Staging;
use crate::error::Result;

/// An output that has been begun.
pub(super) struct Begun {
    pub(super) staging: Staging,
    /// The shards that are still to be written, by number.
    pub(super) todo: Vec<usize>,
    /// Those that are finished.
    pub(super) finished: BTreeMap<usize, Finished>,
}

/// Begins the output, or goes on with one. `None` if other processes have put it in its place
/// already.
///
/// # Errors
/// If its place can't be written, or other processes do other work there.
pub(super) fn begin(prepared: &Prepared<'_>) -> Result<Option<Begun>> {
    let Prepared { options, shards, .. } = prepared;
    let mode = match (options.rank, options.resume) {
        (Some(_), _) => Mode::Together,
        // What another run left may be of another source.
        (None, true) if prepared.identity.is_some() => Mode::Resume,
        (None, _) => Mode::Fresh,
    };
    let Some(staging) = staging(prepared, mode)? else { return Ok(None) };
    let (mut todo, mut finished) = (Vec::new(), BTreeMap::new());
    for at in &prepared.own {
        let known = Finished::load(&staging, &shards.files[*at], true);
        match known.filter(|known| known.sums.is_some() || !options.checksums) {
            Some(known) if mode != Mode::Fresh => drop(finished.insert(*at, known)),
            _ => todo.push(*at),
        }
    }
    Ok(Some(Begun { staging, todo, finished }))
}

fn staging(prepared: &Prepared<'_>, mode: Mode) -> Result<Option<Staging>> {
    let Prepared { spot, work, .. } = prepared;
    let there = || spot.there(&prepared.shards.files, work, !prepared.own.is_empty());
    let together = mode == Mode::Together;
    if together && there()? {
        return Ok(None);
    }
    match spot.begin(mode, work) {
        // The last of the others may have put the output in its place, and removed what was
        // common, since that look.
        Err(_) if together && matches!(there(), Ok(true)) => Ok(None),
        begun => begun.map(Some),
    }
}
