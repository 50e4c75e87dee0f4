//! The library: rule files embedded in the binary, found by name, by file, or by what config.json
//! and the layouts ask for.

mod detect;
mod examples;
mod recognize;
mod route;
mod unwrapped;
mod vocabulary;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::check::{Includes, NotIncluded, Rules, check, check_proven};
use crate::config::Config;
use crate::diagnostic::codes::{NO_WAY, UNKNOWN_RULES};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, did_you_mean};
use crate::error::Error;
use crate::plan::{Plan, Verdict};
use crate::tensor::Header;

pub use detect::{Detection, detect};
pub use examples::check_examples;
pub use recognize::{Recognized, recognize, recognize_towards};
pub use route::Route;
pub use unwrapped::{Wrapper, wrapped};

/// Name and text of each embedded file.
static FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/library.rs"));

/// The largest rule file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Rules that normalize every checkpoint when rules are chosen by config.json.
const ALWAYS_FIRST: &str = "wrappers";

/// The layout that is published.
pub const HUB: &str = "hub";
/// The layout that transformers v5 holds in memory: the newest version that rules were written for.
pub const MODEL: &str = "model";
/// How layouts begin that an older version holds in memory, where it has other names: `model_5_23`.
const OLDER_MODEL: &str = "model_";
/// Asks for what the newest version holds, whatever version wrote the config.json.
const NEWEST_MODEL: &str = "model_5_24";

/// Whether a layout is one that a version of transformers holds in memory.
pub(crate) fn is_in_memory(layout: &str) -> bool {
    layout == MODEL || layout.starts_with(OLDER_MODEL)
}

/// Whether a layout is one that models share, and says nothing of who made a checkpoint.
pub fn is_shared(layout: &str) -> bool {
    layout == HUB || is_in_memory(layout)
}

/// Names of the embedded rule files, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The text of an embedded rule file.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.binary_search_by(|(known, _)| known.cmp(&name)).ok().map(|at| FILES[at].1)
}

/// An embedded rule file. What is broken doesn't ship, and a test has proven each file, so `None`
/// means that there is none of that name, and nothing is proven again.
pub fn rules(name: &str) -> Option<&'static Rules> {
    let at = FILES.binary_search_by(|(known, _)| known.cmp(&name)).ok()?;
    static CHECKED: OnceLock<Vec<OnceLock<Option<Rules>>>> = OnceLock::new();
    let checked = CHECKED.get_or_init(|| FILES.iter().map(|_| OnceLock::new()).collect());
    checked[at]
        .get_or_init(|| check_proven(&embedded(FILES[at].0, FILES[at].1), &Library::default()).ok())
        .as_ref()
}

/// What stands at the head of a rule file.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Head {
    /// Left and right layout.
    pub layouts: Option<(String, String)>,
    /// Class names and model types it is for.
    pub models: Vec<String>,
}

/// The head of an embedded rule file, without what follows it.
pub fn head(name: &str) -> Option<Head> {
    let text = text(name)?;
    let goes_on = |line: &&str| {
        let word = line.split(' ').next().unwrap_or_default();
        matches!(word, "ruleset" | "models" | "shards")
            || !line.starts_with(|c: char| c.is_ascii_lowercase())
    };
    let length: usize = text.split_inclusive('\n').take_while(goes_on).map(str::len).sum();
    Some(head_of(&embedded(name, &text[..length])))
}

/// The head of a rule file.
pub fn head_of(source: &Arc<SourceText>) -> Head {
    use crate::syntax::ast::StatementKind;
    let mut head = Head::default();
    for statement in crate::syntax::parse(Arc::clone(source)).file.statements {
        match statement.kind {
            StatementKind::Ruleset { layouts, .. } => {
                head.layouts = layouts.map(|(left, _, right)| (left.text, right.text))
            }
            StatementKind::Models(models) => {
                head.models.extend(models.into_iter().map(|model| model.text))
            }
            _ => {}
        }
    }
    head
}

fn embedded(name: &str, text: &str) -> Arc<SourceText> {
    Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() })
}

/// What `use` finds: embedded files by name, files in quotes beside the file that uses them.
///
/// Rules may come from strangers: files are read only in the folder of the rule file that was asked
/// for, and below it, however the way there is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Library {
    /// Whether files elsewhere may be used too.
    pub allow_outside: bool,
}

impl Includes for Library {
    fn load(
        &self,
        path: &str,
        is_file: bool,
        from: &SourceText,
        root: &SourceText,
    ) -> Result<Arc<SourceText>, NotIncluded> {
        if !is_file {
            let unknown =
                || NotIncluded::Unknown(format!("there is no rule file `{path}` in the library"));
            return text(path).map(|text| embedded(path, text)).ok_or_else(unknown);
        }
        let folder_of = |source: &SourceText| {
            Path::new(&source.name).parent().map(Path::to_owned).unwrap_or_default()
        };
        let (beside, root) = (folder_of(from).join(path), folder_of(root));
        if !self.allow_outside && !is_below(&beside, &root) {
            let root = if root.as_os_str().is_empty() { Path::new(".") } else { &root };
            return Err(NotIncluded::Outside(root.display().to_string()));
        }
        read(&beside).map_err(|error| NotIncluded::Unknown(error.to_string()))
    }

    fn known(&self) -> Vec<String> {
        names().map(str::to_owned).collect()
    }

    fn is_built_in(&self, source: &SourceText) -> bool {
        text(&source.name).is_some_and(|text| text == source.text)
    }
}

/// Whether a file lies in a folder or below: as it is written, and, where links lead, really.
fn is_below(file: &Path, folder: &Path) -> bool {
    use std::path::Component;
    let mut depth = 0usize;
    let Ok(rest) = file.strip_prefix(folder) else { return false };
    for component in rest.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (file.canonicalize(), folder.canonicalize()) {
        (Ok(file), Ok(folder)) => file.starts_with(folder),
        // What isn't there is told by the one who reads it.
        _ => true,
    }
}

