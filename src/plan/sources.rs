//! Sources that can't be what they seem: files that are not there, layers that nobody has,
//! placeholders where tensors should be.
//!
//! Headers alone tell, so whoever plans is told: files and state dicts alike. What is merely
//! unusual stays quiet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;

use crate::config::Config;
use crate::diagnostic::codes::{
    FOREIGN_VALUE, LEFT_OUT, MISSING_FILE, MISSING_LAYER, PLACEHOLDER, ROOT, TOTAL_SIZE,
    UNLISTED_KEY, UNREADABLE, UNWRITABLE_KEY,
};
use crate::diagnostic::{Diagnostic, Severity};
use crate::key::{Key, natural_order};
use crate::plan::context::Context;
use crate::plan::{Plan, Target, counted};
use crate::tensor::{Header, MAX_KEY_LEN, MAX_RANK, METADATA, Remark, Wanted};

/// What is implausible about a source.
///
/// With `wanted` keys those decide what has to be there, not numbers. Without `strict`, what would
/// be an error is a warning.
pub fn implausible(
    header: &Header,
    config: &Config,
    wanted: Option<&Wanted>,
    strict: bool,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let layers = if wanted.is_some() { None } else { missing_layers(header, config) };
    for remark in &header.remarks {
        found.extend(of_files(remark, wanted, strict, layers.as_ref()));
    }
    // Files that are not there, and files that were left out on purpose, are why layers are not
    // there.
    if !header
        .remarks
        .iter()
        .any(|remark| matches!(remark, Remark::Gap { .. } | Remark::Part { .. }))
    {
        found.extend(layers.map(Layers::finding));
    }
    found.extend(placeholders(header));
    found
}

fn of_files(
    remark: &Remark,
    wanted: Option<&Wanted>,
    strict: bool,
    layers: Option<&Layers>,
) -> Option<Diagnostic> {
    match remark {
        Remark::Total { what } => Some(Diagnostic::note(TOTAL_SIZE, what.clone())),
        Remark::Root { .. }
        | Remark::LeftOut { .. }
        | Remark::Named { .. }
        | Remark::Foreign { .. } => told(remark),
        // A rule may drop them: what is left of them the end of planning tells.
        Remark::Unreadable { .. } => None,
        Remark::Gap { missing, count, of } => {
            let more = count.saturating_sub(missing.len() as u64);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let are = if *count == 1 { "is" } else { "are" };
            let message = format!(
                "{count} of {of} numbered files {are} not there: {}{more}",
                missing.join(", ")
            );
            let mut finding = Diagnostic::error(MISSING_FILE, message);
            finding.severity = match (wanted, strict) {
                (Some(_), _) => Severity::Note,
                (None, true) => Severity::Error,
                (None, false) => Severity::Warning,
            };
            if let Some(layers) = layers {
                finding = finding.hint(layers.message());
            }
            finding = finding.hint("fetch what is missing; a target manifest says that a part is enough, and so do files given by name");
            Some(if strict && wanted.is_none() {
                finding.hint("with --no-strict this is a finding, not a stop")
            } else {
                finding
            })
        }
        Remark::Part { file, of } => Some(Diagnostic::note(
            MISSING_FILE,
            format!("{file} is one of {of} files; what is given is a part of the checkpoint"),
        )),
        Remark::Ranks { file, others } => {
            let count = counted(others.len(), "more file");
            let are = if others.len() == 1 { "is" } else { "are" };
            let message = format!(
                "{file} holds a part of the tensors, and {count} of ranks beside it {are} not given: {}",
                some(others)
            );
            let finding = Diagnostic::warning(MISSING_FILE, message);
            Some(finding.hint("give the directory, or all of them by name"))
        }
        Remark::Unlisted { file, keys } => {
            let keys: Vec<&Key> = keys
                .iter()
                .filter(|key| wanted.is_none_or(|wanted| wanted.contains(key)))
                .collect();
            let count = counted(keys.len(), "key");
            (!keys.is_empty()).then(|| {
                let message = format!("{file} holds {count} that the index doesn't list: left out, as is the file");
                let finding = Diagnostic::warning(UNLISTED_KEY, message).keys(keys.iter().map(|key| key.as_str()));
                finding.hint("list them in the index if they belong to the model, give the files by name instead, or move the file away")
            })
        }
    }
}

