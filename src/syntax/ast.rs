//! The tree of a rule file. Each node says what it looks like in text.
//!
//! Spans don't take part in equality, so that `parse(print(tree)) == tree`. Names here are as
//! written; nothing is resolved.

use crate::diagnostic::Span;

/// A name as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Ident {
    /// The name, without quotes if it had them.
    pub text: String,
    /// The bytes it was read from.
    pub span: Span,
}

/// A whole rule file: comments and statements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleFile {
    /// The statements in order.
    pub statements: Vec<Statement>,
    /// Comments after the last statement.
    pub trailing_comments: Vec<Comment>,
}

/// `# text` or `## text`, without the end of line.
#[derive(Clone, Debug, PartialEq)]
pub struct Comment {
    /// With its `#`s, trimmed at the right.
    pub text: String,
    /// Whether an empty line stood before it.
    pub blank_before: bool,
}

/// What stands around a statement or a group's rule and has no meaning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trivia {
    /// Comments on lines before it, and those that stood inside it.
    pub leading: Vec<Comment>,
    /// A comment at the end of its last line.
    pub trailing: Option<Comment>,
    /// Whether an empty line stood before it (after its leading comments, if it has any).
    pub blank_before: bool,
}

/// A statement with what stands around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The comments and blank lines around it.
    pub trivia: Trivia,
    /// What it says.
    pub kind: StatementKind,
    /// The bytes it was read from.
    pub span: Span,
}

/// The statements of the language.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StatementKind {
    /// `ruleset mixtral: hub <-> packed`, `ruleset wrappers`
    Ruleset {
        /// `mixtral`
        name: Ident,
        /// `hub <-> packed`
        layouts: Option<(Ident, Arrow, Ident)>,
    },
    /// `models mixtral, MixtralForCausalLM`
    Models(Vec<Ident>),
    /// `separator "/"`: keys of the left layout are split at this character
    Separator(StringLit),
    /// `strict`: every key must be taken by a rule
    Strict,
    /// `shards {r} in "consolidated.{r}.pth"`, `shards {r: 0..ranks} in "rank{r:0}.safetensors"`:
    /// the left layout is files whose keys are equal, one for each rank
    Shards {
        /// `r`
        capture: Ident,
        /// `0..ranks`
        range: Option<(Expr, Expr)>,
        /// How the files are named.
        files: StringLit,
    },
    /// `use detr under "model.detr"`, `use llama reversed`
    Use {
        /// `detr`, `transformers/detr`, or in quotes a file beside this one: `"./detr.graft"`
        path: Ident,
        /// Whether the path was in quotes: a file, never an embedded name.
        is_file: bool,
        /// `reversed`: the file is read backwards.
        reversed: bool,
        /// The subtree it is scoped to: literal segments only.
        under: Option<Pattern>,
    },
    /// `let heads = config.num_attention_heads`; without a value it is a parameter that `--set
    /// heads=32` must give
    Let {
        /// `heads`
        name: Ident,
        /// What stands after `=`.
        value: Option<Expr>,
    },
    /// `strip anywhere "_orig_mod", "_fsdp_wrapped_module"`, `strip leading "model" if wanted`
    Strip {
        /// `anywhere` or `leading`
        place: StripPlace,
        /// The segments, each a literal (one or more whole segments).
        wrappers: Vec<Pattern>,
        /// `if wanted`: only where a target manifest asks for it.
        if_wanted: bool,
    },
    /// `prefix "model"`: added or stripped so that keys meet the target manifest
    Prefix(Pattern),
    /// `rename "a" <-> "b"`, `rename { … }`
    Rename(Group),
    /// `map "a", "b" <-> "c" via concat(0)`, `map { … }`
    Map(Group),
    /// `drop "rope.freqs", "**._extra_state"`
    Drop(Selection),
    /// `keep "model.**"`: everything else is dropped
    Keep(Selection),
    /// `cast "**.norm.weight" to F32`, `cast "**" to BF16 lossy`
    Cast {
        /// Which keys.
        keys: Selection,
        /// `F32`
        dtype: Ident,
        /// `lossy`: rounding is meant
        lossy: bool,
    },
    /// `tie "lm_head.weight" from "model.embed_tokens.weight" when tied if present keep if absent
    /// skip`
    Tie(Tie),
    /// `create "model.rotary.inv_freq" = zeros([64], F32)`
    Create {
        /// The key that is made.
        target: Pattern,
        /// `zeros([64], F32)`, `ones(…)`
        value: OpCall,
        /// `unless …`
        tail: Tail,
    },
    /// `expect "model.layers.{l}.**" count config.num_hidden_layers`; counts the different values
    /// of the captures, or the keys if there are none
    Expect {
        /// What must be there.
        pattern: Pattern,
        /// How many; at least one if absent.
        count: Option<Expr>,
    },
    /// `trust "nvidia/*"`
    Trust(Vec<StringLit>),
    /// `example "a.3.x", "a.3.y" <-> "b.3.z"`; `example "a" -> dropped` is written `example "a" ->`
    Example {
        /// Keys of the left layout.
        left: Vec<StringLit>,
        /// `<->` or `->`
        arrow: Arrow,
        /// Keys of the right layout; empty when the left ones are dropped.
        right: Vec<StringLit>,
    },
    /// `when config.tie { … } else { … }`; `else when … { … }` nests
    When {
        /// The condition.
        condition: Expr,
        /// If it holds.
        then: Vec<Statement>,
        /// If not.
        otherwise: Vec<Statement>,
        /// Comments before the `}` of the first block, and of the second.
        closing_comments: [Vec<Comment>; 2],
    },
}

