//! `drop`, `keep`, `cast`, `create` and `expect`: statements about keys as they are.

use std::collections::BTreeSet;

use crate::check::op::{Content, Made, widens};
use crate::check::takes::any_matches;
use crate::check::value::{Captures, Environment, Scope};
use crate::check::{Direction, Keys, Selection, Step};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{DROPPED, EXPECTATION, LEFT_INTEGERS, LOSSY, SHAPE, UNMATCHED_RULE};
use crate::key::{Binding, Bindings, Key, Pattern, PatternSet, Segments, Slot};
use crate::plan::bind::truth_of;
use crate::plan::context::{Context, with_environment};
use crate::plan::draft::Draft;
use crate::plan::pass::lossy::{leave_cast, leave_selection};
use crate::plan::state::Current;
use crate::plan::{DropReason, NodeId, counted};
use crate::syntax::ast::Expr;
use crate::tensor::{Dtype, TensorInfo};

/// The places of the entries that a selection takes.
fn selected(
    context: &Context<'_>,
    draft: &Draft,
    keys: &Selection,
    scope: &Scope,
) -> Result<Vec<usize>, Box<Diagnostic>> {
    let (mut segments, mut candidates, mut found) = (Segments::default(), Vec::new(), Vec::new());
    with_environment(context, draft, |environment| {
        let patterns = Keys::bind_all(&keys.keys, scope, environment)?;
        let unless = Keys::bind_all(&keys.unless, scope, environment)?;
        let set = PatternSet::new(&patterns);
        for (at, entry) in draft.state.iter() {
            segments.split(&entry.key);
            set.candidates(&entry.key, &segments, &mut candidates);
            for candidate in &candidates {
                let which = *candidate as usize;
                let captures = keys.keys[which].captures();
                let mut bindings = Bindings::new(captures.len());
                let holds = |bindings: &Bindings| match &keys.condition {
                    Some(condition) => truth_of(
                        condition,
                        captures,
                        (&entry.key, bindings),
                        &|_| None,
                        scope,
                        environment,
                    ),
                    None => Ok(true),
                };
                if patterns[which].matches(&entry.key, &segments, &mut bindings)
                    && !any_matches(&unless, &entry.key, &segments)
                    && holds(&bindings)?
                {
                    found.push(at);
                    break;
                }
            }
        }
        Ok(found)
    })
}

/// Takes tensors that can't be read out of those that nobody dropped; gives how many there were.
/// Nothing was done to their keys, which are those of the file.
fn drop_unreadable(
    context: &Context<'_>,
    draft: &mut Draft,
    keys: &Selection,
    scope: &Scope,
) -> Result<usize, Box<Diagnostic>> {
    if draft.unreadable.is_empty() {
        return Ok(0);
    }
    let (patterns, unless) = with_environment(context, draft, |environment| {
        let patterns = Keys::bind_all(&keys.keys, scope, environment)?;
        Ok::<_, Box<Diagnostic>>((patterns, Keys::bind_all(&keys.unless, scope, environment)?))
    })?;
    let (before, mut segments) = (draft.unreadable.len(), Segments::default());
    draft.unreadable.retain(|(key, _)| {
        segments.split(key);
        !any_matches(&patterns, key, &segments) || any_matches(&unless, key, &segments)
    });
    Ok(before - draft.unreadable.len())
}

pub(in crate::plan) fn select(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    keys: &Selection,
    keep: bool,
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    if direction == Direction::Reverse {
        leave_selection(context, draft, step, keys);
        return Ok(());
    }
    let mut places = selected(context, draft, keys, scope)?;
    let unreadable = if keep { 0 } else { drop_unreadable(context, draft, keys, scope)? };
    if places.is_empty() && unreadable == 0 && !keys.optional {
        draft.unmatched(step.into(), if keep { "this `keep`" } else { "this `drop`" });
    }
    if keep {
        let kept: BTreeSet<usize> = places.iter().copied().collect();
        places = draft
            .state
            .iter()
            .filter(|(at, entry)| {
                !kept.contains(at) && super::strip::below(&entry.key, &scope.under).is_some()
            })
            .map(|(at, _)| at)
            .collect();
    }
    if places.is_empty() {
        return Ok(());
    }
    let rule = draft.rule_id(step.into());
    draft.count(rule, places.len() as u64);
    let mut names = Vec::new();
    for at in places {
        let Some(entry) = draft.state.take(at) else { continue };
        names.push(String::from(entry.key.clone()));
        draft.drop_sources(entry.node, &DropReason::Rule(rule));
    }
    draft.lose(step, &names);
    let finding = Diagnostic::note(DROPPED, format!("dropped {}", counted(names.len(), "key")));
    draft.findings.push(finding.at(step.place.clone(), "by this statement").keys(names));
    Ok(())
}

