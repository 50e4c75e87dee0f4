"""regraft rewrites state dicts: rules say once how the keys and tensors of one checkpoint layout
correspond to those of another.

>>> import regraft
>>> regraft.load("mixtral").layouts
('hub', 'model')

``load`` or ``compile`` rules, ``plan`` them against a state dict or a checkpoint, ``apply`` them to
tensors in memory (what can be a view is one), or ``convert`` files. Nothing here needs torch or
numpy before tensors are asked for.
"""

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
