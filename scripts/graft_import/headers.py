"""Headers of the models that were probed: what each holds in memory, and what transformers would
save of it.

One JSON file for each class into a directory: `config` (all fields), `model` and `hub` (key ->
[dtype, shape]). Built on torch's meta device with the configurations of `probe`, so there are no
tensors. Classes that are there already are passed over.
"""

import json
import os
import signal
import sys

from .probe import Late, build


def dtypes():
    """torch's dtypes as safetensors names them."""
    import torch

    names = {
        "float32": "F32",
        "float64": "F64",
        "float16": "F16",
        "bfloat16": "BF16",
        "float8_e4m3fn": "F8_E4M3",
        "bool": "BOOL",
        "uint8": "U8",
        "int8": "I8",
        "int16": "I16",
        "int32": "I32",
        "int64": "I64",
        "complex64": "C64",
    }
    return {getattr(torch, name): short for name, short in names.items()}


def header(cls, converts):
    """The header of one class in both layouts, with its configuration."""
    from transformers.core_model_loading import revert_weight_conversion

    names = dtypes()
    model = build(cls)
    model.config.architectures = [cls.__name__]
    ties = model.get_expanded_tied_weights_keys(all_submodels=True)
    state = model.state_dict()

    def described(tensors):
        return {key: [names[tensor.dtype], list(tensor.shape)] for key, tensor in tensors.items()}

    saved = {key: tensor for key, tensor in state.items() if ties.get(key) not in state}
    hub = revert_weight_conversion(model, saved) if converts else saved
    config = json.loads(model.config.to_json_string(use_diff=False))
    return {"config": config, "model": described(state), "hub": described(hub)}


def headers(facts, out, seconds=60):
    """The header of each class in `facts` that has rules or ties."""
    import transformers

    transformers.logging.set_verbosity_error()
    os.makedirs(out, exist_ok=True)

    def late(*_):
        raise Late(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    for fact in facts:
        path = os.path.join(out, fact["class"] + ".json")
        if "error" in fact or os.path.exists(path) or not (fact["program"] or fact["ties"]):
            continue
        signal.alarm(seconds)
        try:
            made = header(getattr(transformers, fact["class"]), bool(fact["program"]))
            with open(path, "w") as f:
                json.dump(made, f)
        except Exception as e:  # any class may refuse its own defaults
            print(fact["class"], type(e).__name__, str(e)[:150], file=sys.stderr)
        finally:
            signal.alarm(0)