#[allow(clippy::too_many_arguments)]
pub(in crate::plan) fn cast(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    keys: &Selection,
    dtype: Dtype,
    lossy: bool,
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    if direction == Direction::Reverse {
        let places = selected(context, draft, keys, scope)?;
        leave_cast(context, draft, step, keys, dtype, lossy, &places);
        return Ok(());
    }
    let places = selected(context, draft, keys, scope)?;
    if places.is_empty() && !keys.optional {
        draft.unmatched(step.into(), "this `cast`");
    }
    let rule = draft.rule_id(step.into());
    let named = with_environment(context, draft, |environment| {
        Keys::bind_all(&keys.keys, scope, environment)
    })?;
    let named: Vec<Pattern> = named.into_iter().filter(Pattern::names_last).collect();
    let mut segments = Segments::default();
    let (mut rounded, mut left) = (Vec::new(), Vec::new());
    for at in places {
        let Some(entry) = draft.state.at(at) else { continue };
        let (key, node) = (entry.key.clone(), entry.node);
        let before = draft.graph.info(node).dtype;
        if before == dtype {
            continue;
        }
        segments.split(&key);
        if is_no_weight(before, dtype) && !any_matches(&named, &key, &segments) {
            left.push(key);
            continue;
        }
        if !widens(before, dtype) {
            rounded.push(String::from(key.clone()));
            if !lossy {
                continue;
            }
        }
        let made = draft.graph.cast(node, dtype).map_err(|why| fit(step, why, &key))?;
        if let Some(entry) = draft.state.get_mut(&key) {
            entry.node = made;
            entry.rules.push(rule);
        }
        draft.count(rule, 1);
    }
    report_left(draft, step, &left);
    if rounded.is_empty() {
        return Ok(());
    }
    let count = counted(rounded.len(), "tensor");
    if lossy {
        draft.lose(step, &rounded);
        let finding = Diagnostic::note(LOSSY, format!("rounded {count} to {dtype}"));
        draft.findings.push(finding.at(step.place.clone(), "lossy, as it says").keys(rounded));
        return Ok(());
    }
    Err(Box::new(
        Diagnostic::error(LOSSY, format!("casting to {dtype} would round {count}"))
            .at(step.place.clone(), "not a widening for these")
            .keys(rounded)
            .hint("write `lossy` at its end if rounding is meant")
            .fix(step.place.after(), " lossy"),
    ))
}

/// Tells of integers that a cast of many keys left alone.
fn report_left(draft: &mut Draft, step: &Step, left: &[Key]) {
    let Some(first) = left.first() else { return };
    let message =
        format!("left {} of integers or booleans as they are", counted(left.len(), "tensor"));
    let finding = Diagnostic::note(LEFT_INTEGERS, message)
        .at(step.place.clone(), "casts floats; integers only where they are named");
    let last = first.rsplit('.').next().unwrap_or_default();
    let finding = finding.keys(left.iter().map(|key| key.as_str()));
    draft.findings.push(finding.hint(format!("where they are meant, name them: `\"**.{last}\"`")));
}

#[allow(clippy::too_many_arguments)]
pub(in crate::plan) fn create(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    target: &Pattern,
    made: &Made,
    unless: &[Keys],
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    let Some(key) = target.literal() else { return Ok(()) };
    let rule = draft.rule_id(step.into());
    if direction == Direction::Reverse {
        if let Some(entry) = draft.state.remove(&key) {
            draft.drop_sources(entry.node, &DropReason::Rule(rule));
            draft.count(rule, 1);
            let finding = Diagnostic::note(DROPPED, "dropped 1 key")
                .at(step.place.clone(), "created, when read forwards");
            draft.findings.push(finding.keys([key]));
        }
        return Ok(());
    }
    let mut segments = Segments::default();
    segments.split(&key);
    let unless =
        with_environment(context, draft, |environment| Keys::bind_all(unless, scope, environment))?;
    if any_matches(&unless, &key, &segments) {
        return Ok(());
    }
    // What the checkpoint has stays: it may be trained.
    if draft.state.contains(&key) {
        let finding = Diagnostic::note(
            UNMATCHED_RULE,
            format!("`{key}` is there already, so none is created"),
        );
        draft.findings.push(finding.at(step.place.clone(), "left as it is").keys([key]));
        return Ok(());
    }
    let node = make(context, draft, made, None, scope, Captures::NONE)?;
    draft.count(rule, 1);
    let key = Key::from(key);
    draft.put(Current {
        origin: key.clone(),
        key,
        node,
        rules: [rule].into(),
        tied: false,
        given: false,
    });
    Ok(())
}

