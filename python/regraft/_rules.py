"""Rules, and the verbs: load or compile, plan, apply."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, Union

from . import _facts, _optimizer, _regraft
from ._arrays import ops_of
from ._errors import Diagnostic, diagnostics_from_json
from ._options import DEFAULTS, Options, Unpack, takes
from ._plan import Plan

PathLike = Union[str, "os.PathLike[str]"]


class Rules:
    """A checked rule file. Made by :func:`load` and :func:`compile`. It never changes, and travels
    to other processes as its text."""

    def __init__(self, inner: _regraft.Rules) -> None:
        self._inner = inner

    def __copy__(self) -> Rules:
        return self

    def __deepcopy__(self, memo: Any) -> Rules:
        return self

    @property
    def name(self) -> str:
        """What stands after ``ruleset``, or the file's name."""
        return self._inner.name

    @property
    def layouts(self) -> tuple[str, str] | None:
        """The left and the right layout, if the file names them."""
        return self._inner.layouts

    @property
    def models(self) -> list[str]:
        """The class names and model types that it is for."""
        return self._inner.models

    @property
    def trust(self) -> list[str]:
        """The repositories whose code may run, as ``nvidia/*``."""
        return self._inner.trust

    @property
    def text(self) -> str:
        """The rule text."""
        return self._inner.text

    @property
    def findings(self) -> list[Diagnostic]:
        """Warnings and notes of the check."""
        return diagnostics_from_json(self._inner.findings)

    def __repr__(self) -> str:
        layouts = f": {self.layouts[0]} <-> {self.layouts[1]}" if self.layouts else ""
        return f"<regraft.Rules {self.name}{layouts}>"

    def _repr_html_(self) -> str:
        return self._inner.to_html()

    @takes(Options)
    def plan(self, source: Any, **options: Unpack[Options]) -> Plan:
        """Plans these rules against a state dict or the path of a checkpoint; no tensor is changed.
        Options as in :func:`regraft.plan`."""
        return plan(source, rules=self, **options)

    @takes(Options)
    def apply(self, state_dict: Any, *, inplace: bool = False, **options: Unpack[Options]) -> Any:
        """Applies these rules to a state dict. Options as in :func:`regraft.apply`."""
        return _apply(state_dict, self, options, inplace)


RulesLike = Union[Rules, str, Sequence[Union[Rules, str]], None]


def load(name_or_path: PathLike) -> Rules:
    """Loads rules: a file of the library by its name, or a file (``*.graft``).

    Raises RulesError if there are none of that name or they are wrong, CheckpointError if the file
    can't be read.
    """
    return Rules(_regraft.load(os.fspath(name_or_path)))


def compile(text: str) -> Rules:
    """Checks rules given as text. Raises RulesError with everything that is wrong with them."""
    return Rules(_regraft.compile(text))


def library() -> list[str]:
    """The names of the rule files that are built in."""
    return _regraft.library_names()


def _resolve(rules: RulesLike) -> list[_regraft.Rules] | None:
    if rules is None:
        return None
    several: Iterable[Any] = [rules] if isinstance(rules, (Rules, str, os.PathLike)) else rules
    return [(one if isinstance(one, Rules) else load(one))._inner for one in several]


def _told_by(rules: RulesLike, given: Mapping[str, Any]) -> dict[str, Any]:
    """What says how the files of ranks are told apart, for who opens them."""
    return {
        "rules": _resolve(rules),
        "from_layout": given["from_"],
        "to_layout": given["to"],
        "reverse": given["reverse"],
    }


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))


# What says something of the tensors that a checkpoint has, and not of how to read the rules.
_ABOUT_CONTENT = ("config", "target", "from_", "to", "parameters", "record")


def _plan(
    source: Any,
    rules: RulesLike,
    options: Options,
    *,
    equal: Callable[[str, str], int | None] | None = None,
    beside: str | None = None,
) -> Plan:
    inner: Any
    given: dict[str, Any] = {**DEFAULTS, **options}
    nested: list[str] = []
    states: list[tuple[str, bytes]] | None = None
    resolved = _resolve(rules)
    if isinstance(source, (_regraft.Checkpoint, _regraft.Header)):
        inner = source
    else:
        keys, dtypes, shapes = _facts.columns(source)
        _facts.refuse_nested(source)
        nested = _facts.nested_beside(source)
        inner = _regraft.Header(keys, dtypes, shapes)
        states = _facts.states(source, keys)
        if rules is None and given["config"] is None:
            raise TypeError("give rules, or a config that chooses them")
        if not keys and (given["target"] is None or _facts.holds_nothing()):
            # A rank that holds nothing runs the same line as the one that holds everything.
            resolved, given = [], {**given, **dict.fromkeys(_ABOUT_CONTENT)}

        def equal(a: str, b: str) -> int | None:
            x, y = source[a], source[b]
            ops = ops_of(x)
            if ops is None or ops_of(y) is not ops:
                return 0 if x is y else None
            return ops.differing_bytes(x, y)

    how: dict[str, Any] = {
        "config": _facts.config(given["config"], beside),
        "from_layout": given["from_"],
        "to_layout": given["to"],
        "parameters": _facts.parameters(given["parameters"]),
        "wanted": _facts.wanted(given["target"]),
        "record": _facts.record(given["record"], beside),
        "states": states,
        **{name: given[name] for name in ("reverse", "tied", "part", "strict", "allow_lossy")},
    }
    made = _regraft.plan(inner, resolved, equal=equal, **how)
    if nested:
        dropped = {key for key, _ in made.dropped()}
        nested = [key for key in nested if key not in dropped]
    return Plan(made, (inner, resolved, how), tuple(nested))