/// The first of some names.
fn some(names: &[String]) -> String {
    const SOME: usize = 5;
    let more = if names.len() > SOME { ", …" } else { "" };
    let first: Vec<&str> = names.iter().take(SOME).map(String::as_str).collect();
    format!("{}{more}", first.join(", "))
}

/// What a file has besides the tensors of its state dict.
fn told(remark: &Remark) -> Option<Diagnostic> {
    match remark {
        Remark::Root { file, root, others } => {
            let finding = Diagnostic::note(
                ROOT,
                format!("the state dict of {file} is what it has at `{root}`"),
            );
            Some(if others.is_empty() {
                finding
            } else {
                let others: Vec<String> =
                    others.iter().take(8).map(|it| format!("`{it}`")).collect();
                finding.hint(format!(
                    "it has tensors at {} too: --root takes those",
                    others.join(", ")
                ))
            })
        }
        Remark::LeftOut { file, trees, plain } => {
            let tensors = trees.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
            let mut parts = Vec::new();
            if !trees.is_empty() {
                let named: Vec<String> = trees
                    .iter()
                    .take(8)
                    .map(|(path, count)| format!("`{path}` ({count})"))
                    .collect();
                let count = counted(usize::try_from(tensors).unwrap_or(usize::MAX), "tensor");
                parts.push(match trees.as_slice() {
                    [(path, _)] => format!("{count} in `{path}`"),
                    _ => format!("{count} in {}", named.join(", ")),
                });
            }
            if !plain.is_empty() {
                parts.push(format!("{} without a tensor", counted(plain.len(), "value")));
            }
            let message = format!("of {file} are left out: {}", parts.join("; "));
            let finding = Diagnostic::note(LEFT_OUT, message);
            Some(finding.keys(plain.iter().map(String::as_str)))
        }
        Remark::Named { file, names } => {
            let message = format!(
                "{file} names {} that regraft doesn't know, outside of its state dict; nothing was run",
                counted_of(names.len(), "class or function", "classes and functions"),
            );
            let finding = Diagnostic::note(FOREIGN_VALUE, message);
            Some(finding.keys(names.iter().map(String::as_str)))
        }
        Remark::Foreign { file, values } => {
            let classes: BTreeSet<&str> = values.iter().map(|(_, class)| class.as_str()).collect();
            let classes: Vec<String> = classes.iter().take(8).map(|it| format!("`{it}`")).collect();
            let message = format!(
                "the state dict of {file} has {} of {}: left out, and nothing of it was run",
                counted(values.len(), "value"),
                classes.join(", ")
            );
            let finding = Diagnostic::warning(FOREIGN_VALUE, message);
            Some(finding.keys(values.iter().map(|(path, _)| path.as_str())))
        }
        _ => None,
    }
}

