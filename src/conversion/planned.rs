//! [`Planned`]: a plan with the checkpoint that it is for, to be carried out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::Output;
use super::output::{RecordFile, side_files_of};
use super::source::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::{
    self, Destination, Lanes, PatchOptions, Rank, Report, Views, WriteOptions, read_boxes, views,
    views_over, views_until,
};
use crate::key::RankFiles;
use crate::library::Route;
use crate::plan::{Answer, Plan, Question, Record};
use crate::store::{Checkpoint, Store};
use crate::tensor::Header;

/// A plan, and the checkpoint that it is for.
#[derive(Clone)]
#[non_exhaustive]
pub struct Planned {
    /// How each key of the result is made.
    pub plan: Plan,
    /// Rule files in order, and which way each is read.
    pub route: Route,
    /// What was asked about bytes, and what was found, in the order of asking.
    pub compared: Vec<(Question, Answer)>,
    /// Bytes that were read to find it.
    pub bytes_compared: u64,
    /// The values of parameters, as they are written in rules.
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) rank: Option<Rank>,
    /// How files are called, if each rank gets one.
    pub(super) rank_files: Option<RankFiles>,
    pub(super) source: Source,
}

impl Planned {
    /// What was done that the rules, read backwards, can't know.
    pub fn record(&self) -> Record {
        Record::of(&self.plan, &self.route.stages(), self.parameters.clone())
    }

    /// The checkpoint's keys, dtypes and shapes.
    pub fn header(&self) -> &Header {
        self.source.header()
    }

    /// Bytes of the checkpoint's files that have come from afar so far, those of headers too.
    pub fn bytes_fetched(&self) -> u64 {
        self.source.checkpoint().map_or(0, Checkpoint::fetched)
    }

    /// Ends what waits for a server, with [`ErrorKind::Interrupted`]; also what would later.
    pub fn interrupt(&self) {
        if let Some(checkpoint) = self.source.checkpoint() {
            checkpoint.interrupt();
        }
    }

    /// Whose stage the target is, if it is one of several.
    pub fn rank(&self) -> Option<Rank> {
        self.rank
    }

    /// Carries the plan out in memory: what is a slice, a split, a transpose of a source shares its
    /// storage.
    ///
    /// # Errors
    /// If there are headers alone; and as [`execute::views`].
    pub fn views(&self) -> Result<Views> {
        views(&self.plan, self.source.tensors()?)
    }

    /// As [`Planned::views`], until `cancel` is set.
    ///
    /// # Errors
    /// As [`Planned::views`]; and [`ErrorKind::Interrupted`] if cancelled.
    pub fn views_until(&self, cancel: &AtomicBool) -> Result<Views> {
        views_until(&self.plan, self.source.tensors()?, cancel)
    }

    /// As [`Planned::views`], for a model that holds tensors already: what the plan leaves as the
    /// model has it is the model's own.
    ///
    /// # Errors
    /// As [`execute::views_over`].
    pub fn views_over(&self, model: &dyn Store) -> Result<Views> {
        views_over(&self.plan, self.source.tensors()?, model)
    }

    /// Reads boxes of targets into memory that the caller holds.
    ///
    /// # Errors
    /// If there are headers alone; and as [`execute::read_boxes`].
    pub fn read_boxes(
        &self,
        wanted: &mut [Destination<'_>],
        cancel: Option<&AtomicBool>,
    ) -> Result<Report> {
        read_boxes(&self.plan, self.source.tensors()?, wanted, cancel)
    }

    /// Writes files: into the directory `out`, with the side files of the source, or into one file,
    /// if its name ends with `.safetensors`. They appear whole or not at all.
    ///
    /// # Errors
    /// If there are headers alone; and as [`execute::write()`].
    pub fn write(&self, out: impl AsRef<Path>) -> Result<Report> {
        self.write_with(out, Output::default())
    }

    /// As [`Planned::write`], with a say in how.
    ///
    /// # Errors
    /// As [`Planned::write`]; and if a side file can't be carried along.
    pub fn write_with(&self, out: impl AsRef<Path>, output: Output<'_>) -> Result<Report> {
        let (out, tensors) = (out.as_ref(), self.source.tensors()?);
        let mut options = self.with_rank_files(&output.write);
        if output.side_files {
            let beside = side_files_of(&self.source.paths, self.source.allow_outside)?;
            options.side_files.splice(0..0, beside);
        }
        let record = output.record.then(|| RecordFile::write(&self.record(), out)).transpose()?;
        options.side_files.extend(record.iter().map(RecordFile::path));
        options.protect.extend(self.source.protected());
        execute::write(&self.plan, tensors, out, &options)
    }

    /// Changes the files of the checkpoint themselves, if no tensor has to move.
    ///
    /// # Errors
    /// If the source isn't files; and as [`execute::patch`].
    pub fn patch(&self, options: &PatchOptions<'_>) -> Result<Report> {
        self.source.tensors()?;
        if self.rank_files.is_some() {
            let error = Error::new(ErrorKind::Unsupported, "the files of ranks are new files");
            return Err(error.hint("name a directory for them"));
        }
        execute::patch(&self.plan, self.files()?, options)
    }

    /// How bytes would come from the source into files.
    ///
    /// # Errors
    /// If the source isn't files; and as [`execute::lanes`].
    pub fn lanes(&self, options: &WriteOptions<'_>) -> Result<Lanes> {
        execute::lanes(&self.plan, self.files()?, &self.with_rank_files(options))
    }

    /// How the files of ranks are called, if that is what the rules write.
    pub fn rank_files(&self) -> Option<&RankFiles> {
        self.rank_files.as_ref()
    }

    fn with_rank_files<'a>(&self, options: &WriteOptions<'a>) -> WriteOptions<'a> {
        let rank_files = options.rank_files.clone().or_else(|| self.rank_files.clone());
        WriteOptions { rank_files, ..options.clone() }
    }

    fn files(&self) -> Result<&Checkpoint> {
        self.source.checkpoint().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the source is in memory, not in files")
        })
    }
}
