"""regraft rewrites state dicts: rules say once how the keys and tensors of one checkpoint layout
correspond to those of another.

>>> import regraft
>>> regraft.load("mixtral").layouts
('hub', 'model')

``load`` or ``compile`` rules, ``plan`` them against a state dict or a checkpoint, ``apply`` them to
tensors in memory (what can be a view is one), or ``convert`` files. Nothing here needs torch or
numpy before tensors are asked for, and each part is loaded when it is first used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._errors import (
        CheckpointError,
        Diagnostic,
        OutputExistsError,
        PlanError,
        RegraftError,
        RegraftWarning,
        RulesError,
        Span,
    )
    from ._files import Checkpoint, Conversion, convert, open
    from ._plan import Plan, Report, Target
    from ._regraft import __version__
    from ._rules import Rules, apply, compile, library, load, plan
    from ._weights import weights

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Conversion",
    "Diagnostic",
    "OutputExistsError",
    "Plan",
    "PlanError",
    "RegraftError",
    "RegraftWarning",
    "Report",
    "Rules",
    "RulesError",
    "Span",
    "Target",
    "__version__",
    "apply",
    "compile",
    "convert",
    "library",
    "load",
    "open",
    "plan",
    "weights",
]

_PARTS = {
    "_errors": (
        "CheckpointError",
        "Diagnostic",
        "OutputExistsError",
        "PlanError",
        "RegraftError",
        "RegraftWarning",
        "RulesError",
        "Span",
    ),
    "_files": ("Checkpoint", "Conversion", "convert", "open"),
    "_plan": ("Plan", "Report", "Target"),
    "_regraft": ("__version__",),
    "_rules": ("Rules", "apply", "compile", "library", "load", "plan"),
    "_weights": ("weights",),
}
_PART_OF = {name: part for part, names in _PARTS.items() for name in names}


def __getattr__(name: str) -> object:
    part = _PART_OF.get(name)
    if part is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f".{part}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
