//! [`Tree`]: what a file holds beside and below its dicts, and which of them is the state dict.
//!
//! What PyTorch saves is any object: a state dict, a dict of state dicts with an optimizer's state
//! beside, a whole module. Every dict with tensors is a *root*, under which keys can be read. The
//! usual one is taken, unless somebody asks for another.

use std::collections::HashMap;

use super::tensor::{Meaning, Meanings, TorchTensor, Unknown};
use super::value::{Call, Id, Value, Values};
use crate::error::{Error, ErrorKind, Result};

/// How deep dicts may lie in each other.
const MAX_DEPTH: usize = 200;

/// Most tensors of a file: one in a dict that is in many places counts in each.
const MAX_KEYS: u64 = 10_000_000;

/// How the state dict is usually called among other things, in order.
const USUAL: &[&str] = &["state_dict", "model", "module", "model_state_dict"];

/// Words in the names of what training keeps beside a model.
const BESIDE: &[&str] = &["optim", "sched", "scaler", "rng", "callback", "loop"];

/// The values of a file as a tree.
pub(in crate::store) struct Tree<'v> {
    values: &'v Values,
    meanings: Meanings<'v>,
    /// How many tensors are in and below a value, where they were counted: those of models, and
    /// all.
    counts: HashMap<Id, [u64; 2]>,
    top: Id,
}

