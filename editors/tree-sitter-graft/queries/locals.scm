; A file is the scope of its `let`s, a rule that of its captures.
(file) @local.scope
(rule) @local.scope

(let name: (identifier) @local.definition.var)
(capture (_ . (identifier) @local.definition.parameter))
(capture (name (identifier) @local.definition.parameter))
(shards (identifier) @local.definition.parameter)

(name (identifier) @local.reference)
(over (identifier) @local.reference)
