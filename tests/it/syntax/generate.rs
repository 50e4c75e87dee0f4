//! Random trees that the language can say, for `parse(print(tree)) == tree`.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use regraft::diagnostic::Span;
use regraft::syntax::ast::*;

/// Words that an expression uses itself, or that begin a statement: never a name here.
const RESERVED: &[&str] = &[
    "config",
    "exists",
    "size",
    "count",
    "null",
    "true",
    "false",
    "tied",
    "and",
    "or",
    "not",
    "in",
    "over",
    "ruleset",
    "models",
    "shards",
    "separator",
    "strict",
    "use",
    "let",
    "strip",
    "prefix",
    "rename",
    "map",
    "drop",
    "keep",
    "cast",
    "tie",
    "create",
    "expect",
    "trust",
    "example",
    "when",
];

const AT: Span = Span { start: 0, end: 0 };

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z_][a-z0-9_]{0,5}".prop_filter("reserved", |word| !RESERVED.contains(&word.as_str()))
}

fn ident() -> impl Strategy<Value = Ident> {
    word().prop_map(|text| Ident { text, span: AT })
}

fn text() -> impl Strategy<Value = String> {
    r#"[a-zA-Z0-9 _:/#é\t{}"\\*.|=>-]{0,8}"#
}

fn string() -> impl Strategy<Value = StringLit> {
    text().prop_map(|text| StringLit { text, span: AT })
}

fn expr(kind: ExprKind) -> Expr {
    Expr { kind, span: AT }
}

/// Numbers, names and arithmetic: what may stand in a pattern, where no quotes can.
fn arithmetic() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (0i64..i64::MAX).prop_map(|value| expr(ExprKind::Int(value))),
        word().prop_map(|name| expr(ExprKind::Name(name))),
        vec(config_step(), 0..3).prop_map(|steps| expr(ExprKind::Config(steps))),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| composed(inner.boxed()))
}

fn config_step() -> impl Strategy<Value = ConfigStep> {
    prop_oneof![
        "[a-z0-9_]{1,6}".prop_map(ConfigStep::Field),
        any::<u64>().prop_map(ConfigStep::Item)
    ]
}

fn any_expr() -> BoxedStrategy<Expr> {
    let leaf = prop_oneof![
        Just(expr(ExprKind::Null)),
        Just(expr(ExprKind::Tied)),
        any::<bool>().prop_map(|value| expr(ExprKind::Bool(value))),
        (0i64..i64::MAX).prop_map(|value| expr(ExprKind::Int(value))),
        prop::num::f64::POSITIVE
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| expr(ExprKind::Float(value))),
        text().prop_map(|text| expr(ExprKind::Text(text))),
        word().prop_map(|name| expr(ExprKind::Name(name))),
        vec(config_step(), 0..3).prop_map(|steps| expr(ExprKind::Config(steps))),
        pattern().prop_map(|pattern| expr(ExprKind::Exists(pattern))),
        (pattern(), 0..9u64).prop_map(|(pattern, dim)| expr(ExprKind::Size(pattern, dim))),
        (pattern(), ident()).prop_map(|(pattern, name)| expr(ExprKind::Count(pattern, name))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let inner = inner.boxed();
        prop_oneof![
            composed(inner.clone()),
            vec(inner, 0..3).prop_map(|items| expr(ExprKind::List(items)))
        ]
    })
    .boxed()
}

