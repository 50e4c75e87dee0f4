//! The last phase: when every shard is finished, by whichever process, what lies beside them is
//! written, and the output appears.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::begin::Begun;
use super::finished::Finished;
use super::prepare::Prepared;
use super::shards::INDEX;
use super::staging::{Staging, create, sync};
use super::verify::{self, CHECKSUMS};
use super::watch::watching;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::{Report, not_cancelled};
use crate::key::Key;
use crate::store::{Interrupts, is_remote};

/// Lets the output appear if all of it is there and nobody else does.
///
/// # Errors
/// If something has appeared in its place meanwhile, or the system fails.
pub(super) fn appear(prepared: &Prepared<'_>, begun: Begun, report: &mut Report) -> Result<()> {
    let Begun { staging, mut finished, .. } = begun;
    let all = find_others(prepared, &staging, &mut finished);
    // Of what overflowed in every file that is known to be finished, by whatever run or rank.
    for (key, count) in finished.values().flat_map(|finished| &finished.overflowed) {
        report.overflow(&Key::from(key.as_str()), *count);
    }
    if !all {
        staging.leave();
        return Ok(());
    }
    let Some(_claim) = staging.claim()? else { return Ok(()) };
    write_beside(prepared, &finished, &staging, report)?;
    not_cancelled(prepared.options.cancel)?;
    staging.publish()?;
    report.complete = true;
    Ok(())
}

/// Looks for shards that other processes have finished, up to the first that is missing. Says
/// whether there are all: of several processes, only the last sees that.
fn find_others(
    prepared: &Prepared<'_>,
    staging: &Staging,
    finished: &mut BTreeMap<usize, Finished>,
) -> bool {
    let shards = prepared.shards.files.iter().enumerate();
    for (at, shard) in shards {
        if let Entry::Vacant(slot) = finished.entry(at) {
            let known = Finished::load(staging, shard, false);
            match known.filter(|known| known.sums.is_some() || !prepared.options.checksums) {
                Some(known) => slot.insert(known),
                None => return false,
            };
        }
    }
    true
}

/// Adds what is beside the shards: index, side files, checksums.
fn write_beside(
    prepared: &Prepared<'_>,
    finished: &BTreeMap<usize, Finished>,
    staging: &Staging,
    report: &mut Report,
) -> Result<()> {
    let Prepared { shards, is_file, .. } = prepared;
    if let Some(index) = &shards.index {
        write_small(staging, INDEX, index, report)?;
    }
    if prepared.options.checksums && !is_file {
        let sums = shards.files.iter().enumerate().filter_map(|(at, shard)| {
            Some((shard.name.as_str(), finished.get(&at)?.sums.as_ref()?))
        });
        write_small(staging, CHECKSUMS, &verify::manifest(sums)?, report)?;
    }
    if !is_file {
        let names = shards.files.iter().map(|shard| shard.name.as_str()).collect();
        let options = &prepared.options;
        copy_side_files(&options.side_files, &names, staging, report, options.cancel)?;
    }
    Ok(())
}

/// Writes a text beside the shards.
pub(super) fn write_small(
    staging: &Staging,
    name: &str,
    text: &str,
    report: &mut Report,
) -> Result<()> {
    let path = staging.file(name);
    let mut file = create(&path, 0, true)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io("cannot write", &path, error))?;
    report.bytes_written += text.len() as u64;
    report.files.push(name.to_owned());
    Ok(())
}

/// Copies files beside the shards, whose names are given.
pub(super) fn copy_side_files(
    side_files: &[PathBuf],
    shards: &BTreeSet<&str>,
    staging: &Staging,
    report: &mut Report,
    cancel: Option<&AtomicBool>,
) -> Result<()> {
    let interrupts = Interrupts::default();
    for side in side_files {
        let Some(name) = side.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::new(ErrorKind::Unsupported, "a side file has no name").in_file(side));
        };
        // What says something of the source's files is not true of the output's.
        if name == INDEX
            || name == CHECKSUMS
            || shards.contains(name)
            || report.files.iter().any(|file| file == name)
        {
            continue;
        }
        not_cancelled(cancel)?;
        let path = staging.file(name);
        // Not `fs::copy`: modes obey the umask, as those of every other file do.
        let mut file = create(&path, 0, true)?;
        let mut copied = || crate::store::copy(side, &mut file, &interrupts);
        let bytes = match is_remote(side) {
            true => watching(cancel, &|| interrupts.interrupt(), copied)?,
            false => copied()?,
        };
        sync(&path)?;
        report.bytes_written += bytes;
        report.files.push(name.to_owned());
    }
    Ok(())
}