/// `"text"` with its escapes resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct StringLit {
    /// What stands between the quotes, with its escapes resolved.
    pub text: String,
    /// The bytes it was read from.
    pub span: Span,
}

/// `anywhere` or `leading`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StripPlace {
    /// At any position, repeated.
    Anywhere,
    /// At the front, repeated, when every key carries it.
    Leading,
}

/// `<->` or `->`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrow {
    /// `<->`: a checked promise that it can be read backwards.
    TwoWay,
    /// `->`
    OneWay,
}

/// The rules of one `rename` or `map`: they apply at once, and the first that matches a key wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Whether it is written with braces.
    pub braces: bool,
    /// The rules; one if there are no braces.
    pub rules: Vec<Rule>,
    /// Comments before the `}`.
    pub closing_comments: Vec<Comment>,
}

/// `"a", "b" | transpose(0, 1) <-> "c" via concat(0) unless "x" where l > 3 optional`
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Comments and blank lines (in a group with braces; else the statement has them).
    pub trivia: Trivia,
    /// What stands left of the arrow.
    pub sources: Vec<Side>,
    /// The arrow between them: which ways the rule can be read.
    pub arrow: Arrow,
    /// What stands right of the arrow.
    pub targets: Vec<Side>,
    /// The joint ops after `via`.
    pub via: Vec<OpCall>,
    /// `alone`: what belongs to these tensors is meant to stay behind.
    pub alone: bool,
    /// The clauses at the end.
    pub tail: Tail,
    /// The bytes it was read from.
    pub span: Span,
}

/// One source or target with its own ops: `"layers.{l}.wq.weight" | rope_halves(heads)`
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// The key's pattern.
    pub item: SideItem,
    /// The ops that follow it.
    pub ops: Vec<OpCall>,
    /// `optional` right after the item and its ops: this source may be missing.
    pub optional: bool,
    /// The bytes it was read from.
    pub span: Span,
}

/// What a side can be.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SideItem {
    /// `"model.layers.{l}.weight"`
    Pattern(Pattern),
    /// `/layers\.(\d+)\.fc/`: one-way, a source only; matches a whole key
    Regex(StringLit),
    /// `zeros([4], F32)`: a source that is made
    Made(OpCall),
}