fn counted_of(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The tensors of a header's files that can't be read, and what each is.
pub(super) fn unreadable(header: &Header) -> Vec<(Key, String)> {
    let of = |remark: &Remark| match remark {
        Remark::Unreadable { tensors, .. } => tensors.clone(),
        _ => Vec::new(),
    };
    header.remarks.iter().flat_map(of).collect()
}

/// What to say of tensors that can't be read, and that no rule dropped.
pub(super) fn not_read(context: &Context<'_>, tensors: &[(Key, String)]) -> Vec<Diagnostic> {
    let mut kinds: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for (key, what) in tensors {
        if context.options.wanted.is_none_or(|wanted| wanted.contains(key)) {
            kinds.entry(what).or_default().push(key);
        }
    }
    let finding = |(what, keys): (&str, Vec<&str>)| {
        let many = if keys.len() == 1 { String::new() } else { format!(" ({} keys)", keys.len()) };
        let mut finding = Diagnostic::error(UNREADABLE, format!("can't be read: {what}{many}"));
        if context.options.not_strict {
            finding.severity = Severity::Warning;
        }
        let first = keys.first().copied().unwrap_or_default();
        finding
            .hint(format!(
                "`drop \"{first}\"` in a rule file leaves it out; --no-strict leaves out all"
            ))
            .keys(keys)
    };
    kinds.into_iter().map(finding).collect()
}

/// Fields of a config that count a decoder's layers.
const COUNTS: &[&str] = &["num_hidden_layers", "n_layer", "n_layers", "num_layers"];

/// Where in a config they stand: at the top, or in what describes the language model of a larger
/// one.
const SECTIONS: &[&str] = &["text_config", "llm_config", "language_config"];

/// How lists of layers are called. Other lists, as of a `Sequential`, have gaps by nature.
const LISTS: &[&str] = &["layers", "layer", "h", "blocks", "block"];

/// Words in the names of towers whose layers are counted elsewhere.
const TOWERS: &[&str] =
    &["vision", "visual", "image", "img", "audio", "speech", "video", "mtp", "nextn", "draft"];

/// Names of what follows a model's last layer.
const ENDS: &[&str] =
    &["norm", "ln_f", "final_layernorm", "final_layer_norm", "lm_head", "embed_out", "output"];

/// The most layers that a config is believed to count.
const MOST: u64 = 100_000;

/// Layers that are counted and not there.
struct Layers {
    list: String,
    field: String,
    count: u64,
    missing: Vec<u64>,
}

impl Layers {
    fn message(&self) -> String {
        let numbers: Vec<String> = self.missing.iter().take(10).map(u64::to_string).collect();
        let more = if self.missing.len() > numbers.len() { ", …" } else { "" };
        let (field, count, list) = (&self.field, self.count, &self.list);
        format!(
            "the config counts {count} layers (`{field}`), and `{list}` has no {}{more}",
            numbers.join(", ")
        )
    }

    fn finding(self) -> Diagnostic {
        let finding = Diagnostic::warning(MISSING_LAYER, self.message());
        let finding =
            finding.keys(self.missing.iter().map(|number| format!("{}.{number}", self.list)));
        finding.hint(format!(
            "is a file missing, or is it a part on purpose? a target manifest says which keys there should be; else correct `{}`",
            self.field
        ))
    }
}

/// Layers that a config counts and the only list of them lacks. Quiet wherever it is not plain
/// which list is meant.
fn missing_layers(header: &Header, config: &Config) -> Option<Layers> {
    let (field, count) = counted_layers(config)?;
    let mut lists: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut ends = false;
    for key in header.tensors.keys() {
        // Adapters are on those layers on which somebody put them.
        if key.contains("lora_") {
            return None;
        }
        match list_of(key) {
            Some((list, number)) => _ = lists.entry(list).or_default().insert(number),
            None => ends |= key.split('.').any(|segment| ENDS.contains(&segment)),
        }
    }
    let lacks = |numbers: &BTreeSet<u64>| numbers.range(..count).count() as u64 != count;
    if !lists.values().all(lacks) {
        return None;
    }
    lists.retain(|list, _| !TOWERS.iter().any(|tower| list.contains(tower)));
    let mut lists = lists.into_iter();
    let ((list, there), None) = (lists.next()?, lists.next()) else { return None };
    // A list that doesn't begin at the first layer is a later pipeline stage; in memory, one that
    // stops early may be the first.
    let last = there.last()?;
    let is_stage =
        !there.contains(&0) || last + 1 == there.len() as u64 && header.files.is_empty() && !ends;
    if is_stage {
        return None;
    }
    let missing = (0..count).filter(|number| !there.contains(number)).collect();
    Some(Layers { list: list.to_owned(), field, count, missing })
}

/// How many layers a config counts, and where it says so; the least, if it counts several ways.
fn counted_layers(config: &Config) -> Option<(String, u64)> {
    // Such a model's layers differ, down to some that are nothing at all.
    if config.get(&["block_configs"]).is_some() {
        return None;
    }
    let at = |steps: &[&str]| {
        let count = config.get(steps)?.as_u64().filter(|count| (1..=MOST).contains(count))?;
        Some((steps.join("."), count))
    };
    let top = COUNTS.iter().filter_map(|field| at(&[field]));
    let nested = SECTIONS
        .iter()
        .flat_map(|section| COUNTS.iter().filter_map(move |field| at(&[section, field])));
    top.chain(nested).min_by_key(|(_, count)| *count)
}

/// The list of layers that a key is in, and which of them: by its first segment that is a number.
fn list_of(key: &str) -> Option<(&str, u64)> {
    let mut start = 0usize;
    for segment in key.split('.') {
        if let Ok(number) = segment.parse::<u64>() {
            let list = key.get(..start.checked_sub(1)?)?;
            let name = list.rsplit('.').next()?;
            return LISTS.contains(&name).then_some((list, number));
        }
        start += segment.len() + 1;
    }
    None
}

/// Tensors of shape `[0]` whose neighbours in a list are not empty. Empty tensors that are alone,
/// or all alike, may be meant.
fn placeholders(header: &Header) -> Option<Diagnostic> {
    let is_placeholder = |shape: &[u64]| shape == [0];
    let mut empty: Vec<&Key> = header
        .tensors
        .iter()
        .filter(|(_, entry)| is_placeholder(&entry.info.shape))
        .map(|(key, _)| key)
        .collect();
    if empty.is_empty() {
        return None;
    }
    let mut lists: HashMap<String, bool> = empty.iter().map(|key| (template(key), false)).collect();
    for (key, entry) in &header.tensors {
        if entry.info.numel() != Some(0)
            && let Some(is_mixed) = lists.get_mut(&template(key))
        {
            *is_mixed = true;
        }
    }
    let sure =
        empty.iter().filter(|key| lists.get(&template(key)).copied().unwrap_or(false)).count();
    if sure == 0 {
        return None;
    }
    empty.sort_by(|a, b| natural_order(a, b));
    let (are, count) =
        (if empty.len() == 1 { "is" } else { "are" }, counted(empty.len(), "tensor"));
    let message = format!(
        "{count} {are} empty ([0]), {sure} of them in lists whose others are not: placeholders of what was not gathered"
    );
    let finding =
        Diagnostic::warning(PLACEHOLDER, message).keys(empty.iter().map(|key| key.as_str()));
    Some(
        finding.hint("ZeRO-3 leaves such in a state dict; save with `stage3_gather_16bit_weights_on_model_save`, or use `zero_to_fp32.py`"),
    )
}

/// A key with its numbers left out: what the keys of one list have in common.
fn template(key: &str) -> String {
    let number =
        |segment: &str| !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    key.split('.')
        .map(|segment| if number(segment) { "*" } else { segment })
        .collect::<Vec<_>>()
        .join(".")
}

/// Keys of a result that no file can hold: better said before anything is written.
pub(super) fn unwritable(plan: &Plan) -> Option<Diagnostic> {
    let reason = |target: &Target| match (target.key.as_str(), plan.info(target).shape.len()) {
        (METADATA, _) => Some(format!(
            "`{METADATA}`, the name under which a safetensors file keeps its metadata"
        )),
        (key, _) if key.len() > MAX_KEY_LEN => {
            Some(format!("a key of {} bytes, where {MAX_KEY_LEN} are the limit", key.len()))
        }
        (_, rank) if rank > MAX_RANK => {
            Some(format!("a tensor of {rank} dimensions, where {MAX_RANK} are the limit"))
        }
        _ => None,
    };
    let (_, first) = plan.targets.iter().find_map(|target| Some((target, reason(target)?)))?;
    let keys = plan
        .targets
        .iter()
        .filter(|target| reason(target).is_some())
        .map(|target| start(&target.key));
    let finding = Diagnostic::error(UNWRITABLE_KEY, format!("the result would hold {first}"));
    Some(finding.keys(keys).hint("give it another name or shape, or drop it"))
}

/// A key, cut where it is too long to be read.
fn start(key: &str) -> String {
    const SHOWN: usize = 100;
    match key.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", key.get(..end).unwrap_or_default()),
        None => key.to_owned(),
    }
}