/// What a value is to a reader of state dicts.
pub(in crate::store) enum Kind<'v> {
    /// A tensor.
    Tensor,
    /// A tensor of a kind that can't be read, and what it is.
    Lost(String),
    /// A dict, a module, a list: what it holds, by name.
    Branch(Vec<(Name<'v>, Id)>),
    /// The result of a call that nobody makes here: its name, and the values in it.
    Foreign(&'v str, Vec<Id>),
    /// A number, a text, and the like.
    Plain,
}

/// How a value is called in what holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Name<'v> {
    /// By a text.
    Text(&'v str),
    /// By a number, as in a list.
    Number(i64),
    /// By something that is no part of a key.
    None,
}

/// What lies under a root.
#[derive(Default)]
pub(in crate::store) struct Below {
    /// Tensors, by their keys, in order.
    pub(in crate::store) tensors: Vec<(String, Id)>,
    /// Tensors that can't be read, and why.
    pub(in crate::store) lost: Vec<(String, String)>,
    /// What is no tensor.
    pub(in crate::store) plain: Vec<String>,
    /// What training keeps beside a model, and how many tensors it has.
    pub(in crate::store) beside: Vec<(String, u64)>,
    /// Values of classes that nobody knows here: where, and which class.
    pub(in crate::store) foreign: Vec<(String, String)>,
}

impl<'v> Tree<'v> {
    pub(in crate::store) fn new(values: &'v Values, meanings: Meanings<'v>, top: Id) -> Self {
        Self { values, meanings, counts: HashMap::new(), top }
    }

    /// What a value is.
    pub(in crate::store) fn kind(&self, id: Id) -> Kind<'v> {
        if let Some(tensor) = self.meanings.tensor(id) {
            return match self.odd_bits(&tensor) {
                Some(what) => Kind::Lost(what),
                None => Kind::Tensor,
            };
        }
        match self.values.get(id) {
            Some(Value::Dict(entries)) => Kind::Branch(self.named(entries)),
            Some(Value::List(items)) => Kind::Branch(numbered(items)),
            Some(Value::Tuple(_)) => Kind::Branch(numbered(self.values.tuple(id))),
            Some(Value::Call(call)) => self.kind_of_call(id, call),
            Some(Value::Persistent(_)) => Kind::Lost("a storage without a tensor".to_owned()),
            _ => Kind::Plain,
        }
    }

    fn kind_of_call(&self, id: Id, call: &'v Call) -> Kind<'v> {
        let name = self.called(call);
        if let Some(what) = LOST.iter().find(|(function, _)| *function == name) {
            return Kind::Lost(what.1.to_owned());
        }
        if let Some(Meaning::Unknown(Unknown::Arguments(name))) = self.meanings.get(id) {
            return Kind::Lost(format!("what {name} gives for such arguments"));
        }
        let state = call.state.and_then(|state| self.values.entries(state));
        if let Some(members) = state.and_then(|state| self.module(name, state)) {
            return Kind::Branch(members);
        }
        let is_dict = name == "collections.OrderedDict" || name == "collections.defaultdict";
        if is_dict || !call.entries.is_empty() {
            return Kind::Branch(self.named(&call.entries));
        }
        if PLAIN.contains(&name) || name.starts_with("numpy.") {
            return Kind::Plain;
        }
        let inside = [call.arguments].into_iter().chain(call.items.iter().copied());
        Kind::Foreign(name, inside.chain(call.state).collect())
    }

    /// The classes and functions that a file names to make values of, and that nobody knows here,
    /// wherever they are: each once.
    pub(in crate::store) fn foreign(&self) -> Vec<String> {
        let mut found = std::collections::BTreeSet::new();
        for (id, value) in self.values.iter() {
            if let Value::Call(call) = value
                && matches!(self.meanings.get(id), Some(Meaning::Unknown(_)))
                && let Kind::Foreign(name, _) = self.kind_of_call(id, call)
            {
                found.insert(name.to_owned());
            }
        }
        found.into_iter().collect()
    }

    /// The name of what is called: of a class, where a helper makes its instance.
    fn called(&self, call: &'v Call) -> &'v str {
        let first = self.values.tuple(call.arguments).first();
        match self.values.global(call.function) {
            Some("copyreg._reconstructor" | "copy_reg._reconstructor" | "copyreg.__newobj__") => {
                first.and_then(|class| self.values.global(*class)).unwrap_or_default()
            }
            Some("torch._tensor._rebuild_from_type_v2") => {
                let inner = first.and_then(|function| self.values.global(*function));
                match (inner, self.values.tuple(call.arguments).get(1)) {
                    (Some("torch._utils._rebuild_wrapper_subclass"), Some(class)) => {
                        self.values.global(*class).unwrap_or_default()
                    }
                    (inner, _) => inner.unwrap_or_default(),
                }
            }
            name => name.unwrap_or_default(),
        }
    }

    /// What a module holds that was saved whole: its parameters, buffers and modules; or what an
    /// object of a compiled one has.
    fn module(&self, name: &str, state: &'v [(Id, Id)]) -> Option<Vec<(Name<'v>, Id)>> {
        if name.starts_with("__torch__.") {
            return Some(self.named(state));
        }
        let field = |name: &str| {
            let found = state.iter().find(|(key, _)| self.values.text(*key) == Some(name));
            found.map(|(_, value)| *value)
        };
        let passing = field("_non_persistent_buffers_set").map(|set| self.texts(set));
        let passing = passing.unwrap_or_default();
        let entries = |name: &str| {
            let entries = field(name).and_then(|dict| self.values.entries(dict));
            entries.map(|entries| self.named(entries))
        };
        let (parameters, modules) = (entries("_parameters")?, entries("_modules")?);
        let buffers = entries("_buffers").unwrap_or_default().into_iter();
        let lasting = buffers.filter(|(name, _)| !passing.iter().any(|it| *name == Name::Text(it)));
        let all = parameters.into_iter().chain(lasting).chain(modules);
        Some(all.filter(|(_, id)| self.values.get(*id) != Some(&Value::None)).collect())
    }

    /// The texts of a set.
    fn texts(&self, set: Id) -> Vec<&'v str> {
        let items = match self.values.get(set) {
            Some(Value::Set(items)) => items.as_slice(),
            Some(Value::Call(call)) => {
                let list = self.values.tuple(call.arguments).first();
                list.and_then(|list| self.values.list(*list)).unwrap_or_default()
            }
            _ => &[],
        };
        items.iter().filter_map(|item| self.values.text(*item)).collect()
    }

    /// Entries by name; one that is set twice has its last value, where it was first.
    fn named(&self, entries: &'v [(Id, Id)]) -> Vec<(Name<'v>, Id)> {
        let mut places = HashMap::with_capacity(entries.len());
        let mut found: Vec<(Name<'v>, Id)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let name = match self.values.get(*key) {
                Some(Value::Text(_)) => Name::Text(self.values.text(*key).unwrap_or_default()),
                Some(Value::Int(number)) => Name::Number(*number),
                _ => Name::None,
            };
            let place = match name {
                Name::Text(text) => *places.entry(text).or_insert(found.len()),
                _ => found.len(),
            };
            match found.get_mut(place) {
                Some(entry) => entry.1 = *value,
                None => found.push((name, *value)),
            }
        }
        found
    }

    /// Why a tensor's bytes aren't its elements, if they aren't: bits beside them say so.
    fn odd_bits(&self, tensor: &TorchTensor<'_>) -> Option<String> {
        let entries = self.values.entries(tensor.metadata?)?;
        let set =
            entries.iter().filter(|(_, value)| self.values.get(*value) == Some(&Value::Bool(true)));
        let bit = set.filter_map(|(key, _)| self.values.text(*key)).next()?;
        Some(match bit {
            "conj" => "a tensor whose elements are to be conjugated".to_owned(),
            "neg" => "a tensor whose elements are to be negated".to_owned(),
            other => format!("a tensor with the unknown mark {other:?}"),
        })
    }

    /// Whether a dict is an optimizer's state: its tensors belong to no model.
    fn is_optimizer(&self, entries: &[(Name<'v>, Id)]) -> bool {
        let has = |wanted: &str| entries.iter().any(|(name, _)| *name == Name::Text(wanted));
        has("state") && has("param_groups")
    }

    /// How many tensors are in and below a value: those of models, and all. One that is in two
    /// places counts twice.
    fn count(&mut self, id: Id, depth: usize) -> Result<[u64; 2]> {
        if let Some(count) = self.counts.get(&id) {
            return Ok(*count);
        }
        too_deep(depth)?;
        // A value that holds itself adds nothing to itself.
        self.counts.insert(id, [0, 0]);
        let mut count = [0u64; 2];
        match self.kind(id) {
            Kind::Tensor | Kind::Lost(_) => count = [1, 1],
            Kind::Branch(entries) => {
                let is_optimizer = self.is_optimizer(&entries);
                for (_, inner) in entries {
                    let [models, all] = self.count(inner, depth + 1)?;
                    count[1] = count[1].saturating_add(all);
                    if !is_optimizer {
                        count[0] = count[0].saturating_add(models);
                    }
                }
            }
            Kind::Foreign(_, inside) => {
                for inner in inside {
                    count[1] = count[1].saturating_add(self.count(inner, depth + 1)?[1]);
                }
            }
            Kind::Plain => {}
        }
        self.counts.insert(id, count);
        Ok(count)
    }

    /// The state dict: by the path that somebody asks for, or the usual one.
    ///
    /// # Errors
    /// If there is none there; or dicts lie too deep in each other.
    pub(in crate::store) fn root(&mut self, asked: Option<&str>) -> Result<(Vec<String>, Id)> {
        match asked {
            Some(path) => self.at(path),
            None => self.usual(),
        }
    }

    fn at(&self, path: &str) -> Result<(Vec<String>, Id)> {
        let (mut id, mut rest, mut taken) = (self.top, path, Vec::new());
        while !rest.is_empty() {
            let Kind::Branch(entries) = self.kind(id) else { return Err(self.no_root(path)) };
            // A name may have dots itself: the longest that fits is meant.
            let fitting = entries.iter().filter_map(|(name, inner)| {
                let name = name.text()?;
                let behind = rest.strip_prefix(&*name)?;
                (behind.is_empty() || behind.starts_with('.')).then_some((name, *inner))
            });
            let Some((name, inner)) = fitting.max_by_key(|(name, _)| name.len()) else {
                return Err(self.no_root(path));
            };
            rest = rest.get(name.len()..).unwrap_or_default();
            rest = rest.strip_prefix('.').unwrap_or(rest);
            taken.push(name.into_owned());
            id = inner;
        }
        Ok((taken, id))
    }

    fn no_root(&self, path: &str) -> Error {
        let there = self.roots().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        let error = Error::new(ErrorKind::Unsupported, format!("the file has nothing at {path:?}"));
        match there.as_slice() {
            [] => error,
            some => error.hint(format!("it has tensors at {}", listed(some))),
        }
    }

    fn usual(&mut self) -> Result<(Vec<String>, Id)> {
        let (mut id, mut taken) = (self.top, Vec::new());
        loop {
            let Kind::Branch(entries) = self.kind(id) else { return Ok((taken, id)) };
            let mut inner = Vec::new();
            let mut direct = false;
            for (name, value) in &entries {
                let Name::Text(text) = *name else {
                    direct |= self.count(*value, 0)?[0] > 0;
                    continue;
                };
                if self.is_beside(*name, *value) {
                    continue;
                }
                match self.kind(*value) {
                    Kind::Tensor | Kind::Lost(_) => direct = true,
                    Kind::Branch(_) if self.count(*value, 0)?[0] > 0 => inner.push((text, *value)),
                    _ => {}
                }
            }
            let names: Vec<&str> = inner.iter().map(|(name, _)| *name).collect();
            let Some(next) = usual_of(&names, direct).and_then(|at| inner.get(at)) else {
                return Ok((taken, id));
            };
            too_deep(taken.len())?;
            taken.push(next.0.to_owned());
            id = next.1;
        }
    }

    /// Every dict that has tensors, by its path, and how many are right in it; those with the fewest
    /// names first. Not all of a file that has thousands, and not those of an optimizer's state.
    pub(in crate::store) fn roots(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let mut at = std::collections::VecDeque::from([(String::new(), self.top, 0usize)]);
        let mut seen = std::collections::HashSet::new();
        while let Some((path, id, depth)) = at.pop_front() {
            if found.len() >= 100 || depth > 8 || !seen.insert((id, depth)) || seen.len() > 100_000
            {
                continue;
            }
            let Kind::Branch(entries) = self.kind(id) else { continue };
            let mut tensors = 0;
            for (name, inner) in &entries {
                match self.kind(*inner) {
                    Kind::Tensor | Kind::Lost(_) => tensors += 1,
                    Kind::Branch(_) => {
                        if let Some(text) = name.text().filter(|_| !self.is_beside(*name, *inner)) {
                            let name = text;
                            at.push_back((join(&path, &name), *inner, depth + 1));
                        }
                    }
                    _ => {}
                }
            }
            if tensors > 0 {
                found.push((path, tensors));
            }
        }
        found
    }

    /// What lies beside a path, from the top: where, and how many tensors it has, optimizers'
    /// included.
    pub(in crate::store) fn beside(&self, path: &[String]) -> Vec<(String, u64)> {
        let (mut id, mut at, mut found) = (self.top, String::new(), Vec::new());
        for taken in path {
            let Kind::Branch(entries) = self.kind(id) else { break };
            let mut next = None;
            for (name, inner) in entries {
                match name.text() {
                    Some(name) if name == **taken => next = Some(inner),
                    Some(name) => found.push((join(&at, &name), self.all_below(inner))),
                    None => found.push((at.clone(), self.all_below(inner))),
                }
            }
            let Some(next) = next else { break };
            (id, at) = (next, join(&at, taken));
        }
        found
    }

    /// How many tensors are in and below a value, each once.
    fn all_below(&self, id: Id) -> u64 {
        let (mut count, mut stack) = (0, vec![id]);
        let mut seen = std::collections::HashSet::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.kind(id) {
                Kind::Tensor | Kind::Lost(_) => count += 1,
                Kind::Branch(entries) => stack.extend(entries.into_iter().map(|(_, id)| id)),
                Kind::Foreign(_, inside) => stack.extend(inside),
                Kind::Plain => {}
            }
        }
        count
    }

    /// Everything below a root, by key. If nobody asked for that root, what training keeps beside
    /// a model is left out, where it lies right in it.
    ///
    /// # Errors
    /// If values lie too deep in each other, or there are too many.
    pub(in crate::store) fn below(&mut self, root: Id, is_asked: bool) -> Result<Below> {
        let [_, all] = self.count(root, 0)?;
        if all > MAX_KEYS {
            let why = format!(
                "{all} tensors, as dicts that are in many places count; {MAX_KEYS} are read"
            );
            return Err(Error::new(ErrorKind::Limit, why));
        }
        let mut walk = Walk { tree: self, found: Below::default(), path: Vec::new(), is_asked };
        walk.visit(root, &mut String::new())?;
        Ok(walk.found)
    }

    /// Whether an entry is what training keeps beside a model.
    fn is_beside(&self, name: Name<'_>, id: Id) -> bool {
        name.text().is_some_and(|name| is_beside(&name))
            || matches!(self.kind(id), Kind::Branch(entries) if self.is_optimizer(&entries))
    }
}

/// Functions that rebuild tensors which no other format has, and what these are.
const LOST: &[(&str, &str)] = &[
    ("torch._utils._rebuild_sparse_tensor", "a sparse tensor"),
    ("torch._utils._rebuild_sparse_csr_tensor", "a sparse tensor"),
    ("torch._utils._rebuild_qtensor", "a quantized tensor"),
    ("torch._utils._rebuild_nested_tensor", "a nested tensor"),
    ("torch._utils._rebuild_meta_tensor_no_storage", "a meta tensor, which has no bytes"),
    ("torch._utils._rebuild_device_tensor_from_numpy", "a tensor of another device, as NumPy's"),
    ("torch._utils._rebuild_device_tensor_from_cpu_tensor", "a tensor of another device"),
    ("torch.distributed.tensor.DTensor", "a part of a distributed tensor"),
    ("torch.distributed.tensor._api.DTensor", "a part of a distributed tensor"),
    ("torch.distributed._tensor.api.DTensor", "a part of a distributed tensor"),
    ("torch.distributed._shard.sharded_tensor.api.ShardedTensor", "a part of a distributed tensor"),
];

/// Classes and functions whose values are plain: no tensor, and nothing that a reader misses.
const PLAIN: &[&str] = &[
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "builtins.set",
    "__builtin__.set",
    "builtins.frozenset",
    "builtins.complex",
    "builtins.bytearray",
    "builtins.slice",
    "collections.Counter",
    "collections.deque",
    "_codecs.encode",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "pathlib.WindowsPath",
    "datetime.datetime",
    "datetime.timedelta",
    "decimal.Decimal",
    "uuid.UUID",
];

impl Name<'_> {
    /// It as a part of a key.
    pub(in crate::store) fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::Text(text) => Some((*text).into()),
            Self::Number(number) => Some(number.to_string().into()),
            Self::None => None,
        }
    }
}

