//! [`Conversion`]: from a checkpoint and what a caller wants of it, to a plan and what it makes.
//!
//! Which checkpoint, which rules, which way, which facts decide, which keys are wanted: all that a
//! command line, a Python call and a Rust program ask alike is put together here, once.
//! [`Conversion`] holds what was asked for; [`Prepared`] what was read for it, which is everything
//! but tensors; [`Planned`] a plan with the checkpoint that it is for. Nothing here prints.

mod goal;
mod output;
mod part;
mod planned;
mod prepared;
mod source;

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::check::Rules;
use crate::check::value::Value;
use crate::config::Config;
use crate::error::Result;
use crate::library::{self, Failure};
use crate::plan::{Record, States};
use crate::store::{Checkpoint, NamedPath, OpenOptions, Store, pinned, there};
use crate::tensor::Header;

pub use goal::{Goal, GoalError};
pub use output::{Output, side_files_of};
pub use part::{PartError, TensorPart};
pub use planned::Planned;
pub use prepared::{Choice, Prepared, compare};
pub use source::{config_beside, config_in, config_of, read_config, record_beside, record_file};

use source::{Given, Source};

/// What is to be converted, and how: made by [`Conversion::open`], told more by the methods that
/// give it back, and carried out by [`Conversion::plan`].
#[derive(Clone)]
pub struct Conversion {
    given: Given,
    asked: Asked,
}

/// What a caller said. What it didn't say is found beside the checkpoint, or has a default.
#[derive(Clone, Default)]
struct Asked {
    /// `None`: those that the config asks for.
    rules: Option<Vec<Rules>>,
    from: Option<String>,
    to: Option<String>,
    reverse: bool,
    /// `None`: that beside the checkpoint.
    config: Option<Config>,
    parameters: IndexMap<String, Value>,
    tied: Option<bool>,
    target: Option<Goal>,
    parts: Vec<TensorPart>,
    not_strict: bool,
    allow_lossy: bool,
    /// `None`: that beside the checkpoint.
    record: Option<Record>,
    /// `None`: what the checkpoint's bytes say.
    states: Option<States>,
}

