"""One case: a checkpoint of a small model, what `from_pretrained` makes of it, and what
`save_pretrained` writes."""

import copy
import hashlib
import json
import os
import re
import tempfile

from .headers import dtypes
from .probe import BORROWED
from .small import small_config

MASK = (1 << 64) - 1


def data(key, dtype, shape):
    """The data of a key: FNV-1a of it seeds splitmix64."""
    import numpy as np

    count = 1
    for d in shape:
        count *= d
    seed = 0xCBF29CE484222325
    for byte in key.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    if dtype == "BOOL":
        return (z & np.uint64(1)).astype(np.uint8).tobytes()
    if dtype[0] in "IU":
        return (
            (z % np.uint64(100))
            .astype({"I": "<i", "U": "<u"}[dtype[0]] + str(int(dtype[1:]) // 8))
            .tobytes()
        )
    floats = ((z >> np.uint64(40)).astype(np.float64) / 8388608.0 - 1.0).astype(np.float32)
    if dtype == "BF16":
        bits = floats.view(np.uint32)
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2").tobytes()
    return floats.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()


def sha(raw):
    """What stands for bytes in a case."""
    return hashlib.sha256(raw).hexdigest()


def write(path, tensors):
    """A safetensors file of key -> (dtype, shape), filled by key."""
    header, at, parts = {"__metadata__": {"format": "pt"}}, 0, []
    for key, (dtype, shape) in tensors.items():
        raw = data(key, dtype, shape)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        parts.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.writelines(parts)


def read(folder):
    """key -> (dtype, shape, bytes) of all safetensors files of a directory."""
    out = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            with open(os.path.join(folder, file), "rb") as f:
                raw = f.read()
            start = 8 + int.from_bytes(raw[:8], "little")
            for key, said in json.loads(raw[8:start]).items():
                if key != "__metadata__":
                    a, b = said["data_offsets"]
                    out[key] = (said["dtype"], said["shape"], raw[start + a : start + b])
    return out


def raw(tensor):
    """The bytes of a tensor, in C order."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def described(rule):
    """A rule as transformers holds it."""
    out = {
        "cls": type(rule).__name__,
        "source_patterns": list(rule._original_source_patterns),
        "target_patterns": list(rule._original_target_patterns),
        "processed_source_patterns": list(rule.source_patterns),
        "processed_target_patterns": list(rule.target_patterns),
        "compiled_regex": rule.compiled_sources.pattern,
        "scope_prefix": rule.scope_prefix,
        "base_model_prefix": rule.base_model_prefix,
    }
    for name in ("prefix_to_add", "prefix_to_remove", "model_prefix", "offset", "force_cpu"):
        if hasattr(rule, name):
            out[name] = getattr(rule, name)
    if hasattr(rule, "operations"):
        out["operations"] = [{"op": type(op).__name__, **vars(op)} for op in rule.operations]
    return dict(sorted(out.items()))


def aliases(state):
    """Groups of keys that are one tensor, in the order of the state dict."""
    groups = {}
    for key, tensor in state.items():
        if tensor.numel():
            groups.setdefault(
                (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype)), []
            ).append(key)
    return [group for group in groups.values() if len(group) > 1]


def hub_layout(cls, config):
    """key -> (dtype, shape) as transformers publishes a model, and its config.json."""
    import torch

    torch.manual_seed(0)
    model = cls(copy.deepcopy(config))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with open(os.path.join(folder, "config.json")) as f:
            said = json.load(f)
        return {
            key: (dtype, shape) for key, (dtype, shape, _) in sorted(read(folder).items())
        }, said


def fill(model):
    """Fills a model with data by key, and says what each key holds; tied keys hold the data of
    their first."""
    import torch

    names = dtypes()
    seen, held = {}, {}
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            of = seen.setdefault(
                (tensor.data_ptr(), tuple(tensor.shape)) if tensor.numel() else key, key
            )
            held[key] = of
            if of == key and tensor.numel():
                own = data(key, names[tensor.dtype], list(tensor.shape))
                tensor.copy_(
                    torch.frombuffer(bytearray(own), dtype=tensor.dtype).reshape(tensor.shape)
                )
    return held


def case(name, cls, config, checkpoint):
    """The case of one checkpoint; `config` is its config.json."""
    import transformers
    from transformers import AutoConfig
    from transformers.conversion_mapping import get_model_conversion_mapping

    names = dtypes()
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f)
        write(os.path.join(folder, "model.safetensors"), checkpoint)
        # a class would read the configuration of another model type as its own
        borrowed = config["model_type"] in BORROWED
        said = {"config": AutoConfig.from_pretrained(folder)} if borrowed else {}
        try:
            model, info = cls.from_pretrained(folder, output_loading_info=True, **said)
        except AttributeError:  # a class whose own `from_pretrained` can't tell
            model = cls.from_pretrained(folder, **said)
            info = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
        again = (
            cls.from_pretrained(folder, **said).state_dict()
            if model._keys_to_ignore_on_load_missing
            else {}
        )
    state = model.state_dict()
    missing = sorted(info["missing_keys"])
    random = set(missing) | {
        key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]
    }
    # what a class doesn't report as missing, but makes at random all the same
    random |= {key for key in again if raw(again[key]) != raw(state[key])}
    groups = aliases(state)
    random -= {key for group in groups if any(key not in random for key in group) for key in group}
    known = {}
    for key, tensor in sorted(state.items()):
        said = [names[tensor.dtype], list(tensor.shape)]
        known[key] = said if key in random else [*said, sha(raw(tensor))]
    held = fill(model)
    model_data = {
        key: sha(data(of, names[state[key].dtype], list(state[key].shape)))
        for key, of in sorted(held.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = {
            key: [dtype, shape, sha(bytes_)]
            for key, (dtype, shape, bytes_) in sorted(read(folder).items())
        }
    declared = model._tied_weights_keys
    return {
        "base_model_prefix": cls.base_model_prefix,
        "case": name,
        "checkpoint": {key: list(said) for key, said in checkpoint.items()},
        "cls": cls.__name__,
        "config": config,
        "mismatched": sorted(map(str, info["mismatched_keys"])),
        "missing": missing,
        "model": known,
        "model_data": model_data,
        "model_type": config["model_type"],
        "rules": [described(rule) for rule in get_model_conversion_mapping(model)],
        "saved": saved,
        "tie_word_embeddings": getattr(model.config, "tie_word_embeddings", None),
        "tied_weights_keys": declared,
        "ties": sorted(sorted(group) for group in groups),
        "ties_declared": model.get_expanded_tied_weights_keys(all_submodels=True),
        "transformers": transformers.__version__,
        "unexpected": sorted(info["unexpected_keys"]),
    }


def store(path, made):
    """Writes a case, whole or not at all."""
    with open(path + ".part", "w") as f:
        json.dump(made, f, default=str, separators=(",", ":"))
    os.replace(path + ".part", path)


def again(path, out):
    """The case of another file, made here: the same configuration, and the same keys in the
    checkpoint."""
    import transformers

    with open(path) as f:
        other = json.load(f)
    cls = getattr(transformers, other["cls"])
    checkpoint = {key: tuple(said[:2]) for key, said in other["checkpoint"].items()}
    store(out, case(other["case"], cls, other["config"], checkpoint))


# -- variants: each takes a class, its small configuration and its checkpoint, and gives (config,
# config.json, checkpoint) or None


def plain(_cls, config, said, checkpoint):
    """What transformers itself publishes."""
    return said, checkpoint


def flag(cls, config, value):
    """The same configuration with the other answer to whether word embeddings are tied, if that is
    a change."""
    if not cls._tied_weights_keys or bool(getattr(config, "tie_word_embeddings", False)) == value:
        return None
    other = copy.deepcopy(config)
    other.tie_word_embeddings = value
    checkpoint, said = hub_layout(cls, other)
    return said, checkpoint


def tied(cls, config, _said, _checkpoint):
    """Tied, where the default isn't."""
    return flag(cls, config, True)


def untied(cls, config, _said, _checkpoint):
    """Untied, where the default is tied."""
    return flag(cls, config, False)


def prefixes(cls, config):
    """The rules of a class that add or take a prefix."""
    import torch
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model = cls(copy.deepcopy(config))
    return [
        rule
        for rule in get_model_conversion_mapping(model, add_legacy=False)
        if isinstance(rule, PrefixChange)
    ]


def through(rules, checkpoint):
    """A checkpoint with its keys renamed by rules read backwards, if that changes some and joins
    none."""
    backwards = [rule.reverse_transform() for rule in rules[::-1]]
    changed = {}
    for key, said in checkpoint.items():
        now = key
        for rule in backwards:
            now, _ = rule.rename_source_key(now)
        changed[now] = said
    return changed if set(changed) != set(checkpoint) and len(changed) == len(checkpoint) else None


def prefixed(cls, config, said, checkpoint):
    """With the prefix that a rule takes away."""
    changed = through([rule for rule in prefixes(cls, config) if rule.prefix_to_remove], checkpoint)
    return changed and (said, dict(sorted(changed.items())))


def unprefixed(cls, config, said, checkpoint):
    """Without the prefix that a rule adds."""
    changed = through([rule for rule in prefixes(cls, config) if rule.prefix_to_add], checkpoint)
    return changed and (said, dict(sorted(changed.items())))


def bare(cls, config, said, checkpoint):
    """The base model's own checkpoint for a class with a head: transformers adds the base
    prefix."""
    prefix = cls.base_model_prefix + "."
    inner = {
        key.removeprefix(prefix): value
        for key, value in checkpoint.items()
        if key.startswith(prefix)
    }
    return (
        (said, inner)
        if inner and cls.base_model_prefix and len(inner) < len(checkpoint) + 1
        else None
    )


def head(cls, config, said, checkpoint):
    """The checkpoint of a class with a head for a base model: transformers takes the base prefix
    away."""
    prefix = cls.base_model_prefix
    if (
        not prefix
        or any(key.startswith(prefix + ".") for key in checkpoint)
        or cls.__name__.split("For")[0] != cls.__name__
    ):
        return None
    return said, {f"{prefix}.{key}": value for key, value in checkpoint.items()}


def bf16(_cls, config, said, checkpoint):
    """In bfloat16."""
    halved = {
        key: ("BF16" if dtype == "F32" else dtype, shape)
        for key, (dtype, shape) in checkpoint.items()
    }
    return {**said, "dtype": "bfloat16"}, halved


def gamma(_cls, config, said, checkpoint):
    """With the names that TensorFlow gave a layer norm, or that PyTorch once gave weight norm."""
    names = {
        "LayerNorm.weight": "LayerNorm.gamma",
        "LayerNorm.bias": "LayerNorm.beta",
        ".parametrizations.weight.original0": ".weight_g",
        ".parametrizations.weight.original1": ".weight_v",
    }
    changed = {}
    for key, value in checkpoint.items():
        for name, old in names.items():
            if key.endswith(name):
                key = key[: -len(name)] + old
        changed[key] = value
    return (said, dict(sorted(changed.items()))) if set(changed) != set(checkpoint) else None


def in_blocks(tensors):
    """The same with attention and feed-forward network of each layer as two blocks."""
    names = {"self_attn": (0, "mixer"), "mlp": (1, "mixer")}
    names |= {"lambda_1": (0, "attn_alpha"), "lambda_2": (1, "mlp_alpha")}
    changed = {}
    for key, value in tensors.items():
        found = re.search(rf"layers\.(\d+)\.({'|'.join(names)})(?=\.|$)", key)
        if found:
            second, name = names[found[2]]
            block = f"layers.{2 * int(found[1]) + second}.{name}"
            key = key[: found.start()] + block + key[found.end() :]
        changed[key] = value
    return dict(sorted(changed.items()))


def blocks(_cls, config, said, checkpoint):
    """As blocks are published, which transformers reads and doesn't write."""
    from transformers import conversion_mapping as cm

    rules = cm.get_checkpoint_conversion_mapping(config.model_type) or []
    is_read = any(type(rule).__name__ == "LayerPairCollapse" for rule in rules)
    return (said, in_blocks(checkpoint)) if is_read else None


VARIANTS = {
    "plain": plain,
    "blocks": blocks,
    "tied": tied,
    "untied": untied,
    "prefixed": prefixed,
    "unprefixed": unprefixed,
    "bare": bare,
    "head": head,
    "bf16": bf16,
    "gamma": gamma,
}


def make(cls, kinds, out, borrower=None):
    """Writes the cases of one class, or of a model type that borrows it."""
    own = borrower or cls.__name__
    names = {kind: own + ("" if kind == "plain" else "_" + kind) for kind in kinds}
    lacking = {
        kind: name
        for kind, name in names.items()
        if not os.path.exists(os.path.join(out, name + ".json"))
    }
    if not lacking:
        return
    failed = []
    for always in ((), ("equal groups",)):  # rules may ask for sizes that building doesn't
        config = small_config(cls, always=always, model_type=borrower)
        checkpoint, said = hub_layout(cls, config)
        failed = []
        for kind, name in lacking.items():
            path = os.path.join(out, name + ".json")
            try:
                found = (
                    None if os.path.exists(path) else VARIANTS[kind](cls, config, said, checkpoint)
                )
                if found:
                    made = case(name, cls, *found)
                    if kind == "blocks":  # what is saved has the names that it should have
                        made["saved"] = in_blocks(made["saved"])
                    store(path, made)
            except Exception as error:
                failed.append(f"{kind}: {type(error).__name__}: {error}")
        if not failed:
            return
    raise ValueError("; ".join(failed))
