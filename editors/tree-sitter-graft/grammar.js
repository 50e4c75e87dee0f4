/**
 * @file The rule language of regraft, as grammar/regraft.pest has it.
 *
 * What pest decides by looking ahead, src/scanner.c decides: a slash that divides or opens a regex, and whether the text
 * after `{x:` is a list of words. Rules are named as in the pest file where a tree has a node for them.
 */

/// <reference types="tree-sitter-cli/dsl" />
// @ts-check

/** One or more of a rule, with a sign between. */
const list = (rule, sign) => seq(rule, repeat(seq(sign, rule)));

/** How tightly operators bind; the parser of regraft has the same numbers. */
const POWER = { or: 1, and: 2, not: 3, compare: 4, default: 5, sum: 6, product: 7, minus: 8 };

module.exports = grammar({
  name: "graft",

  // The second is a literal: the scanner learns where a division could stand, and the lexer reads it.
  externals: ($) => [$.regex, "/", $.word],
  extras: ($) => [/[ \t\r\n\uFEFF]/, $.comment],
  word: ($) => $.identifier,
  supertypes: ($) => [$._expression],

  conflicts: ($) => [
    // `when` after a tie is its clause, unless a `{` follows the condition.
    [$.tie],
    // `{name*}` and `{n*2}`.
    [$.text_capture, $.name],
  ],

  rules: {
    file: ($) => repeat($._statement),

    comment: () => token(seq("#", /[^\n]*/)),

    _statement: ($) =>
      choice(
        $.ruleset, $.models, $.shards, $.separator, $.strict, $.use, $.let, $.strip, $.prefix, $.rename, $.map, $.drop,
        $.keep, $.cast, $.tie, $.create, $.expect, $.trust, $.example, $.when,
      ),

    // Statements

    ruleset: ($) =>
      seq(
        "ruleset",
        field("name", $.identifier),
        optional(seq(":", field("left", $.layout), $._arrow, field("right", $.layout))),
      ),
    layout: ($) => $.identifier,
    models: ($) => seq("models", list(choice($.model_name, $.string), ",")),
    model_name: () => /[A-Za-z0-9_][A-Za-z0-9_.-]*/,
    shards: ($) =>
      seq("shards", "{", $.identifier, optional(seq(":", $._expression, "..", $._expression)), "}", "in", $.string),
    separator: ($) => seq("separator", $.string),
    strict: () => "strict",
    use: ($) =>
      seq("use", field("file", choice($.rules_path, $.string)), optional("reversed"), optional(seq("under", $.pattern))),
    rules_path: () => /[A-Za-z0-9_][A-Za-z0-9_-]*(\/[A-Za-z0-9_][A-Za-z0-9_-]*)*/,
    let: ($) => seq("let", field("name", $.identifier), optional(seq("=", field("value", $._expression)))),
    strip: ($) => seq("strip", choice("anywhere", "leading"), list($.pattern, ","), optional(seq("if", "wanted"))),
    prefix: ($) => seq("prefix", $.pattern),
    rename: ($) => seq("rename", choice($.rule, $.group)),
    map: ($) => seq("map", choice($.rule, $.group)),
    group: ($) => seq("{", repeat($.rule), "}"),
    drop: ($) => seq("drop", $._selection),
    keep: ($) => seq("keep", $._selection),
    cast: ($) =>
      seq("cast", list($.pattern, ","), "to", field("dtype", $.identifier), optional("lossy"), repeat($._tail)),
    tie: ($) =>
      seq(choice("tie", "untie"), list($.pattern, ","), "from", list($.pattern, ","), repeat($._tie_clause)),
    _tie_clause: ($) => choice($.tie_when, $.if_present, $.if_absent),
    tie_when: ($) => seq("when", $._expression),
    if_present: () => seq("if", "present", choice("keep", "alias", "require")),
    if_absent: () => seq("if", "absent", choice("skip", "fallback", "error")),
    create: ($) => seq("create", $.pattern, "=", $.made, repeat($._tail)),
    expect: ($) => seq("expect", $.pattern, optional(seq("count", $._expression))),
    trust: ($) => seq("trust", list($.string, ",")),
    example: ($) => seq("example", list($.key, ","), $._arrow, optional(list($.key, ","))),
    /** A whole key, in which nothing is a pattern. */
    key: ($) => $.string,

    when: ($) =>
      seq("when", field("condition", $._expression), $.block, optional(seq("else", choice($.when, $.block)))),
    block: ($) => seq("{", repeat($._statement), "}"),

    // Rules, sides, clauses

    rule: ($) =>
      seq(
        list(field("left", $.source), ","),
        $._arrow,
        list(field("right", $.target), ","),
        repeat(choice($.via, "alone", $._tail)),
      ),
    source: ($) => seq($._item, optional($._own_ops), optional("optional")),
    target: ($) => seq($._item, optional($._own_ops)),
    _item: ($) => choice($.pattern, $.regex, $.made),
    _own_ops: ($) => repeat1(seq("|", $.op)),
    made: ($) => seq(field("name", $.identifier), $.arguments),
    op: ($) => seq(field("name", $.identifier), optional($.arguments)),
    arguments: ($) => seq("(", optional(list($._argument, ",")), ")"),
    _argument: ($) => choice($.over, $.range, $._expression),
    over: ($) => seq("over", $.identifier),
    range: ($) => choice(seq("..", optional($._expression)), seq($._expression, "..", optional($._expression))),
    via: ($) => seq("via", list($.op, "|")),
    _tail: ($) => choice($.unless, $.where, "optional"),
    unless: ($) => seq("unless", list(seq(optional("target"), $.pattern), ",")),
    where: ($) => seq("where", $._expression),
    _selection: ($) => seq(list($.pattern, ","), repeat($._tail)),
    _arrow: ($) => choice($.two_way, $.one_way),
    two_way: () => "<->",
    one_way: () => "->",

    // Expressions

    _expression: ($) =>
      choice(
        $.binary, $.unary, $.item, $.paren, $.array, $.exists, $.call, $.config, $.name, $.float, $.integer, $.string, $.constant,
      ),
    binary: ($) => {
      const operators = [
        ["or", POWER.or],
        ["and", POWER.and],
        ...["in", "==", "!=", "<=", "<", ">=", ">"].map((sign) => [sign, POWER.compare]),
        ["??", POWER.default],
        ["+", POWER.sum],
        ["-", POWER.sum],
        ["*", POWER.product],
        ["%", POWER.product],
        ["/", POWER.product],
      ];
      const side = (name) => field(name, $._expression);
      return choice(
        ...operators.map(([sign, power]) => prec.left(power, seq(side("left"), field("operator", sign), side("right")))),
      );
    },
    unary: ($) => choice(prec(POWER.not, seq("not", $._expression)), prec(POWER.minus, seq("-", $._expression))),
    item: ($) =>
      prec(9, seq(choice($.array, $.paren, $.name, $.item), $._index)),
    _index: ($) => seq("[", field("index", $._expression), "]"),
    paren: ($) => seq("(", $._expression, ")"),
    array: ($) => seq("[", optional(list($._expression, ",")), "]"),
    exists: ($) => seq("exists", "(", $.pattern, ")"),
    /** `size` and `count`, which are names elsewhere. */
    call: ($) => seq(field("name", $.identifier), "(", $.pattern, ",", choice($.integer, $.name), ")"),
    config: ($) => prec.right(10, seq("config", repeat(choice($._field, $._index)))),
    _field: ($) => seq(token.immediate("."), alias(token.immediate(/[A-Za-z0-9_]+/), $.field)),
    constant: () => choice("null", "true", "false", "tied"),
    name: ($) => $.identifier,
    identifier: () => /[A-Za-z_][A-Za-z0-9_]*/,
    integer: () => /[0-9][0-9_]*/,
    float: () => /[0-9][0-9_]*(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)/,

    // Quotes

    /** Text in which nothing has a meaning but the backslash. */
    string: ($) =>
      seq('"', repeat(choice(alias($._plain, $.text), $.escape)), token.immediate('"')),
    _plain: () => token.immediate(prec(1, /[^"\\\r\n]+/)),
    escape: () => token.immediate(prec(1, /\\[^\r\n]/)),

    /** A key pattern or template. */
    pattern: ($) =>
      seq('"', repeat(choice($.text, $.escape, $.capture, $.rest, ".")), token.immediate(prec(1, '"'))),
    text: () => token.immediate(prec(1, /[^"\\{}*.\r\n]+/)),
    rest: () => token.immediate(prec(1, "**")),
    capture: ($) =>
      seq(
        token.immediate(prec(1, "{")),
        choice($.named_rest, $.text_capture, $.words_capture, $.range_capture, $._expression),
        "}",
      ),
    named_rest: ($) => seq($.identifier, "**"),
    text_capture: ($) => seq($.identifier, "*"),
    words_capture: ($) => seq($.identifier, ":", list($._word_pair, "|")),
    _word_pair: ($) => seq($.word, optional(seq("=>", $.word))),
    range_capture: ($) => seq(choice($.identifier, $.binary, $.unary), ":", $._expression, "..", $._expression),
  },
});
