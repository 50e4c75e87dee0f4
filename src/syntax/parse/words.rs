//! The language's words, and how each grammar rule is called in a message.

use super::Rule;

/// The keywords that begin a statement.
pub(in crate::syntax) const STATEMENTS: &[&str] = &[
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
    "untie",
    "create",
    "expect",
    "trust",
    "example",
    "when",
];

/// The grammar rule of a statement without braces.
pub(super) fn statement_rule(word: &str) -> Option<Rule> {
    Some(match word {
        "ruleset" => Rule::ruleset,
        "models" => Rule::models,
        "separator" => Rule::separator,
        "strict" => Rule::strict,
        "shards" => Rule::shards,
        "use" => Rule::use_rules,
        "let" => Rule::let_value,
        "strip" => Rule::strip,
        "prefix" => Rule::prefix,
        "rename" => Rule::rename,
        "map" => Rule::map,
        "drop" => Rule::drop_keys,
        "keep" => Rule::keep_keys,
        "cast" => Rule::cast,
        "tie" | "untie" => Rule::tie,
        "create" => Rule::create,
        "expect" => Rule::expect,
        "trust" => Rule::trust,
        "example" => Rule::example,
        "when" => Rule::when_head,
        _ => return None,
    })
}

/// What a rule is called where it was expected; `;` between several. A new grammar rule doesn't
/// compile until this is decided.
pub(super) fn name(rule: Rule) -> &'static str {
    match rule {
        Rule::WHITESPACE | Rule::COMMENT => "a space",
        Rule::file
        | Rule::statement
        | Rule::simple
        | Rule::lone_statement
        | Rule::when_block
        | Rule::group => "a statement",
        Rule::when_head => "`when` and a condition",
        Rule::ruleset | Rule::kw_ruleset => "`ruleset`",
        Rule::models | Rule::kw_models => "`models`",
        Rule::shards | Rule::kw_shards => "`shards`",
        Rule::kw_in => "`in`",
        Rule::model | Rule::model_name => "a model type or class",
        Rule::separator | Rule::kw_separator => "`separator`",
        Rule::strict | Rule::kw_strict => "`strict`",
        Rule::use_rules | Rule::kw_use => "`use`",
        Rule::rules_path | Rule::rules_step => "the name of a rule file",
        Rule::let_value | Rule::kw_let => "`let`",
        Rule::strip | Rule::kw_strip => "`strip`",
        Rule::prefix | Rule::kw_prefix => "`prefix`",
        Rule::rename | Rule::kw_rename => "`rename`",
        Rule::map | Rule::kw_map => "`map`",
        Rule::drop_keys | Rule::kw_drop => "`drop`",
        Rule::keep_keys | Rule::kw_keep => "`keep`",
        Rule::cast | Rule::kw_cast => "`cast`",
        Rule::tie | Rule::kw_tie => "`tie`",
        Rule::kw_untie => "`untie`",
        Rule::kw_reversed => "`reversed`",
        Rule::tie_clause => "`when`;`if present`;`if absent`",
        Rule::tie_when | Rule::kw_when => "`when`",
        Rule::if_present => "`if present`",
        Rule::if_absent => "`if absent`",
        Rule::create | Rule::kw_create => "`create`",
        Rule::expect | Rule::kw_expect => "`expect`",
        Rule::trust | Rule::kw_trust => "`trust`",
        Rule::example | Rule::kw_example => "`example`",
        Rule::strings | Rule::string => "text in quotes",
        Rule::one_rule | Rule::lone_rule => "a rule",
        Rule::source => "a source",
        Rule::target => "a target",
        Rule::side_item => "a pattern in quotes;a /regex/;a made tensor like `zeros([4], F32)`",
        Rule::own_ops => "`|` and an op",
        Rule::made => "a made tensor like `zeros([4], F32)`",
        Rule::op | Rule::op_name => "an op",
        Rule::args => "arguments in parentheses",
        Rule::arg => "an argument",
        Rule::over | Rule::kw_over => "`over`",
        Rule::rule_clause => "`via`;`unless`;`where`;`optional`;`alone`",
        Rule::via | Rule::kw_via => "`via`",
        Rule::tail_clause => "`unless`;`where`;`optional`",
        Rule::unless | Rule::kw_unless => "`unless`",
        Rule::unless_item => "a pattern in quotes",
        Rule::where_clause | Rule::kw_where => "`where`",
        Rule::selection => "a pattern in quotes",
        Rule::expr | Rule::operand | Rule::primary | Rule::prefix_op => "a value",
        Rule::infix => "an operator",
        Rule::paren | Rule::lparen => "`(`",
        Rule::rparen => "`)`",
        Rule::list | Rule::lbracket => "`[`",
        Rule::rbracket => "`]`",
        Rule::lbrace => "`{`",
        Rule::rbrace => "`}`",
        Rule::exists | Rule::kw_exists => "`exists`",
        Rule::size | Rule::kw_size => "`size`",
        Rule::config | Rule::kw_config => "`config`",
        Rule::config_field | Rule::field_name => "a field of config.json",
        Rule::config_item | Rule::digits | Rule::item => "an index in brackets",
        Rule::literal => "`null`;`true`;`false`;`tied`",
        Rule::name | Rule::ident => "a name",
        Rule::int | Rule::float | Rule::exponent => "a number",
        Rule::word_char => "a letter",
        Rule::regex | Rule::regex_char => "a /regex/",
        Rule::pattern_body => "a pattern",
        Rule::segment | Rule::atom | Rule::text => "text",
        Rule::rest | Rule::named_rest | Rule::rest_capture => "`**`",
        Rule::capture | Rule::index_capture | Rule::text_capture | Rule::words_capture => {
            "a capture"
        }
        Rule::word_pair | Rule::word | Rule::word_part => "a word",
        Rule::dot => "`.`",
        Rule::arrow => "`<->`;`->`",
        Rule::two_way => "`<->`",
        Rule::one_way => "`->`",
        Rule::comma => "`,`",
        Rule::colon => "`:`",
        Rule::pipe => "`|`",
        Rule::assign => "`=`",
        Rule::dots => "`..`",
        Rule::eq => "`==`",
        Rule::ne => "`!=`",
        Rule::le => "`<=`",
        Rule::ge => "`>=`",
        Rule::lt => "`<`",
        Rule::gt => "`>`",
        Rule::default => "`??`",
        Rule::plus => "`+`",
        Rule::minus => "`-`",
        Rule::times => "`*`",
        Rule::divide | Rule::regex_at_once | Rule::regex_unquoted | Rule::source_end => "`/`",
        Rule::remainder => "`%`",
        Rule::kw_under => "`under`",
        Rule::kw_anywhere => "`anywhere`",
        Rule::kw_leading => "`leading`",
        Rule::kw_wanted => "`wanted`",
        Rule::kw_to => "`to`",
        Rule::kw_lossy => "`lossy`",
        Rule::kw_from => "`from`",
        Rule::kw_if => "`if`",
        Rule::kw_present => "`present`",
        Rule::kw_alias => "`alias`",
        Rule::kw_require => "`require`",
        Rule::kw_absent => "`absent`",
        Rule::kw_skip => "`skip`",
        Rule::kw_fallback => "`fallback`",
        Rule::kw_error => "`error`",
        Rule::count | Rule::kw_count => "`count`",
        Rule::kw_else => "`else`",
        Rule::kw_target => "`target`",
        Rule::kw_optional => "`optional`",
        Rule::kw_alone => "`alone`",
        Rule::kw_or => "`or`",
        Rule::kw_and => "`and`",
        Rule::kw_not => "`not`",
        Rule::kw_null => "`null`",
        Rule::kw_true => "`true`",
        Rule::kw_false => "`false`",
        Rule::kw_tied => "`tied`",
        Rule::EOI => "the end of the statement",
    }
}

/// The words that a list of expected rules consists of, each once, the end last.
pub(super) fn expected(rules: &[Rule]) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = Vec::new();
    for rule in rules {
        for word in name(*rule).split(';') {
            if !words.contains(&word) {
                words.push(word);
            }
        }
    }
    // What can go on comes before the choice to stop.
    words.sort_by_key(|word| *word == name(Rule::EOI));
    words
}

/// `a, b or c`
pub(super) fn either(words: &[&str]) -> String {
    match words {
        [] => "something else".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
