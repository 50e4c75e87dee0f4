"""Import conversion scripts of transformers, without what they ask for beside their mappings."""

import builtins
import glob
import os
import types
from unittest import mock

FOLDER = None
# The names under which a renamed copy imports itself.
RENAMED = {"transformers_4573": "transformers", "huggingface_hub_4573": "huggingface_hub"}


class _Lenient:
    """A module, or nothing, with a stand-in for each name that it lacks."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        found = getattr(self._module, name, None)
        return mock.MagicMock(name=name) if found is None else found


def _lenient_import(name, scope=None, local=None, names=(), level=0):
    if level or name == "torch" or name.startswith("torch."):
        # A relative import is one of the script's own model folder.
        return _Lenient(None) if level else builtins.__import__(name, scope, local, names)
    first, *rest = name.split(".")
    try:
        real = ".".join([RENAMED.get(first, first), *rest])
        return _Lenient(builtins.__import__(real, None, None, names))
    except ImportError:
        return _Lenient(None)


def script(family, name="convert_*", change=None):
    """The module of a conversion script: `script("hiera")`.

    `change` maps its text to another, where a constant of it is too large for a tiny model.
    """
    (path,) = glob.glob(os.path.join(FOLDER, family, f"{name}.py"))
    return lenient(path, change)


def lenient(path, change=None):
    """The module of a file, with stand-ins for what it imports and isn't there."""
    with open(path) as f:
        text = f.read()
    module = types.ModuleType("script")
    module.__file__ = path
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _lenient_import}
    exec(compile(change(text) if change else text, path, "exec"), module.__dict__)
    return module
