//! Passes alone: each over a context and a draft that are made here.

use super::*;
use crate::check::reading::{Act, Reading, Statement};
use crate::check::{Direction, Rules};
use crate::config::{TieDecision, TieReason};
use crate::diagnostic::codes::{COLLISION, UNDECIDED};
use crate::key::Key;
use crate::library::compile;
use crate::plan::asked::{Answer, Answers, Asked, Question};
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::load::load;
use crate::plan::node::DropReason;
use crate::plan::{PlanOptions, TieOutcome};
use crate::tensor::{Dtype, Header, TensorInfo};

/// What a pass is given beside its statement.
struct Given {
    header: Header,
    options: PlanOptions<'static>,
    decision: TieDecision,
    asked: Asked,
}

impl Given {
    fn keys(keys: &[&str]) -> Self {
        let info = TensorInfo::new(Dtype::F32, vec![2]);
        let infos = keys.iter().map(|key| (Key::from(*key), info.clone()));
        Self {
            header: Header::from_infos(infos),
            options: PlanOptions::default(),
            decision: TieDecision { tied: false, because: TieReason::Unknown },
            asked: Asked::default(),
        }
    }

    fn context(&self) -> Context<'_> {
        Context::new(&self.header, &self.options, &self.decision, &self.asked)
    }

    fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        load(&self.context(), &mut draft);
        draft
    }
}

fn rules(text: &str) -> Rules {
    compile(text).unwrap()
}

/// The only statement of a rule file.
fn only(rules: &Rules) -> Statement<'_> {
    let statements = Reading::of(rules, Direction::Forward).statements();
    let [statement] = &statements[..] else { panic!("one statement is asked for") };
    statement.clone()
}

/// The keys of a draft, in the order in which they came.
fn keys(draft: &Draft) -> Vec<&str> {
    draft.state.iter().map(|(_, entry)| entry.key.as_str()).collect()
}