impl Conversion {
    /// Of a checkpoint: a safetensors file, a directory, an index, or a manifest. Only its headers
    /// are going to be read, by [`Conversion::prepare`]: rules may say how its files are told apart.
    ///
    /// # Errors
    /// If nothing is there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_all(&[path], &OpenOptions::default())
    }

    /// Of several paths that are one checkpoint together.
    ///
    /// # Errors
    /// If nothing is there at one of them.
    pub fn open_all<P: AsRef<Path>>(paths: &[P], options: &OpenOptions) -> Result<Self> {
        Self::open_named(paths.iter().map(NamedPath::from).collect(), options)
    }

    /// Of several paths that are one checkpoint together, some with names before their keys.
    ///
    /// # Errors
    /// If nothing is there at one of them.
    pub fn open_named(paths: Vec<NamedPath>, options: &OpenOptions) -> Result<Self> {
        let paths = pinned(&paths)?;
        paths.iter().try_for_each(|one| there(&one.path))?;
        Ok(Self::new(Given::Paths { paths, options: options.clone() }))
    }

    /// Of a checkpoint that was opened from these paths, whose directories have its side files;
    /// `allow_outside` says whether links among those may lead out of them.
    pub fn of_checkpoint<P: AsRef<Path>>(
        checkpoint: Arc<Checkpoint>,
        paths: &[P],
        allow_outside: bool,
    ) -> Self {
        let paths = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Self::new(Given::Source(Source::files(checkpoint, paths, allow_outside)))
    }

    /// Of tensors in memory, or in any other store. Nothing lies beside it: a config has to be
    /// given.
    pub fn of_store(store: Arc<dyn Store>) -> Self {
        Self::new(Given::Source(Source::store(store)))
    }

    /// Of keys, dtypes and shapes, without tensors: what can be planned, and not carried out.
    pub fn of_header(header: Arc<Header>) -> Self {
        Self::new(Given::Source(Source::header_alone(header)))
    }

    fn new(given: Given) -> Self {
        Self { given, asked: Asked::default() }
    }

    /// Applies these rules, one after the other, instead of those that the config asks for.
    #[must_use]
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rules>) -> Self {
        self.asked.rules = Some(rules.into_iter().collect());
        self
    }

    /// Applies rules of these names (of embedded files, or paths), instead of those that the config
    /// asks for.
    ///
    /// # Errors
    /// As [`library::load`].
    pub fn load<S: AsRef<str>>(
        self,
        names: impl IntoIterator<Item = S>,
    ) -> std::result::Result<Self, Failure> {
        let rules = names.into_iter().map(|name| library::load(name.as_ref()));
        let rules = rules.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(self.rules(rules))
    }

    /// Says which layout the checkpoint is in: `hub` where the config chooses the rules, unless
    /// [`Conversion::to`] says otherwise.
    #[must_use]
    pub fn from(mut self, layout: impl Into<String>) -> Self {
        self.asked.from = Some(layout.into());
        self
    }

    /// Says which layout to convert to: `model` where the config chooses the rules, unless
    /// [`Conversion::from`] says otherwise.
    #[must_use]
    pub fn to(mut self, layout: impl Into<String>) -> Self {
        self.asked.to = Some(layout.into());
        self
    }

    /// Reads the rules backwards.
    #[must_use]
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.asked.reverse = reverse;
        self
    }

    /// Takes this config, instead of the config.json beside the checkpoint.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.asked.config = Some(config);
        self
    }

    /// Gives a parameter of the rules (`let name`) a value. The last one given stands.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: Value) -> Self {
        self.asked.parameters.insert(name.into(), value);
        self
    }

    /// Says whether word embeddings are tied, whatever the config says.
    #[must_use]
    pub fn tied(mut self, tied: bool) -> Self {
        self.asked.tied = Some(tied);
        self
    }

    /// Says which keys the result must have.
    #[must_use]
    pub fn target(mut self, target: Goal) -> Self {
        self.asked.target = Some(target);
        self
    }

    /// Makes these parts of tensors instead of whole ones, as one of several ranks holds them; a
    /// [target](Self::target) is of whole tensors all the same. Tensors that no part is of stay
    /// whole.
    #[must_use]
    pub fn parts(mut self, parts: impl IntoIterator<Item = TensorPart>) -> Self {
        self.asked.parts = parts.into_iter().collect();
        self
    }

    /// Whether keys that the target misses or doesn't know stop the conversion, as they do by
    /// default; else they are findings.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.asked.not_strict = !strict;
        self
    }

    /// Whether steps that can't be undone are left out backwards, and noted, where they would be
    /// refused.
    #[must_use]
    pub fn allow_lossy(mut self, allow_lossy: bool) -> Self {
        self.asked.allow_lossy = allow_lossy;
        self
    }

    /// Takes this record of the conversion that is turned back, instead of that beside the
    /// checkpoint.
    #[must_use]
    pub fn record(mut self, record: Record) -> Self {
        self.asked.record = Some(record);
        self
    }

    /// Takes this for what quantized tensors say of themselves, as where only the caller holds them.
    #[must_use]
    pub fn states(mut self, states: States) -> Self {
        self.asked.states = Some(states);
        self
    }

    /// How the rules are going to be chosen, which the config decides where none are named. One
    /// beside the checkpoint is read, once.
    ///
    /// # Errors
    /// If the config beside the checkpoint can't be read.
    pub fn choice(&mut self) -> Result<Choice> {
        let config = match self.asked.config.take() {
            Some(config) => config,
            None => self.given.config()?,
        };
        let config = self.given.adapters()?.into_iter().try_fold(config, Config::with)?;
        let asked = &mut self.asked;
        let config = asked.config.insert(config);
        let says_what =
            asked.from.is_some() || asked.to.is_some() || asked.reverse || asked.target.is_some();
        let is_named = asked.rules.is_some();
        Ok(if is_named { Choice::Named } else { Choice::by(config, says_what) })
    }

    /// Reads what lies beside the checkpoint, chooses the rules, and opens the checkpoint as they
    /// say.
    ///
    /// # Errors
    /// If the config or the record beside the checkpoint can't be read, no rules have a layout
    /// that was asked for, or the checkpoint can't be opened, as [`store::open`](crate::store::open)
    /// says.
    pub fn prepare(mut self) -> std::result::Result<Prepared, Failure> {
        let choice = self.choice()?;
        Prepared::new(self.given, self.asked, choice)
    }

    /// Plans; bytes are read only where a tie has to be decided by them.
    ///
    /// # Errors
    /// As [`Conversion::prepare`] and [`Prepared::plan`].
    pub fn plan(self) -> std::result::Result<Planned, Failure> {
        self.prepare()?.plan()
    }
}