/// The node of `zeros(…)`, `ones(…)` or `sinusoids(…)`; `like` what it is like, if it doesn't say.
pub(in crate::plan) fn make(
    context: &Context<'_>,
    draft: &mut Draft,
    made: &Made,
    like: Option<Dtype>,
    scope: &Scope,
    captures: Captures<'_>,
) -> Result<NodeId, Box<Diagnostic>> {
    let shape = with_environment(context, draft, |environment| {
        let environment = Environment { captures, ..*environment };
        made.shape
            .iter()
            .map(|size| {
                let value = environment.int(scope, size)?;
                u64::try_from(value).map_err(|_| {
                    Box::new(
                        Diagnostic::error(SHAPE, format!("{value} is no size"))
                            .at(scope.place(size.span), "negative"),
                    )
                })
            })
            .collect::<Result<Vec<u64>, _>>()
    })?;
    let Some(dtype) = made.dtype.or(like) else {
        let why = "no tensor is taken here that this one could be like";
        return Err(Box::new(Diagnostic::error(SHAPE, why).at(made.place.clone(), "here")));
    };
    let info = TensorInfo::new(dtype, shape);
    let node = match made.content {
        Content::Value(value) => draft.graph.fill(value, info),
        Content::Sinusoids => draft.graph.sinusoids(info),
    };
    node.map_err(|why| Box::new(Diagnostic::error(SHAPE, why).at(made.place.clone(), "here")))
}

pub(in crate::plan) fn expect_keys(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    keys: &Keys,
    captures: &[Slot],
    count: Option<&Expr>,
    scope: &Scope,
) -> Result<(), Box<Diagnostic>> {
    let wanted = count
        .map(|count| with_environment(context, draft, |environment| environment.int(scope, count)))
        .transpose()?;
    let pattern = with_environment(context, draft, |environment| keys.bind(scope, environment))?;
    let slots = keys.captures().len();
    let mut segments = Segments::default();
    let mut different: BTreeSet<Vec<Binding>> = BTreeSet::new();
    let mut fitting = 0usize;
    for (_, entry) in draft.state.iter() {
        segments.split(&entry.key);
        let mut bindings = Bindings::new(slots);
        if pattern.matches(&entry.key, &segments, &mut bindings) {
            fitting += 1;
            let values = captures.iter().map(|slot| match bindings.text(*slot, &entry.key) {
                Some(text) => Binding::Owned(text.into()),
                None => bindings.get(*slot).clone(),
            });
            different.insert(values.collect());
        }
    }
    let found = if captures.is_empty() { fitting } else { different.len() };
    let met = match wanted {
        Some(wanted) => i64::try_from(found).is_ok_and(|found| found == wanted),
        None => found > 0,
    };
    if met {
        return Ok(());
    }
    let message = match wanted {
        Some(wanted) => format!("expected {wanted} of these, found {found}"),
        None => "expected a key like this, found none".to_owned(),
    };
    Err(Box::new(
        Diagnostic::error(EXPECTATION, message)
            .at(step.place.clone(), "doesn't hold for this checkpoint"),
    ))
}

impl Draft {
    /// Remembers why the checkpoint's tensors behind a node are not used.
    pub(in crate::plan) fn drop_sources(&mut self, node: NodeId, reason: &DropReason) {
        let mut open = vec![node];
        while let Some(id) = open.pop() {
            let node = self.graph.node(id);
            if let crate::plan::Op::Source { key } = &node.op {
                self.dropped.entry(key.clone()).or_insert_with(|| reason.clone());
            }
            open.extend(&node.inputs);
        }
    }
}

/// Whether tensors of a dtype are no weights to a cast to another: positions, counts, masks and
/// packed words, which mean nothing as floats.
fn is_no_weight(from: Dtype, to: Dtype) -> bool {
    from.is_integer() && !to.is_integer()
}

/// A tensor that doesn't fit what a statement does with it.
pub(super) fn fit(step: &Step, why: String, key: &str) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(SHAPE, why).at(step.place.clone(), "doesn't fit").keys([key]))
}
