//! Plans: made from rules and headers, and handed to Python as columns of keys and nodes.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use regraft::Failure;
use regraft::check::Direction;
use regraft::check::value::Value;
use regraft::conversion::{Conversion, Planned};
use regraft::key::Key;
use regraft::overview::{Overview, Page, Sights};
use regraft::plan::{
    Answer, Argument, DropReason, NodeId, Op, Question, Record, RuleId, States, Target,
};

use crate::errors;
use crate::files::Checkpoint;
use crate::header::{Config, Header, Shapes, Wanted, of_columns};
use crate::pool::with_threads;
use crate::rules::Rules;

/// A plan: how each key of the result is made.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Plan {
    pub(crate) planned: Planned,
    /// The targets in the order in which memory has them, made when it is first asked for, unless
    /// what was wanted says it.
    order: OnceLock<Vec<usize>>,
}

/// What a plan is made for.
#[derive(FromPyObject)]
pub(crate) enum Source<'py> {
    /// Tensors in memory.
    Header(PyRef<'py, Header>),
    /// Files.
    Checkpoint(PyRef<'py, Checkpoint>),
}

/// Plans rules, or without any those that the config asks for.
///
/// `equal(a, b)` gives how many bytes of two tensors differ, or `None` if that can't be known; a
/// checkpoint in files without it compares the files.
#[pyfunction]
#[pyo3(signature = (source, rules, *, config, from_layout, to_layout, reverse, tied, parameters, wanted, part, strict, allow_lossy, record, states, equal))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn plan(
    py: Python<'_>,
    source: Source<'_>,
    rules: Option<Vec<PyRef<'_, Rules>>>,
    config: PyRef<'_, Config>,
    from_layout: Option<&str>,
    to_layout: Option<&str>,
    reverse: bool,
    tied: Option<bool>,
    parameters: &str,
    wanted: Option<PyRef<'_, Wanted>>,
    part: bool,
    strict: bool,
    allow_lossy: bool,
    record: Option<(Vec<u8>, PathBuf)>,
    states: Option<Vec<(String, Vec<u8>)>>,
    equal: Option<Py<PyAny>>,
) -> PyResult<Plan> {
    let mut conversion = match &source {
        Source::Header(header) => Conversion::of_header(Arc::clone(&header.header)),
        Source::Checkpoint(checkpoint) => checkpoint.conversion(),
    };
    conversion = conversion
        .config(config.config.clone())
        .reverse(reverse)
        .strict(strict)
        .allow_lossy(allow_lossy);
    if let Some(rules) = rules {
        conversion = conversion.rules(rules.iter().map(|rules| rules.rules.clone()));
    }
    if let Some(layout) = from_layout {
        conversion = conversion.from(layout);
    }
    if let Some(layout) = to_layout {
        conversion = conversion.to(layout);
    }
    if let Some(tied) = tied {
        conversion = conversion.tied(tied);
    }
    for (name, value) in read_parameters(parameters)? {
        conversion = conversion.set(name, value);
    }
    if let Some(wanted) = &wanted {
        conversion = conversion.target(wanted.target(part));
    }
    if let Some((bytes, file)) = record {
        let record = Record::from_bytes(&bytes, &file);
        conversion = conversion.record(record.map_err(|error| errors::world(py, &error))?);
    }
    if let Some(states) = states {
        let states = states.into_iter().map(|(key, bytes)| (Key::from(key), bytes));
        conversion = conversion.states(States::of_bytes(states));
    }
    let in_order = wanted.as_ref().filter(|wanted| wanted.in_order).map(|wanted| &wanted.wanted);
    let made = py.detach(|| {
        with_threads(|| {
            let prepared = conversion.prepare().map_err(Unplanned::Failed)?;
            let planned = match &equal {
                None => prepared.plan().map_err(Unplanned::Failed)?,
                Some(equal) => prepared
                    .plan_answering(|question| asked(equal, question))
                    .map_err(Unplanned::Raised)?
                    .map_err(|diagnostics| Unplanned::Failed(diagnostics.into()))?,
            };
            let order = in_order.map(|wanted| order(&planned, Some(wanted)));
            Ok(Plan { planned, order: order.map_or_else(OnceLock::new, OnceLock::from) })
        })
    });
    made.map_err(|unplanned| match unplanned {
        Unplanned::Raised(error) => error,
        // A layout that no rules have is the caller's mistake, as is a checkpoint that doesn't fit.
        Unplanned::Failed(Failure::Rules(diagnostics)) => errors::plan(py, &diagnostics),
        Unplanned::Failed(Failure::World(error)) => errors::world(py, &error),
    })
}

