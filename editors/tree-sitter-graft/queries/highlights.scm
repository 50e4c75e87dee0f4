(comment) @comment
((comment) @comment.documentation
  (#match? @comment.documentation "^##"))

[
  "ruleset" "models" "shards" "separator" "use" "let" "strip" "prefix" "rename" "map" "drop" "keep" "cast"
  "tie" "untie" "create" "expect" "trust" "example" "when" "else"
] @keyword
(strict) @keyword

[
  "in" "reversed" "under" "anywhere" "leading" "if" "wanted" "to" "lossy" "from" "present" "absent" "require" "alias"
  "skip" "fallback" "error" "count" "via" "alone" "unless" "target" "where" "optional" "over"
] @keyword
[ "and" "or" "not" ] @keyword.operator

(string) @string
(pattern) @string
(regex) @string.regexp
(escape) @string.escape
(rest) @operator
(capture [ "{" "}" ] @punctuation.special)
(capture (name (identifier) @variable.parameter))
(capture (_ (identifier) @variable.parameter))
(word) @string.special

(ruleset name: (identifier) @module)
(layout) @type
(model_name) @string.special
(rules_path) @module
(let name: (identifier) @variable)
(shards (identifier) @variable.parameter)
(over (identifier) @variable.parameter)
(name (identifier) @variable)
(cast dtype: (identifier) @type)
((name (identifier) @type)
  (#match? @type "^(BOOL|[IUF][0-9]+(_[A-Z0-9]+)?|BF16|C[0-9]+)$"))
(config "config" @variable.builtin)
(field) @property
(exists "exists" @function.builtin)
(call name: (identifier) @function.builtin)
(op name: (identifier) @function)
(made name: (identifier) @function)

(constant) @constant.builtin
[ (integer) (float) ] @number

[ (two_way) (one_way) "|" "=>" "=" ".." "==" "!=" "<=" "<" ">=" ">" "??" "+" "-" "*" "/" "%" "**" ] @operator
[ "," ":" ] @punctuation.delimiter
[ "(" ")" "[" "]" "{" "}" ] @punctuation.bracket