/// Reads the text of a rule file.
///
/// # Errors
/// If it can't be read, is larger than 1 MiB or isn't UTF-8.
pub fn read(path: &Path) -> Result<Arc<SourceText>, Error> {
    use std::io::Read as _;
    let file = std::fs::File::open(path)
        .map_err(|error| Error::io("cannot open the rule file", path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("cannot read the rule file", path, error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::new(crate::error::ErrorKind::Limit, "a rule file is at most 1 MiB")
            .in_file(path));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::corrupt("a rule file is UTF-8 text, and this is not").in_file(path))?;
    Ok(Arc::new(SourceText { name: path.display().to_string(), text }))
}

/// Why rules could not be had, or a conversion not be planned.
#[derive(Debug)]
pub enum Failure {
    /// Rules are wrong, there are none of that name, or they don't fit the checkpoint.
    Rules(Diagnostics),
    /// The world failed.
    World(Error),
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Failure::Rules(diagnostics)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::World(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Rules(diagnostics) => diagnostics.fmt(f),
            Failure::World(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

/// Checks rules given as text.
///
/// # Errors
/// Everything that is wrong with them.
pub fn compile(text: &str) -> Result<Rules, Diagnostics> {
    check(&embedded("rules", text), &Library::default())
}

/// Loads rules by the name of an embedded file, or from a file (a path with a separator or the
/// ending `.graft`).
///
/// # Errors
/// If there are none of that name, the file can't be read, or they are wrong.
pub fn load(name: &str) -> Result<Rules, Failure> {
    load_with(name, Library::default())
}

/// [`load`], with a say in what the file may use.
///
/// # Errors
/// As [`load`].
pub fn load_with(name: &str, library: Library) -> Result<Rules, Failure> {
    let source = source_of(name)?;
    match library.is_built_in(&source).then(|| rules(&source.name)).flatten() {
        Some(rules) => Ok(rules.clone()),
        None => check(&source, &library).map_err(Failure::Rules),
    }
}

/// [`load_with`], with everything proven that can be, of embedded files too.
///
/// # Errors
/// As [`load`].
pub fn prove_with(name: &str, library: Library) -> Result<Rules, Failure> {
    check(&source_of(name)?, &library).map_err(Failure::Rules)
}

/// The text of an embedded file, or of a file.
fn source_of(name: &str) -> Result<Arc<SourceText>, Failure> {
    let is_file =
        name.ends_with(".graft") || name.starts_with('.') || Path::new(name).is_absolute();
    match text(name) {
        Some(text) if !is_file => Ok(embedded(name, text)),
        _ if is_file || Path::new(name).is_file() => read(Path::new(name)).map_err(Failure::World),
        _ => {
            let mut finding =
                Diagnostic::error(UNKNOWN_RULES, format!("there is no rule file `{name}`"));
            finding = match did_you_mean(name, names()) {
                Some(close) => finding.hint(format!("did you mean `{close}`?")),
                None => finding.hint("`regraft rules` lists those that are built in; a file of your own ends in .graft"),
            };
            Err(Failure::Rules(Diagnostics(vec![finding])))
        }
    }
}

/// What there is to say where rules were chosen by config.json, a person asked for a layout, and no
/// rule rewrote a key: a warning if the keys look like the layout of a rule file that isn't for
/// this model. Else they may well be what was asked for: many models have the same keys in memory
/// as on the hub.
pub fn no_way(header: &Header, plan: &Plan, to: &str) -> Option<Diagnostic> {
    if !matches!(plan.verdict, None | Some(Verdict::Neither)) {
        return None;
    }
    let (rules, layout, leads_to) =
        detect::foreign(header).filter(|(_, layout, _)| *layout != to)?;
    let message =
        format!("no rule led to `{to}`: the keys look like the layout `{layout}` of `{rules}`");
    let finding = Diagnostic::warning(NO_WAY, message)
        .keys(header.tensors.keys().take(5).map(|key| key.as_str()));
    Some(
        finding
            .hint(format!("name the rules `{rules}`, which lead from `{layout}` to `{leads_to}`")),
    )
}

/// The embedded rule files for a model: those that name its class, else those that name its model
/// type.
pub fn candidates(config: &Config) -> Vec<&'static Rules> {
    let for_any = |wanted: &[&str]| -> Vec<&'static Rules> {
        names().filter(|name| is_for(name, wanted)).filter_map(rules).collect()
    };
    for architecture in config.architectures() {
        let found = for_any(&[architecture]);
        if !found.is_empty() {
            return found;
        }
    }
    config.model_type().map(|model_type| for_any(&[model_type])).unwrap_or_default()
}

/// The embedded files that read files of ranks which are named as this one is.
pub(crate) fn for_rank_file(name: &str) -> Vec<&'static str> {
    let reads = |rules: &&Rules| {
        rules.shards.as_ref().is_some_and(|shards| shards.files.numbers(name).is_some())
    };
    let has_shards = |file: &&str| text(file).is_some_and(|text| text.contains("\nshards "));
    names().filter(has_shards).filter(|file| rules(file).filter(reads).is_some()).collect()
}

/// Whether an embedded file says that it is for one of these models: a look at its head, and only if
/// its text has the word at all, before it is checked.
fn is_for(name: &str, wanted: &[&str]) -> bool {
    text(name).is_some_and(|text| wanted.iter().any(|word| text.contains(word)))
        && head(name)
            .is_some_and(|head| head.models.iter().any(|model| wanted.contains(&model.as_str())))
}