/// A part of a page for a notebook: how a result meets its target.
#[pyfunction]
pub(crate) fn report_html(
    missing: Vec<String>,
    unexpected: Vec<String>,
    mismatched: Vec<String>,
    ties: Vec<(String, String)>,
    dropped: Vec<(String, String)>,
) -> String {
    Page::of_report(&missing, &unexpected, &mismatched, &ties, &dropped).fragment()
}

/// Asks what the caller gave to compare with how many bytes differ.
fn asked(equal: &Py<PyAny>, question: &Question) -> PyResult<Answer> {
    let (a, b) = (question.a.as_str(), question.b.as_str());
    let differing: Option<u64> = Python::attach(|py| equal.call1(py, (a, b))?.extract(py))?;
    Ok(differing.map_or(Answer::Unknown, Answer::of_differing))
}

/// Why there is no plan.
enum Unplanned {
    /// What the caller gave to compare with raised this.
    Raised(PyErr),
    /// Rules don't fit, or the world failed.
    Failed(Failure),
}

/// The targets in the order of a target that has one, else in that of what they are made from: a
/// dict in memory is gone through by position as well.
///
/// What comes from one tensor keeps its place in it. What is tied to another key, and what is made
/// from nothing, comes last.
fn order(planned: &Planned, wanted: Option<&regraft::tensor::Wanted>) -> Vec<usize> {
    const LAST: (usize, u64) = (usize::MAX, 0);
    let (plan, header) = (&planned.plan, planned.header());
    let mut places: Vec<(usize, u64)> = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let first =
            node.inputs.iter().filter_map(|input| places.get(input.0 as usize).copied()).min();
        places.push(match &node.op {
            Op::Source { key } => header.tensors.get_index_of(key).map_or(LAST, |at| (at, 0)),
            Op::Narrow { start, .. } => {
                first.map_or(LAST, |(at, within)| (at, within.saturating_add(*start)))
            }
            _ => first.unwrap_or(LAST),
        });
    }
    let place = |target: &Target| {
        if let Some(wanted) = wanted {
            return wanted.keys.get_index_of(&target.key).map_or(LAST, |at| (at, 0));
        }
        match target.tied_to {
            Some(_) => header.tensors.get_index_of(&target.key).map_or(LAST, |at| (at, 0)),
            None => places.get(target.node.0 as usize).copied().unwrap_or(LAST),
        }
    };
    let mut order: Vec<usize> = (0..plan.targets.len()).collect();
    order.sort_by_cached_key(|at| plan.targets.get(*at).map_or(LAST, place));
    order
}

/// Parameters from a JSON object.
fn read_parameters(text: &str) -> PyResult<IndexMap<String, Value>> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| {
            PyValueError::new_err(format!("parameters are a mapping of names to values: {error}"))
        })?;
    let mut parameters = IndexMap::new();
    for (name, value) in object {
        if value.is_object() {
            return Err(PyValueError::new_err(format!(
                "the parameter {name:?} is a mapping; a number, text, boolean or list is asked for"
            )));
        }
        parameters.insert(name, Value::from_json(&value));
    }
    Ok(parameters)
}