fn numbered<'v>(items: &[Id]) -> Vec<(Name<'v>, Id)> {
    (0..).map(Name::Number).zip(items.iter().copied()).collect()
}

fn too_deep(depth: usize) -> Result<()> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    let why = format!("values lie more than {MAX_DEPTH} deep in each other");
    Err(Error::new(ErrorKind::Limit, why))
}

/// Whether a name is one of what training keeps beside a model.
pub(in crate::store) fn is_beside(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A name with dots is a key, in which such a word means something else.
    !name.contains('.') && BESIDE.iter().any(|word| name.contains(word))
}

/// Which of several dicts with tensors is the state dict, or holds it; none if it is what holds
/// them all. `direct`: whether there are tensors beside them.
pub(in crate::store) fn usual_of(names: &[&str], direct: bool) -> Option<usize> {
    // A module of a state dict may have such a name; then there is more beside it.
    if direct {
        return None;
    }
    let usual = USUAL.iter().find_map(|usual| names.iter().position(|name| name == usual));
    usual.or_else(|| (names.len() == 1).then_some(0))
}

/// A name behind a path.
pub(in crate::store) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The first few of a list.
pub(in crate::store) fn listed(names: &[String]) -> String {
    let named = |name: &String| if name.is_empty() { "the top".to_owned() } else { name.clone() };
    let first: Vec<String> = names.iter().take(5).map(named).collect();
    let more = names.len().saturating_sub(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// A walk over what lies below a root.
struct Walk<'t, 'v> {
    tree: &'t Tree<'v>,
    found: Below,
    /// The values that hold the one that is looked at.
    path: Vec<Id>,
    is_asked: bool,
}

impl Walk<'_, '_> {
    fn visit(&mut self, id: Id, key: &mut String) -> Result<()> {
        match self.tree.kind(id) {
            Kind::Tensor => {
                // A tensor that was saved alone has no name.
                let key = if self.path.is_empty() { "tensor".to_owned() } else { key.clone() };
                self.found.tensors.push((key, id));
            }
            Kind::Lost(what) => self.found.lost.push((key.clone(), what)),
            Kind::Plain => self.found.plain.push(key.clone()),
            Kind::Foreign(class, _) => {
                if self.tree.all_below(id) > 0 {
                    let what =
                        format!("a tensor in a value of {class}, which regraft doesn't know");
                    self.found.lost.push((key.clone(), what));
                } else {
                    self.found.foreign.push((key.clone(), class.to_owned()));
                }
            }
            Kind::Branch(entries) => {
                too_deep(self.path.len())?;
                // What holds itself has no more to give.
                if self.path.contains(&id) {
                    return Ok(());
                }
                // What has no tensor is one value, however much is in it.
                if self.tree.counts.get(&id).is_some_and(|[_, all]| *all == 0) {
                    if !entries.is_empty() {
                        self.found.plain.push(key.clone());
                    }
                    return Ok(());
                }
                self.path.push(id);
                for (name, inner) in entries {
                    self.entry(name, inner, key)?;
                }
                self.path.pop();
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: Name<'_>, inner: Id, key: &mut String) -> Result<()> {
        let Some(name) = name.text() else {
            let tensors = self.tree.all_below(inner);
            if tensors > 0 {
                let what = "a tensor under a name that is neither text nor a number";
                self.found.lost.push((key.clone(), what.to_owned()));
            }
            return Ok(());
        };
        if self.path.len() == 1 && !self.is_asked && self.tree.is_beside(Name::Text(&name), inner) {
            self.found.beside.push((name.into_owned(), self.tree.all_below(inner)));
            return Ok(());
        }
        let len = key.len();
        if self.path.len() > 1 {
            key.push('.');
        }
        key.push_str(&name);
        self.visit(inner, key)?;
        key.truncate(len);
        Ok(())
    }
}