/// The clauses that may end a rule or a selection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tail {
    /// `unless "pattern", …`: source keys left alone; `unless target "pattern"`: left alone if the
    /// result would match.
    pub unless: Vec<Unless>,
    /// `where l % 4 == 3`
    pub condition: Option<Expr>,
    /// `optional`: no finding if nothing matches.
    pub optional: bool,
}

/// One pattern of `unless`.
#[derive(Clone, Debug, PartialEq)]
pub struct Unless {
    /// `target` stood before it.
    pub target: bool,
    /// The pattern.
    pub pattern: Pattern,
}

/// `"a.**", "b.**" unless "a.c" where l > 2 optional`
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Any of these.
    pub patterns: Vec<Pattern>,
    /// The clauses.
    pub tail: Tail,
}

/// `tie "a", "b" from "c", "d" when tied if present keep if absent skip`, `untie "a" from "c"`
#[derive(Clone, Debug, PartialEq)]
pub struct Tie {
    /// `untie`: a `tie` read backwards, which leaves out a target that really is its source.
    pub inverted: bool,
    /// Keys that are one tensor with the source.
    pub targets: Vec<Pattern>,
    /// Candidates for the source, in order.
    pub sources: Vec<Pattern>,
    /// `when tied`
    pub condition: Option<Expr>,
    /// `if present …`; `keep` if not written
    pub present: Option<IfPresent>,
    /// `if absent …`; `skip` if not written
    pub absent: Option<IfAbsent>,
}

/// What to do with a tied target that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IfPresent {
    /// Leave it, report if it differs.
    Keep,
    /// Alias it when it is equal byte for byte, else keep and report.
    Alias,
    /// It must be equal, else an error.
    Require,
}

/// What to do when a target and every source is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IfAbsent {
    /// Nothing.
    Skip,
    /// Use the target that the model holds now (in memory only).
    Fallback,
    /// An error.
    Error,
}

/// `stack(e)`, `concat(0, over s)`, `zeros([4, 8], F32)`
#[derive(Clone, Debug, PartialEq)]
pub struct OpCall {
    /// `stack`
    pub name: Ident,
    /// What stands in the parentheses.
    pub args: Vec<Arg>,
    /// The bytes it was read from.
    pub span: Span,
}

/// An argument of an op.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Arg {
    /// `1`, `heads`, `e`, `F32`, `[4, 8]`
    Value(Expr),
    /// `over s`
    Over(Ident),
    /// `2..8`, `..8`, `2..`
    Range(Option<Expr>, Option<Expr>),
}

/// A key pattern in quotes: segments between dots.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// The segments.
    pub segments: Vec<Segment>,
    /// The bytes it was read from, with the quotes.
    pub span: Span,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    /// `**`, or with a name `{path**}`: zero or more whole segments
    Rest {
        /// `path`
        name: Option<Ident>,
        /// The bytes it was read from.
        span: Span,
    },
    /// Text and captures within one segment: `w{x: v|o}`, `layers`, `{l}`; never empty
    Atoms(Vec<Atom>),
}

/// A part of a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum Atom {
    /// Literal text, escapes resolved (`\{`, `\"`, `\\`, `\*`, `\.` for a dot inside a segment).
    Text(String),
    /// `{…}`
    Capture(Capture),
}

/// `{…}` within a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// What it is.
    pub kind: CaptureKind,
    /// The bytes it was read from, with the braces.
    pub span: Span,
}