/// Operators over operands, with parentheses wherever leaving them out would say something else.
fn composed(inner: BoxedStrategy<Expr>) -> impl Strategy<Value = Expr> {
    use BinaryOp::*;
    // Loosest first: the order in the documentation of `ExprKind`.
    const LEVELS: &[&[BinaryOp]] =
        &[&[Or], &[And], &[In, Eq, Ne, Lt, Le, Gt, Ge], &[Default], &[Add, Sub], &[Mul, Div, Rem]];
    let level =
        |op: &BinaryOp| LEVELS.iter().position(|level| level.contains(op)).unwrap_or_default();
    let ops = LEVELS.concat();
    let parens = |operand: Expr| expr(ExprKind::Paren(Box::new(operand)));
    prop_oneof![
        inner.clone().prop_map(parens),
        (inner.clone(), inner.clone()).prop_map(move |(list, index)| {
            // A number in brackets after a config field is a step of it.
            let plain = matches!(
                list.kind,
                ExprKind::List(_) | ExprKind::Paren(_) | ExprKind::Name(_) | ExprKind::Item(..)
            );
            let list = if plain { list } else { parens(list) };
            expr(ExprKind::Item(Box::new(list), Box::new(index)))
        }),
        inner.clone().prop_map(move |operand| {
            let plain =
                !matches!(operand.kind, ExprKind::Binary(..) | ExprKind::Unary(UnaryOp::Not, _));
            expr(ExprKind::Unary(
                UnaryOp::Neg,
                Box::new(if plain { operand } else { parens(operand) }),
            ))
        }),
        inner.clone().prop_map(move |operand| {
            let plain = !matches!(operand.kind, ExprKind::Binary(Or | And, ..));
            expr(ExprKind::Unary(
                UnaryOp::Not,
                Box::new(if plain { operand } else { parens(operand) }),
            ))
        }),
        (prop::sample::select(ops), inner.clone(), inner).prop_map(move |(op, left, right)| {
            let bare = |operand: &Expr, left: bool| match &operand.kind {
                ExprKind::Binary(other, ..) if level(other) == 2 && level(&op) == 2 => false,
                ExprKind::Binary(other, ..) => {
                    level(other) > level(&op) || (left && level(other) == level(&op))
                }
                ExprKind::Unary(UnaryOp::Not, _) => level(&op) < 2,
                _ => true,
            };
            let (left, right) = (
                if bare(&left, true) { left } else { parens(left) },
                if bare(&right, false) { right } else { parens(right) },
            );
            expr(ExprKind::Binary(op, Box::new(left), Box::new(right)))
        }),
    ]
}

fn capture() -> impl Strategy<Value = Capture> {
    let range = of((arithmetic(), arithmetic()));
    let factor = prop_oneof![-4i64..0, 1i64..5];
    let binary = |op, left: &str, right: &str| {
        let name = |name: &str| Box::new(expr(ExprKind::Name(name.to_owned())));
        CaptureKind::Calculated(expr(ExprKind::Binary(op, name(left), name(right))))
    };
    prop_oneof![
        ident().prop_map(|name| CaptureKind::Index { name, mul: 1, add: 0, range: None }),
        (ident(), factor, -9i64..9, range).prop_map(|(name, mul, add, range)| CaptureKind::Index {
            name,
            mul,
            add,
            range
        }),
        (1u8..9).prop_map(|group| CaptureKind::Index {
            name: Ident { text: group.to_string(), span: AT },
            mul: 1,
            add: 0,
            range: None
        }),
        ident().prop_map(|name| CaptureKind::Text { name }),
        (ident(), vec(("[a-z0-9_é-]{1,4}", of("[a-z0-9_-]{1,4}")), 1..4))
            .prop_map(|(name, words)| CaptureKind::Words { name, words }),
        Just(binary(BinaryOp::Mul, "l", "l")),
        Just(binary(BinaryOp::Add, "l", "m")),
        Just(binary(BinaryOp::Div, "l", "m")),
    ]
    .prop_map(|kind| Capture { kind, span: AT })
}

fn atoms() -> impl Strategy<Value = Segment> {
    let text = r#"[a-zA-Z0-9 _:/#é{}"\\*.-]{1,6}"#;
    vec(prop_oneof![3 => text.prop_map(Atom::Text), 2 => capture().prop_map(Atom::Capture)], 1..4)
        .prop_map(|atoms| {
            let mut merged: Vec<Atom> = Vec::new();
            for atom in atoms {
                match (merged.last_mut(), atom) {
                    (Some(Atom::Text(before)), Atom::Text(text)) => before.push_str(&text),
                    (_, atom) => merged.push(atom),
                }
            }
            Segment::Atoms(merged)
        })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let inside = prop_oneof![5 => atoms(), 1 => ident().prop_map(|name| Segment::Rest { name: Some(name), span: AT })];
    let end = || of(Just(Segment::Rest { name: None, span: AT }));
    (end(), vec(inside, 1..4), end()).prop_map(|(first, inside, last)| Pattern {
        segments: first.into_iter().chain(inside).chain(last).collect(),
        span: AT,
    })
}

fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
    vec(pattern(), 1..4)
}

fn op() -> impl Strategy<Value = OpCall> {
    let arg = prop_oneof![
        any_expr().prop_map(Arg::Value),
        ident().prop_map(Arg::Over),
        (of(any_expr()), of(any_expr())).prop_map(|(first, last)| Arg::Range(first, last)),
    ];
    (ident(), vec(arg, 0..3)).prop_map(|(name, args)| OpCall { name, args, span: AT })
}

fn side(source: bool) -> impl Strategy<Value = Side> {
    let regex = vec(
        prop::sample::select(vec!["a", r"\d", "(", ")", "/", r"\\", "#", ".", "é", "\"", "{"]),
        1..6,
    );
    let item = prop_oneof![
        4 => pattern().prop_map(SideItem::Pattern),
        1 => regex.prop_map(|parts| SideItem::Regex(StringLit { text: parts.concat(), span: AT })),
        1 => op().prop_map(SideItem::Made),
    ];
    (item, vec(op(), 0..3), any::<bool>()).prop_map(move |(item, ops, optional)| Side {
        item,
        ops,
        optional: optional && source,
        span: AT,
    })
}

fn arrow() -> impl Strategy<Value = Arrow> {
    prop_oneof![Just(Arrow::TwoWay), Just(Arrow::OneWay)]
}

