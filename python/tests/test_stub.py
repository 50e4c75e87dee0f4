"""What `_regraft.pyi` says of the native module is what the module has: names, and the names, kinds
and defaults of parameters."""

import ast
import inspect
import types
from pathlib import Path

import pytest
from regraft import _regraft

STUB = Path(_regraft.__file__).with_name("_regraft.pyi")
TREE = ast.parse(STUB.read_text())
CLASSES = [node for node in TREE.body if isinstance(node, ast.ClassDef)]
FUNCTIONS = [node for node in TREE.body if isinstance(node, ast.FunctionDef)]


def decorators(node):
    return {name.id for name in node.decorator_list}


def said(node, own):
    """(name, kind, default) of each parameter in the stub; ``...`` stands for a default that has no
    form there. ``own``: whether the first is the class or the object."""
    args = node.args
    assert args.vararg is None and args.kwarg is None
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    parameters = [
        *(("positional", arg, default) for arg, default in zip(positional, defaults)),
        *(("keyword", arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)),
    ]
    return [
        (arg.arg, kind, inspect.Parameter.empty if default is None else ast.literal_eval(default))
        for kind, arg, default in parameters[1 if own else 0 :]
    ]


def had(function):
    """The same of the module."""
    kinds = {
        inspect.Parameter.POSITIONAL_ONLY: "positional",
        inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
        inspect.Parameter.KEYWORD_ONLY: "keyword",
    }
    parameters = inspect.signature(function).parameters.values()
    return [
        (p.name, kinds[p.kind], p.default) for p in parameters if p.name not in ("self", "$self")
    ]


def assert_same(node, function, own=False):
    stub, module = said(node, own), had(function)
    assert [one[:2] for one in stub] == [one[:2] for one in module]
    for (name, _, written), (_, _, default) in zip(stub, module):
        has = inspect.Parameter.empty
        assert (written is has) == (default is has), name
        # A default that Rust makes is `...` to Python as well.
        assert written is ... or written == default, name


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_the_names_are_those_of_the_module():
    values = {n.target.id for n in TREE.body if isinstance(n, ast.AnnAssign)}
    assert public(values | {node.name for node in [*CLASSES, *FUNCTIONS]}) == public(vars(_regraft))
    assert all(hasattr(_regraft, name) for name in values)


@pytest.mark.parametrize("node", FUNCTIONS, ids=lambda node: node.name)
def test_functions(node):
    assert_same(node, getattr(_regraft, node.name))


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_classes(node):
    made = getattr(_regraft, node.name)
    members = {method.name: method for method in node.body}
    assert public(members) == public(vars(made))
    if "__new__" not in members:
        with pytest.raises(TypeError, match="cannot create"):
            made()
    for name, method in members.items():
        had_by_module = inspect.getattr_static(made, name)
        if "property" in decorators(method):
            assert isinstance(had_by_module, types.GetSetDescriptorType), name
        elif name == "__new__":
            assert_same(method, made, own=True)
        elif "staticmethod" in decorators(method):
            assert isinstance(had_by_module, staticmethod), name
            assert_same(method, getattr(made, name))
        elif public([name]):
            assert not isinstance(had_by_module, (staticmethod, types.GetSetDescriptorType)), name
            assert_same(method, getattr(made, name), own=True)