#[pymethods]
impl Plan {
    fn __len__(&self) -> usize {
        self.planned.plan.targets.len()
    }

    /// Every node, inputs first: a key of the checkpoint as it is, anything else as (op, inputs,
    /// arguments, dtype, shape).
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let mut shapes = Shapes::new(py);
        for node in &self.planned.plan.nodes {
            if let Op::Source { key } = &node.op {
                list.append(PyString::new(py, key))?;
                continue;
            }
            let primitive = node.primitive();
            let arguments = PyList::empty(py);
            for argument in &primitive.arguments {
                give(argument, &arguments)?;
            }
            let inputs = PyTuple::new(py, node.inputs.iter().map(|input| input.0))?;
            let shape = shapes.tuple(&node.info.shape)?;
            list.append((
                PyString::intern(py, primitive.name),
                inputs,
                arguments.to_tuple(),
                PyString::intern(py, node.info.dtype.name()),
                shape,
            ))?;
        }
        Ok(list)
    }

    /// Keys of the result in natural order.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.planned.plan.targets.iter().map(|target| target.key.as_str()))
    }

    /// Keys of the result as a dict has them, and the number of the node that each is.
    fn targets<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyList>, Vec<u32>)> {
        let order = self.order.get_or_init(|| order(&self.planned, None));
        let in_order: Vec<&Target> =
            order.iter().filter_map(|at| self.planned.plan.targets.get(*at)).collect();
        let keys = PyList::new(py, in_order.iter().map(|target| target.key.as_str()))?;
        Ok((keys, in_order.iter().map(|target| target.node.0).collect()))
    }

    /// What was asked about the bytes of two keys, and how many differ.
    fn compared(&self) -> Vec<(&str, &str, Option<u64>)> {
        let differing = |answer: &Answer| match answer {
            Answer::Equal => Some(0),
            Answer::Differ(bytes) => Some(*bytes),
            _ => None,
        };
        self.planned
            .compared
            .iter()
            .map(|(asked, found)| (asked.a.as_str(), asked.b.as_str(), differing(found)))
            .collect()
    }

    /// Why a state dict with these keys, dtypes and shapes isn't the one that the plan is for;
    /// `None` if it is.
    fn misfits(
        &self,
        keys: &Bound<'_, PyList>,
        dtypes: &Bound<'_, PyList>,
        shapes: &Bound<'_, PyList>,
    ) -> PyResult<Option<String>> {
        let given = of_columns(keys, dtypes, shapes)?;
        for node in &self.planned.plan.nodes {
            let Op::Source { key } = &node.op else { continue };
            match given.get(key) {
                Some(info) if *info == node.info => {}
                Some(info) => {
                    return Ok(Some(format!(
                        "{key} is {info}, and the plan asks for {}",
                        node.info
                    )));
                }
                None => return Ok(Some(format!("it has no key {key}"))),
            }
        }
        Ok(None)
    }

    /// dtype, shape and tied key of a target, all that a reader needs; `None` if there is no such
    /// target.
    #[allow(clippy::type_complexity)]
    fn info<'py>(
        &self,
        py: Python<'py>,
        key: &str,
    ) -> PyResult<Option<(Bound<'py, PyString>, Bound<'py, PyTuple>, Option<&str>)>> {
        let Some(target) = self.planned.plan.target(key) else { return Ok(None) };
        let info = self.planned.plan.info(target);
        let dtype = PyString::intern(py, info.dtype.name());
        let shape = PyTuple::new(py, info.shape.iter())?;
        Ok(Some((dtype, shape, target.tied_to.as_deref())))
    }

    /// dtype, shape, source keys, rules and tied key of a target; `None` if there is no such
    /// target.
    #[allow(clippy::type_complexity)]
    fn target(
        &self,
        key: &str,
    ) -> Option<(&'static str, Vec<u64>, Vec<String>, Vec<String>, Option<String>)> {
        let target = self.planned.plan.target(key)?;
        let info = self.planned.plan.info(target);
        let sources = self.sources(target.node).into_iter().map(str::to_owned).collect();
        let rules = target.rules.iter().map(|rule| self.rule(*rule)).collect();
        Some((
            info.dtype.name(),
            info.shape.to_vec(),
            sources,
            rules,
            target.tied_to.as_ref().map(ToString::to_string),
        ))
    }

    /// Keys that are one tensor with another, and that one.
    fn ties(&self) -> Vec<(String, String)> {
        let tied =
            |target: &Target| Some((target.key.to_string(), target.tied_to.as_ref()?.to_string()));
        let dropped =
            self.planned.plan.dropped.iter().filter_map(|dropped| match &dropped.reason {
                DropReason::TiedTo(key) => Some((dropped.key.to_string(), key.to_string())),
                _ => None,
            });
        self.planned.plan.targets.iter().filter_map(tied).chain(dropped).collect()
    }

    /// Keys of the checkpoint that no target uses, and why.
    fn dropped(&self) -> Vec<(String, String)> {
        self.planned
            .plan
            .dropped
            .iter()
            .map(|dropped| (dropped.key.to_string(), self.why(&dropped.reason)))
            .collect()
    }

    /// Missing, unexpected and mismatched keys, if a target was asked for.
    fn report(&self) -> Option<[Vec<String>; 3]> {
        let report = self.planned.plan.report.as_ref()?;
        Some(
            [&report.missing, &report.unexpected, &report.mismatched]
                .map(|keys| keys.iter().map(ToString::to_string).collect()),
        )
    }

    /// Notes and warnings: rendered, and as JSON.
    fn findings(&self) -> (Vec<String>, String) {
        let rendered = self
            .planned
            .plan
            .findings
            .iter()
            .map(|finding| regraft::diagnostic::render(finding, false))
            .collect();
        (rendered, errors::json(&self.planned.plan.findings))
    }

    /// In which layout the checkpoint was found.
    #[getter]
    fn verdict(&self) -> Option<String> {
        let json = serde_json::to_value(self.planned.plan.verdict?).ok()?;
        json.as_str().map(str::to_owned)
    }

    /// Whether word embeddings are tied, and what decided.
    #[getter]
    fn tied(&self) -> Option<(bool, String)> {
        self.planned
            .plan
            .tied
            .as_ref()
            .map(|decision| (decision.tied, decision.because.to_string()))
    }

    /// Names of the rules, and whether each is read backwards.
    #[getter]
    fn stages(&self) -> Vec<(String, bool)> {
        self.planned
            .route
            .describe()
            .into_iter()
            .map(|(name, direction)| (name, direction == Direction::Reverse))
            .collect()
    }

    /// What was done that the rules, read backwards, can't know, as the bytes of its file.
    fn record(&self, py: Python<'_>) -> PyResult<Cow<'_, [u8]>> {
        let bytes = self.planned.record().to_bytes();
        bytes.map(Cow::Owned).map_err(|error| errors::world(py, &error))
    }

    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| serde_json::to_string(&self.planned.plan))
            .map_err(|_| errors::fault(py, "a plan has no JSON form"))
    }

    fn to_text(&self, py: Python<'_>) -> String {
        py.detach(|| self.planned.plan.to_text())
    }

    /// A part of a page for a notebook.
    fn to_html(&self, py: Python<'_>) -> String {
        py.detach(|| {
            let (plan, header) = (&self.planned.plan, self.planned.header());
            let sights = Sights { unchanged: true, sharing: true };
            let overview = Overview::of(plan, header, sights);
            let names: Vec<String> =
                self.planned.route.describe().into_iter().map(|(name, _)| name).collect();
            let title = if names.is_empty() { "no rules".to_owned() } else { names.join(", ") };
            Page::of_plan(&title, plan, &overview).fragment()
        })
    }

    /// How a key of the result is made, or what becomes of a key of the checkpoint; `None` if there
    /// is no such key.
    fn explain(&self, key: &str) -> Option<String> {
        let mut out = String::new();
        let target = self.planned.plan.target(key);
        let users = self.users(key);
        let passed = target.is_some_and(|target| self.sources(target.node) == [key]);
        for target in users.iter().filter(|user| *user.key != *key) {
            let _ =
                writeln!(out, "{key} becomes {}  {}", target.key, self.planned.plan.info(target));
        }
        for dropped in self.planned.plan.dropped.iter().filter(|dropped| *dropped.key == *key) {
            let _ = writeln!(out, "{key} is dropped: {}", self.why(&dropped.reason));
        }
        if let Some(target) = target {
            let _ = writeln!(out, "{key}  {}", self.planned.plan.info(target));
            match &target.tied_to {
                Some(root) => {
                    let _ = writeln!(out, "  is one tensor with {root}");
                }
                None if passed && target.rules.is_empty() => out.push_str("  passes through\n"),
                None => {
                    let _ = writeln!(out, "  = {}", self.planned.plan.expression(target.node));
                }
            }
        }
        let of_users = users.iter().flat_map(|user| &user.rules);
        let rules: BTreeSet<RuleId> =
            target.into_iter().flat_map(|target| &target.rules).chain(of_users).copied().collect();
        for rule in rules {
            let _ = writeln!(out, "  by {}", self.rule(rule));
        }
        (!out.is_empty()).then_some(out)
    }
}