fn codes(draft: &Draft) -> Vec<crate::diagnostic::Code> {
    draft.findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn strip_takes_whole_segments_wherever_they_are() {
    let given = Given::keys(&["module.a.w", "a.module.b", "modules.c"]);
    let rules = rules("strip anywhere \"module\"");
    let (Statement { step, scope, act, .. }, mut draft) = (only(&rules), given.draft());
    let Act::StripAnywhere { wrappers } = act else { panic!() };
    strip::strip_anywhere(&mut draft, step, wrappers, scope).unwrap();
    let mut now = keys(&draft);
    now.sort_unstable();
    assert_eq!(now, ["a.b", "a.w", "modules.c"]);
    assert_eq!(draft.rules[0].count, 2, "keys that it changed");
    assert_eq!(draft.state.get("a.w").unwrap().origin, Key::from("module.a.w"));
}

#[test]
fn strip_refuses_to_make_one_key_of_two() {
    let given = Given::keys(&["module.a", "a"]);
    let rules = rules("strip anywhere \"module\"");
    let (Statement { step, scope, act, .. }, mut draft) = (only(&rules), given.draft());
    let Act::StripAnywhere { wrappers } = act else { panic!() };
    strip::strip_anywhere(&mut draft, step, wrappers, scope).unwrap();
    assert!(draft.failed() && codes(&draft).contains(&COLLISION));
}

#[test]
fn drop_remembers_by_which_rule_a_tensor_goes() {
    let given = Given::keys(&["a.mask", "a.w"]);
    let rules = rules("drop \"**.mask\"");
    let (Statement { step, scope, act, .. }, mut draft) = (only(&rules), given.draft());
    let Act::Drop(selection) = act else { panic!() };
    let context = given.context();
    select::select(&context, &mut draft, step, selection, false, scope, Direction::Forward)
        .unwrap();
    assert_eq!(keys(&draft), ["a.w"]);
    let [(key, DropReason::Rule(rule))] = &draft.dropped.iter().collect::<Vec<_>>()[..] else {
        panic!("{:?}", draft.dropped)
    };
    assert_eq!((key.as_str(), rule.0), ("a.mask", 0));
}

#[test]
fn rename_lets_keys_change_places() {
    let given = Given::keys(&["a", "b"]);
    let rules = rules("rename {\n  \"a\" <-> \"b\"\n  \"b\" <-> \"a\"\n}");
    let (Statement { scope, act, .. }, mut draft) = (only(&rules), given.draft());
    let Act::Rewrite(rewrite) = act else { panic!() };
    rewrite::rewrite(&given.context(), &mut draft, rewrite, scope, Direction::Forward).unwrap();
    let origin = |key: &str| draft.state.get(key).unwrap().origin.clone();
    assert_eq!((origin("a"), origin("b")), (Key::from("b"), Key::from("a")));
    assert_eq!(draft.evidence.matched, 2);
    assert!(draft.findings.is_empty());
}

/// Runs `tie "head" from "embed"` over a checkpoint that has both.
fn tied(answers: Answers, direction: Direction) -> (Draft, Vec<Question>) {
    let mut given = Given::keys(&["embed", "head"]);
    given.options.answers = answers;
    let rules = rules("tie \"head\" from \"embed\" if present alias");
    let (Statement { step, scope, act, .. }, mut draft) = (only(&rules), given.draft());
    let Act::Tie(statement) = act else { panic!() };
    let context = given.context();
    tie::tie(&context, &mut draft, step, statement, scope, direction).unwrap();
    tie::close_ties(&context, &mut draft);
    (draft, given.asked.take())
}

/// The answer to the one question that there is, named with its keys the other way round.
fn answered(answer: Answer) -> Answers {
    let mut answers = Answers::default();
    let question = Question { a: Key::from("embed"), b: Key::from("head") };
    answers.insert(question, answer);
    answers
}

#[test]
fn tie_asks_what_only_bytes_can_tell() {
    for direction in [Direction::Forward, Direction::Reverse] {
        let (draft, asked) = tied(Answers::default(), direction);
        let [Question { a, b }] = &asked[..] else { panic!("{asked:?}") };
        let mut pair = [a.as_str(), b.as_str()];
        pair.sort_unstable();
        assert_eq!(pair, ["embed", "head"]);
        assert_eq!(codes(&draft), [UNDECIDED]);
        assert_eq!(keys(&draft), ["embed", "head"], "both stay meanwhile");
    }
}

#[test]
fn tie_asks_nothing_that_is_answered() {
    let (draft, asked) = tied(answered(Answer::Equal), Direction::Forward);
    assert!(asked.is_empty());
    let node = |key: &str| draft.state.get(key).unwrap().node;
    assert_eq!(node("head"), node("embed"), "one tensor now");
    let (draft, asked) = tied(answered(Answer::Equal), Direction::Reverse);
    assert!(asked.is_empty());
    assert_eq!(keys(&draft), ["embed"]);
    let (draft, _) = tied(answered(Answer::Differ(3)), Direction::Reverse);
    assert_eq!(keys(&draft), ["embed", "head"]);
    assert_eq!(draft.ties.facts[0].outcome, TieOutcome::Differs { bytes: Some(3) });
    // What can't be known is no question any more.
    let (draft, asked) = tied(answered(Answer::Unknown), Direction::Reverse);
    assert!(asked.is_empty());
    assert_eq!(codes(&draft), [UNDECIDED]);
}

#[test]
fn a_draft_that_was_tried_leaves_no_trace() {
    let given = Given::keys(&["a.mask", "a.w"]);
    let rules = rules("drop \"**.mask\"");
    let (Statement { step, scope, act, .. }, draft) = (only(&rules), given.draft());
    let Act::Drop(selection) = act else { panic!() };
    let context = given.context();
    let mut tried = draft.clone();
    select::select(&context, &mut tried, step, selection, false, scope, Direction::Forward)
        .unwrap();
    assert_eq!((keys(&draft), keys(&tried)), (vec!["a.mask", "a.w"], vec!["a.w"]));
    assert!(draft.rules.is_empty() && draft.dropped.is_empty() && draft.findings.is_empty());
}
