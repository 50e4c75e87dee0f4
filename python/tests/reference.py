"""The checkpoint utilities of nemo-automodel itself, imported without the package around them,
whose dependencies are a training framework."""

import importlib
import importlib.util
import sys
import types


def load():
    """The modules ``checkpoint.utils``, ``shared.tied_weights`` and ``shared.parameter_names``;
    None if the wheel isn't installed."""
    found = importlib.util.find_spec("nemo_automodel")
    if found is None or importlib.util.find_spec("transformers") is None:
        return None
    (root,) = found.submodule_search_locations
    for name, path in (
        ("nemo_automodel", root),
        ("nemo_automodel.shared", f"{root}/shared"),
        ("nemo_automodel.components", f"{root}/components"),
        ("nemo_automodel.components.checkpoint", f"{root}/components/checkpoint"),
    ):
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [path]
            sys.modules[name] = package
    return (
        importlib.import_module("nemo_automodel.components.checkpoint.utils"),
        importlib.import_module("nemo_automodel.shared.tied_weights"),
        importlib.import_module("nemo_automodel.shared.parameter_names"),
    )