impl Plan {
    fn rule(&self, id: RuleId) -> String {
        self.planned
            .plan
            .rules
            .get(id.0 as usize)
            .map_or_else(String::new, |rule| format!("{}:{}  {}", rule.file, rule.line, rule.text))
    }

    fn why(&self, reason: &DropReason) -> String {
        match reason {
            DropReason::Rule(id) => format!("by {}", self.rule(*id)),
            DropReason::TiedTo(key) => format!("it is one tensor with {key}"),
            DropReason::NotWanted => "the target doesn't ask for it".to_owned(),
        }
    }

    /// The keys of the checkpoint that a node uses, each once, in order.
    fn sources(&self, node: NodeId) -> Vec<&str> {
        let (mut open, mut seen, mut found) = (vec![node], BTreeSet::new(), Vec::new());
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = self.planned.plan.node(id);
            if let Op::Source { key } = &node.op {
                found.push(key.as_str());
            }
            open.extend(node.inputs.iter().rev());
        }
        found
    }

    /// The targets that use a key of the checkpoint. Nodes come after their inputs, so one pass
    /// tells.
    fn users(&self, key: &str) -> Vec<&Target> {
        let mut uses: HashMap<NodeId, bool> = HashMap::with_capacity(self.planned.plan.nodes.len());
        for (id, node) in (0..).map(NodeId).zip(&self.planned.plan.nodes) {
            let used = match &node.op {
                Op::Source { key: source } => source.as_str() == key,
                _ => node.inputs.iter().any(|input| uses.get(input) == Some(&true)),
            };
            uses.insert(id, used);
        }
        self.planned
            .plan
            .targets
            .iter()
            .filter(|target| uses.get(&target.node) == Some(&true))
            .collect()
    }
}

/// Adds what an op was given.
fn give(argument: &Argument<'_>, to: &Bound<'_, PyList>) -> PyResult<()> {
    match argument {
        Argument::Key(key) => to.append(*key),
        Argument::Dim(dim) => to.append(*dim),
        Argument::Dims(dims) => dims.iter().try_for_each(|dim| to.append(*dim)),
        Argument::Range(start, len) => to.append(*start).and_then(|()| to.append(*len)),
        Argument::Value(value) => to.append(*value),
        Argument::Bits(bits) => to.append(*bits),
        Argument::Word(word) => to.append(*word),
    }
}