/// The forms of a capture within a segment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CaptureKind {
    /// `{l}`, `{l: 0..n}`, `{l+1}`, `{2*l}`, `{2*l+1}`, `{3-l}`; a bare `{x}` may also refer to words or
    /// text that another place declares. The group of a regex is `{1}` or `{name}`.
    Index {
        /// `l`
        name: Ident,
        /// Factor, 1 if not written; not 0.
        mul: i64,
        /// Summand, 0 if not written.
        add: i64,
        /// `0..n`, where it is declared.
        range: Option<(Expr, Expr)>,
    },
    /// `{name*}`: one or more characters inside a segment
    Text {
        /// `name`
        name: Ident,
    },
    /// `{x: q|k|v}`, `{x: q=>query | k=>key}`
    Words {
        /// `x`
        name: Ident,
        /// Each word on this side, and its partner on the other side if it has one.
        words: Vec<(String, Option<String>)>,
    },
    /// Any other arithmetic: `{l+offset}`, `{3*b+r+1}`, `{(i-1)/3}`, `{config.num_layers}`; a single
    /// name in parentheses, `{(n)}`, is the value of a `let`.
    Calculated(Expr),
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// The bytes it was read from.
    pub span: Span,
}

impl Expr {
    /// Visits the expression and all that it is made of.
    pub fn walk<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        visit(self);
        match &self.kind {
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => inner.walk(visit),
            ExprKind::Binary(_, left, right) | ExprKind::Item(left, right) => {
                left.walk(visit);
                right.walk(visit);
            }
            ExprKind::List(items) => items.iter().for_each(|item| item.walk(visit)),
            _ => {}
        }
    }

    /// Whether it asks what keys the left layout has (`exists`), itself or through the `let`s that
    /// it names.
    pub fn asks_layout<'e>(&'e self, value_of: &dyn Fn(&str) -> Option<&'e Expr>) -> bool {
        let mut asks = false;
        // `let`s that name each other in a circle are named once.
        let mut named: Vec<&str> = Vec::new();
        let mut open = vec![self];
        while let Some(expr) = open.pop() {
            expr.walk(&mut |part| match &part.kind {
                ExprKind::Exists(_) => asks = true,
                ExprKind::Name(name) if !named.contains(&name.as_str()) => {
                    named.push(name);
                    open.extend(value_of(name));
                }
                _ => {}
            });
        }
        asks
    }
}

/// The forms of an expression, loosest binding last: `or`, `and`, `not`, comparisons, `??`, `+ -`,
/// `* / %`, unary `-`, primary.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ExprKind {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `32`
    Int(i64),
    /// `0.5`
    Float(f64),
    /// `"gelu"`
    Text(String),
    /// `[4, 8]`
    List(Vec<Expr>),
    /// `heads`, `F32`, `e`
    Name(String),
    /// `config.text_config.num_heads`, `config.layer_types[0]`; `config` alone is the whole
    Config(Vec<ConfigStep>),
    /// `config.layer_types[l]`, `kinds[0]`: an item of a list
    Item(Box<Expr>, Box<Expr>),
    /// `tied`
    Tied,
    /// `exists("pattern")`
    Exists(Pattern),
    /// `size("pattern", 0)`: how long a dimension of the tensors is whose keys fit
    Size(Pattern, u64),
    /// `count("pattern", l)`: how many values a capture has in keys that fit
    Count(Pattern, Ident),
    /// `-x`, `not x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`, `a ?? b`, `a and b`, …
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `(x)`; kept, so that the formatter leaves it
    Paren(Box<Expr>),
}

/// A step into config.json.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigStep {
    /// `.num_heads`
    Field(String),
    /// `[0]`
    Item(u64),
}

/// Operators with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `not`
    Not,
}

/// Operators with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum BinaryOp {
    Or,
    And,
    In,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Default,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl BinaryOp {
    /// How tightly it binds: the greater, the tighter. `not` comes between 2 and 4, the sign `-`
    /// after all.
    pub fn binding(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And => 2,
            BinaryOp::In
            | BinaryOp::Eq
            | BinaryOp::Ne
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge => 4,
            BinaryOp::Default => 5,
            BinaryOp::Add | BinaryOp::Sub => 6,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem => 7,
        }
    }

    /// As written.
    pub fn text(self) -> &'static str {
        match self {
            BinaryOp::Or => "or",
            BinaryOp::And => "and",
            BinaryOp::In => "in",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::Default => "??",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Rem => "%",
        }
    }
}