fn tail() -> impl Strategy<Value = Tail> {
    let unless = vec(
        (any::<bool>(), pattern()).prop_map(|(target, pattern)| Unless { target, pattern }),
        0..3,
    );
    (unless, of(any_expr()), any::<bool>()).prop_map(|(unless, condition, optional)| Tail {
        unless,
        condition,
        optional,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (vec(side(true), 1..3), arrow(), vec(side(false), 1..3), vec(op(), 0..3), any::<bool>(), tail())
        .prop_map(|(sources, arrow, targets, via, alone, tail)| Rule {
            trivia: Trivia::default(),
            sources,
            arrow,
            targets,
            via,
            alone,
            tail,
            span: AT,
        })
}

fn comment() -> impl Strategy<Value = Comment> {
    (r#"##? ?[a-z "{}/#é-]{0,12}"#, any::<bool>())
        .prop_map(|(text, blank_before)| Comment { text: text.trim_end().to_owned(), blank_before })
}

fn trivia() -> impl Strategy<Value = Trivia> {
    (vec(comment(), 0..3), of(comment()), any::<bool>()).prop_map(
        |(leading, trailing, blank_before)| Trivia {
            leading,
            trailing: trailing.map(|comment| Comment { blank_before: false, ..comment }),
            blank_before,
        },
    )
}

/// In a block, nothing has an empty line before it at the very start.
fn start_of_block(trivia: Option<&mut Trivia>, closing: &mut [Comment]) {
    match trivia {
        Some(Trivia { leading, blank_before, .. }) => match leading.first_mut() {
            Some(comment) => comment.blank_before = false,
            None => *blank_before = false,
        },
        None => closing.iter_mut().take(1).for_each(|comment| comment.blank_before = false),
    }
}

fn group() -> impl Strategy<Value = Group> {
    let with_braces = (vec((trivia(), rule()), 0..4), vec(comment(), 0..3)).prop_map(
        |(rules, mut closing_comments)| {
            let mut rules: Vec<Rule> =
                rules.into_iter().map(|(trivia, rule)| Rule { trivia, ..rule }).collect();
            start_of_block(rules.first_mut().map(|rule| &mut rule.trivia), &mut closing_comments);
            Group { braces: true, rules, closing_comments }
        },
    );
    prop_oneof![
        rule().prop_map(|rule| Group {
            braces: false,
            rules: vec![rule],
            closing_comments: Vec::new()
        }),
        with_braces
    ]
}

fn selection() -> impl Strategy<Value = Selection> {
    (patterns(), tail()).prop_map(|(patterns, tail)| Selection { patterns, tail })
}

fn simple() -> BoxedStrategy<StatementKind> {
    let place = prop_oneof![Just(StripPlace::Anywhere), Just(StripPlace::Leading)];
    let quoted = || {
        text()
            .prop_filter("empty", |text| !text.is_empty())
            .prop_map(|text| Ident { text, span: AT })
    };
    let path = prop_oneof![
        "[a-z][a-z0-9_-]{0,4}(/[a-z0-9_][a-z0-9_-]{0,4})?"
            .prop_map(|text| (Ident { text, span: AT }, false)),
        quoted().prop_map(|path| (path, true))
    ];
    let present =
        prop_oneof![Just(IfPresent::Keep), Just(IfPresent::Alias), Just(IfPresent::Require)];
    let absent = prop_oneof![Just(IfAbsent::Skip), Just(IfAbsent::Fallback), Just(IfAbsent::Error)];
    prop_oneof![
        (ident(), of((ident(), arrow(), ident())))
            .prop_map(|(name, layouts)| StatementKind::Ruleset { name, layouts }),
        vec(
            prop_oneof![ident(), quoted(), Just(Ident { text: "keep".to_owned(), span: AT })],
            1..12
        )
        .prop_map(StatementKind::Models),
        (ident(), of((any_expr(), any_expr())), string()).prop_map(|(capture, range, files)| {
            StatementKind::Shards { capture, range, files }
        }),
        (path, any::<bool>(), of(pattern())).prop_map(|((path, is_file), reversed, under)| {
            StatementKind::Use { path, is_file, reversed, under }
        }),
        (ident(), of(any_expr())).prop_map(|(name, value)| StatementKind::Let { name, value }),
        (place, patterns(), any::<bool>()).prop_map(|(place, wrappers, if_wanted)| {
            StatementKind::Strip { place, wrappers, if_wanted }
        }),
        pattern().prop_map(StatementKind::Prefix),
        string().prop_map(StatementKind::Separator),
        Just(StatementKind::Strict),
        group().prop_map(StatementKind::Rename),
        group().prop_map(StatementKind::Map),
        selection().prop_map(StatementKind::Drop),
        selection().prop_map(StatementKind::Keep),
        (selection(), ident(), any::<bool>())
            .prop_map(|(keys, dtype, lossy)| StatementKind::Cast { keys, dtype, lossy }),
        (any::<bool>(), patterns(), patterns(), of(any_expr()), of(present), of(absent)).prop_map(
            |(inverted, targets, sources, condition, present, absent)| {
                StatementKind::Tie(Tie { inverted, targets, sources, condition, present, absent })
            }
        ),
        (pattern(), op(), tail()).prop_map(|(target, value, tail)| StatementKind::Create {
            target,
            value,
            tail
        }),
        (pattern(), of(any_expr()))
            .prop_map(|(pattern, count)| StatementKind::Expect { pattern, count }),
        vec(string(), 1..8).prop_map(StatementKind::Trust),
        (vec(string(), 1..4), vec(string(), 0..4), any::<bool>()).prop_map(
            |(left, right, two_way)| {
                let arrow =
                    if two_way && !right.is_empty() { Arrow::TwoWay } else { Arrow::OneWay };
                StatementKind::Example { left, arrow, right }
            }
        ),
    ]
    .boxed()
}

fn block(
    inner: BoxedStrategy<StatementKind>,
) -> impl Strategy<Value = (Vec<Statement>, Vec<Comment>)> {
    (vec((trivia(), inner), 0..4), vec(comment(), 0..3)).prop_map(|(statements, mut closing)| {
        let mut statements: Vec<Statement> = statements
            .into_iter()
            .map(|(trivia, kind)| Statement { trivia, kind, span: AT })
            .collect();
        start_of_block(statements.first_mut().map(|statement| &mut statement.trivia), &mut closing);
        (statements, closing)
    })
}

/// A rule file.
pub(crate) fn file() -> impl Strategy<Value = RuleFile> {
    let kind = simple().prop_recursive(3, 12, 4, |inner| {
        let inner = inner.boxed();
        (any_expr(), block(inner.clone()), block(inner)).prop_map(
            |(condition, (then, first), (otherwise, second))| StatementKind::When {
                condition,
                then,
                otherwise,
                closing_comments: [first, second],
            },
        )
    });
    block(kind.boxed())
        .prop_map(|(statements, trailing_comments)| RuleFile { statements, trailing_comments })
}