@takes(Options)
def plan(source: Any, *, rules: RulesLike = None, **options: Unpack[Options]) -> Plan:
    """Plans: says how each key of the result is made, without making it.

    source: a state dict; an opened checkpoint; or the path of one, of which headers are read:
    what :func:`open` takes, or a manifest.
    rules: rules, their name or file, or several; without any, those that the config asks for,
    between ``wrappers`` and ``tied_lm_head``.
    config: a mapping, a file, or an object as transformers has them; of a path, config.json beside
    it if not given.
    target: the keys that the result should have: a path, a module, a mapping of keys to tensors or
    (dtype, shape), or keys.
    part: the target is that of a part, as of a pipeline stage: what else the checkpoint has is left
    out, and not unexpected.
    from_, to: the layouts; each rule file is read so that it leads that way.
    reverse: read the rules backwards.
    tied: whether word embeddings are tied; what the config says, or the model type's default, if
    not given.
    parameters: values of the rules' parameters (``let name``).
    strict: whether keys that the target misses or doesn't know are an error.
    allow_lossy: backwards, leave out steps that can't be undone, and note them, where that would be
    an error.
    record: what the conversion that is turned back left (``Plan.record``, or the plan); of a path,
    the file beside it if not given.

    Raises PlanError with everything because of which this can't be converted so.
    """
    from ._files import Checkpoint

    if _is_path(source):
        told_by = _told_by(rules, {**DEFAULTS, **options})
        opened = _regraft.Checkpoint([os.fspath(source)], **told_by)
        return _plan(opened, rules, options, beside=str(opened.directory))
    if isinstance(source, Checkpoint):
        return source.plan(rules, **options)
    if _optimizer.is_state(source):
        raise _optimizer.refused(
            "this is the state of an optimizer, by names of parameters",
            "`apply` converts it as its parameters; a plan is of parameters",
        )
    return _plan(source, rules, options)


@takes(Options)
def apply(
    state_dict: Any,
    *,
    rules: RulesLike = None,
    inplace: bool = False,
    **options: Unpack[Options],
) -> Any:
    """Converts a state dict of torch tensors or numpy arrays; options as in :func:`plan`.

    Renames, ties, slices, splits, unstacked and transposed tensors are views of the same storage,
    on any device, meta too; only what the plan puts together or computes is new. Values that are no
    tensors keep their place under their key, renamed if rules say so.

    Keys are in the order of the target, if it has one, else of what they are made from; what is
    tied or made from nothing comes last. An OrderedDict gives one, with its ``_metadata`` under the
    new names.

    The state of an optimizer by names of parameters, as torch's ``get_optimizer_state_dict`` gives
    it, nested or flat (``state.<name>.exp_avg``), follows its parameters. A whole training
    checkpoint is refused: the state dict lies under a key of it. An empty state dict gives an empty
    one.

    With ``inplace`` the dict itself becomes the result, and tensors leave it as soon as they are
    used up, so that packing needs memory for one more tensor instead of for the whole. It is
    planned first: rules that don't fit leave it as it was; running out of memory midway doesn't.

    Findings are warnings of the class RegraftWarning. Raises PlanError as :func:`plan` does.
    """
    return _apply(state_dict, rules, options, inplace)


def _apply(state_dict: Any, rules: RulesLike, options: Options, inplace: bool = False) -> Any:
    from ._files import Checkpoint

    if isinstance(state_dict, Checkpoint):
        if inplace:
            raise TypeError("files are not edited in place: `regraft.convert` writes new ones")
        made = state_dict.plan(rules, **options)
        made._warn()
        return state_dict._carry_out(made)
    if _optimizer.is_state(state_dict):
        return _apply_to_optimizer(state_dict, rules, options, inplace)
    made = _plan(state_dict, rules, options)
    made._warn()
    return made._carry_out(state_dict, inplace)


def _apply_to_optimizer(state_dict: Any, rules: RulesLike, options: Options, inplace: bool) -> Any:
    told: list[str] = []

    def make(state: Mapping[str, Any]) -> Plan:
        made = _plan(state, rules, options)
        made._warn(told)
        return made

    def make_names(names: Mapping[str, Any]) -> Plan:
        return _plan(names, rules, {**options, "strict": False})

    result = _optimizer.convert(state_dict, make, make_names)
    if not inplace:
        return result
    state_dict.clear()
    state_dict.update(result)
    return state_dict
