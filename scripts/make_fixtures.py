#!/usr/bin/env python3
"""Write tests/fixtures/headers.json: for each rule file that has layouts, a small header in its
left layout.

    python3 scripts/make_fixtures.py --regraft target/release/regraft --cases CASES --headers
HEADERS

CASES holds cases as in tests/fixtures/cases, HEADERS what `import_transformers.py headers` wrote.
Of all headers whose class or model type a file serves, the one on which most of its rules fire is
taken, cases first; for a file that is only used by others, a header of one of those, cut to the
subtree that it is used under. Where none fires, as today's checkpoints have today's names, keys get
names that checkpoints of old have (`older`), or lose or gain the base prefix, which needs the keys
that the model asks for: the fixture's `target`. Shapes are shrunk as far as the plan stays the
same: tensors that no op touches freely, the others by one power of two. Meta's layout of Llama is
written down here.

A line of the file is a fixture: `of` (the class or case), `config` (only the fields that some rule
file asks for), and `keys`, folded: in `layers.{0-3,7}.w` the braces stand for each of those
numbers, in every combination.
"""

import argparse
import glob
import json
import math
import os
import re
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
RULES = os.path.join(HERE, "..", "rules")
OUT = os.path.join(HERE, "..", "tests", "fixtures", "headers.json")
TRIED = 8  # headers tried for a file
FACTORS = [2**n for n in range(13, -1, -1)]


def library():
    """name -> text of every rule file, without comments."""
    found = {}
    for path in glob.glob(os.path.join(RULES, "**", "*.graft"), recursive=True):
        with open(path) as f:
            text = "\n".join(line for line in f.read().splitlines() if not line.startswith("#"))
        found[os.path.relpath(path, RULES)[: -len(".graft")]] = text
    return dict(sorted(found.items()))


def models(text):
    """The classes and model types that a file is for."""
    lines = re.findall(r"^models ((?:[^\n]*,[ ]*\n)*[^\n]*)$", text, re.M)
    return {one.strip() for line in lines for one in line.split(",")}


def uses(text):
    """(file, subtree) of each `use`."""
    return [
        (name, under or "")
        for name, under in re.findall(r'^\s*use ([\w/]+)(?: under "([^"]*)")?', text, re.M)
    ]


def sources(options):
    """(name, class, model type, config, keys), cases first, small ones before large."""
    found = []
    for path in sorted(glob.glob(os.path.join(options.cases, "*.json"))):
        with open(path) as f:
            case = json.load(f)
        keys = {key: said[:2] for key, said in case["checkpoint"].items()}
        found.append((0, len(keys), case["case"], case["config"], keys, case["model"]))
    for path in sorted(glob.glob(os.path.join(options.headers, "*.json"))):
        with open(path) as f:
            header = json.load(f)
        found.append(
            (
                1,
                len(header["hub"]),
                os.path.basename(path)[:-5],
                header["config"],
                header["hub"],
                header["model"],
            )
        )
    return [tuple(rest) for _, _, *rest in sorted(found, key=lambda one: one[:3])]


def meta_llama(cases):
    """Llama as Meta publishes it: the names of its reference implementation, shapes of the case
    `llama_untied`."""
    with open(os.path.join(cases, "llama_untied.json")) as f:
        case = json.load(f)
    names = {
        "model.embed_tokens": "tok_embeddings",
        "model.norm": "norm",
        "lm_head": "output",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attention.wq",
        "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
    }
    keys = {}
    for key, (dtype, shape) in case["checkpoint"].items():
        for hub, meta in names.items():
            key = re.sub(rf"^(model\.layers\.\d+\.)?{re.escape(hub)}\.", rf"\g<1>{meta}.", key)
        keys[key.removeprefix("model.")] = [dtype, shape]
    keys["rope.freqs"] = [
        "F32",
        [case["config"]["hidden_size"] // case["config"]["num_attention_heads"] // 2],
    ]
    return "llama_untied", case["config"], keys


def meta_llama_ranks(cases):
    """The file of one rank, whose tensors are whole: the data of a key depends on the key, so no
    two ranks could have the same norms."""
    of, config, keys = meta_llama(cases)
    return of, config, {f"0.{key}": said for key, said in keys.items()}


def prefixes(texts, name, under=""):
    """(subtree, base prefix) of each `prefix` of a file and of those that it uses."""
    below = under + "." if under else ""
    for prefix in re.findall(r'^\s*prefix "([^"]+)"', texts[name], re.M):
        yield below, prefix
    for used, subtree in uses(texts[name]):
        yield from prefixes(texts, used, (below + subtree).strip("."))


# Names that checkpoints of old have, by patterns of today's: TensorFlow's, PyTorch's, and those of
# models that once had a level more.
OLDER = {
    "LayerNorm of TensorFlow": [
        (r"(.*\.LayerNorm)\.weight", r"\1.gamma"),
        (r"(.*\.LayerNorm)\.bias", r"\1.beta"),
    ],
    "weight norm of old": [
        (r"(.*)\.parametrizations\.weight\.original0", r"\1.weight_g"),
        (r"(.*)\.parametrizations\.weight\.original1", r"\1.weight_v"),
    ],
    "a language model with a level of its own": [
        (r"model\.language_model\.(.*)", r"model.language_model.model.\1")
    ],
    "a text tower with a level of its own": [
        (r"(.*\btext_model)\.((?:embeddings|encoder|final_layer_norm)\..*)", r"\1.text_model.\2")
    ],
    "a vision tower with a level of its own": [
        (
            r"(.*\bvision_model)\.((?:embeddings|encoder|layernorm|post_layernorm|pre_layrnorm|head)\..*)",
            r"\1.vision_model.\2",
        )
    ],
    "the text tower of a whole model": [
        (r"((?:embeddings|encoder|final_layer_norm)\..*)", r"text_model.\1")
    ],
    "a text backbone with a level of its own": [
        (
            r"(language_backbone\.model)\.((?:embeddings|encoder|final_layer_norm)\..*)",
            r"\1.text_model.\2",
        )
    ],
}


def older(texts, name, keys, model):
    """(what was done, keys, target or None) in each way in which the same model may have been
    published otherwise."""

    def renamed(of, change, target):
        changed = {change(key): said for key, said in keys.items()}
        if len(changed) == len(keys) and set(changed) != set(keys):
            yield of, changed, target

    for below, prefix in prefixes(texts, name):
        whole = f"{below}{prefix}."
        yield from renamed(
            "without the base prefix",
            lambda key, below=below, whole=whole: (
                below + key[len(whole) :] if key.startswith(whole) else key
            ),
            list(model),
        )
        yield from renamed(
            "with a base prefix",
            lambda key, below=below, whole=whole: (
                whole + key[len(below) :] if key.startswith(below) else key
            ),
            list(model),
        )
    for of, changes in OLDER.items():

        def old(key, changes=changes):
            for pattern, by in changes:
                if re.fullmatch(pattern, key):
                    return re.fullmatch(pattern, key).expand(by)
            return key

        yield from renamed(of, old, None)


def mtp(_cases):
    """A head that predicts further tokens, as Qwen3-Next publishes it (its file's last group), with
    small shapes."""
    names = {
        "fc": [4, 8],
        "pre_fc_norm_embedding": [4],
        "pre_fc_norm_hidden": [4],
        "norm": [4],
        "layers.0.input_layernorm": [4],
        "layers.0.post_attention_layernorm": [4],
        "layers.0.self_attn.q_proj": [4, 4],
        "layers.0.self_attn.k_proj": [2, 4],
        "layers.0.self_attn.v_proj": [2, 4],
        "layers.0.self_attn.o_proj": [4, 4],
        "layers.0.mlp.up_proj": [6, 4],
        "layers.0.mlp.gate_proj": [6, 4],
        "layers.0.mlp.down_proj": [4, 6],
    }
    return (
        "Qwen3-Next",
        {"architectures": ["MtpModel"]},
        {f"mtp.{name}.weight": ["F32", shape] for name, shape in names.items()},
    )


def timm(_cases):
    """The stem and a block of timm's resnet, by its own names: timm's checkpoints know no
    wrapper."""
    keys = {
        "conv1.weight": ["F32", [2, 3, 3, 3]],
        "fc.weight": ["F32", [3, 2]],
        "fc.bias": ["F32", [3]],
    }
    for norm in ("bn1", "layer1.0.bn1"):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            keys[f"{norm}.{leaf}"] = ["F32", [2]]
    return (
        "timm's resnet",
        {"architectures": ["TimmWrapperModel"], "model_type": "timm_wrapper"},
        keys,
    )


def zamba(_cases):
    """Three hybrid layers of Zamba, which share a block: the first holds it; names as transformers
    has them."""
    names = ["input_layernorm", "self_attn.q_proj", "feed_forward.up_proj"]
    block = {f"{name}.weight": ["F32", [4] if "norm" in name else [4, 4]] for name in names}
    keys = {f"model.layers.2.shared_transf.{name}": said for name, said in block.items()}
    own = {f"model.layers.{i}.linear.weight": ["F32", [4, 4]] for i in (2, 7, 13)}
    config = {
        "architectures": ["ZambaForSequenceClassification"],
        "model_type": "zamba",
        "tie_word_embeddings": True,
    }
    target = [f"model.layers.{i}.shared_transf.{name}" for i in (2, 7, 13) for name in block]
    return "Zamba", config, {**keys, **own}, [*target, *own]


def whole(name, prefix=""):
    """A whole model's checkpoint, for its base model: what a case has but the output head, and its
    keys without the base prefix as target."""

    def fixture(cases):
        with open(os.path.join(cases, name + ".json")) as f:
            case = json.load(f)
        keys = {
            prefix + key: said[:2]
            for key, said in case["checkpoint"].items()
            if not key.endswith("lm_head.weight")
        }
        target = [key.removeprefix("model.") for key in case["model"] if key.startswith("model.")]
        return f"{name}, for its base model", case["config"], keys, target

    return fixture


def before_five(name):
    """A case as transformers 4 published it: packed experts with their last two dimensions the
    other way round."""

    def fixture(cases):
        with open(os.path.join(cases, name + ".json")) as f:
            case = json.load(f)
        keys = {key: said[:2] for key, said in case["checkpoint"].items()}
        for key, (_, shape) in keys.items():
            if ".experts." in key:
                shape[1:] = shape[:0:-1]
        return f"{name}, as before transformers 5", case["config"], keys

    return fixture


BY_HAND = {
    "zamba": zamba,
    "qwen3_vl_moe": before_five("qwen3_vl_moe"),
    "transformers/timm_wrapper": timm,
    "llama": meta_llama,
    "meta_llama": meta_llama_ranks,
    "transformers/MtpModel": mtp,
    "transformers/HyperCLOVAXVisionV2Model": whole("hyperclovax_vision_v2"),
    # published within a model that also talks, whose names have this prefix
    "transformers/Qwen2_5OmniThinkerModel": whole("qwen2_5_omni_thinker", "thinker."),
}


# Parameters that reading backwards needs.
SET = {"meta_llama": {"set": {"ranks": 1}}}


class Planner:
    """Asks regraft for plans."""

    def __init__(self, binary):
        self.binary = binary
        self.folder = tempfile.mkdtemp()

    def plan(self, rules, config, keys, target=None, reverse=False):
        """The plan of one file. A rule of our own always fires: named rules that don't fit at all
        would be refused, ties and all."""
        header, facts, file = (
            os.path.join(self.folder, name) for name in ("h.json", "c.json", "rules.graft")
        )
        with open(header, "w") as f:
            json.dump({**keys, "ours.there" if reverse else "ours": ["U8", [1]]}, f)
        with open(facts, "w") as f:
            json.dump(config, f)
        with open(file, "w") as f:
            f.write(f'ruleset asks: a <-> b\nuse {rules}\nrename "ours" <-> "ours.there"\n')
        command = [
            self.binary,
            "plan",
            header,
            "--config",
            facts,
            "--rules",
            file,
            "--json",
            "--no-strict",
        ]
        if reverse:
            command.append("--reverse")
        if target:
            wanted = os.path.join(self.folder, "target.json")
            with open(wanted, "w") as f:
                json.dump([*target, "ours.there"], f)
            command += ["--target", wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            plan = json.loads(done.stdout)
        except ValueError:
            return None
        if "nodes" not in plan:
            return None
        plan["rules"] = [rule for rule in plan["rules"] if "ours" not in rule["text"]]
        plan["targets"] = [
            target for target in plan["targets"] if not target["key"].startswith("ours")
        ]
        return plan


def fired(plan):
    """How many rules of a plan took something."""
    return sum(1 for rule in plan["rules"] if rule["count"]) if plan else -1


def shape_of(plan):
    """What must stay the same while shapes shrink."""
    return [
        (target["key"], plan["nodes"][target["node"]]["op"]["op"], target.get("tied_to"))
        for target in plan["targets"]
    ]


def shrink(planner, rules, config, keys, target):
    """The same header with small shapes."""
    plan = planner.plan(rules, config, keys, target)
    whole = shape_of(plan)
    moved = {plan["nodes"][target["node"]]["op"].get("key") for target in plan["targets"]}

    def free(d):
        return d if d <= 2 else 2 + d % 2

    def each(d, factor):
        while factor > 1 and d % 2 == 0 and d >= 8:
            d, factor = d // 2, factor // 2
        return d

    def together(d, factor):
        return d // factor if d % factor == 0 and d // factor >= 4 else d

    for spare in (moved, set()):
        for scaled in (each, together):
            for factor in FACTORS[: None if scaled is together else 10]:
                small = {
                    key: [dtype, [free(d) if key in spare else scaled(d, factor) for d in shape]]
                    for key, (dtype, shape) in keys.items()
                }
                found = planner.plan(rules, config, small, target)
                if found and shape_of(found) == whole:
                    return one_by_one(planner, rules, config, small, target, whole)
    return one_by_one(planner, rules, config, keys, target, whole)


def one_by_one(planner, rules, config, keys, target, whole):
    """Where tensors are still large: each length by itself, everywhere that it stands, as small as
    the plan lets it be."""
    if sum(math.prod(shape) for _, shape in keys.values()) < 20_000:
        return keys
    for long in sorted({d for _, shape in keys.values() for d in shape if d > 16}, reverse=True):
        for short in (3, 4, 8, 12, 16, 32, 48, 64, 96, 128):
            small = {
                key: [dtype, [short if d == long else d for d in shape]]
                for key, (dtype, shape) in keys.items()
            }
            found = planner.plan(rules, config, small, target) if short < long else None
            if found and shape_of(found) == whole:
                keys = small
                break
    return keys


def switched(config, path):
    """A configuration with one field true."""
    first, *rest = path
    return {**config, first: switched(config.get(first) or {}, rest) if rest else True}


def runs(numbers):
    """`0-3,7`"""
    numbers, out = sorted(numbers), []
    while numbers:
        end = 1
        while end < len(numbers) and numbers[end] == numbers[0] + end:
            end += 1
        out.append(str(numbers[0]) if end == 1 else f"{numbers[0]}-{numbers[end - 1]}")
        numbers = numbers[end:]
    return out


def folded(tuples):
    """Lists of runs that together stand for all tuples of numbers."""
    if not tuples[0]:
        return [()]
    by_first = {}
    for first, *rest in tuples:
        by_first.setdefault(first, []).append(tuple(rest))
    by_rest = {}
    for first, rest in by_first.items():
        by_rest.setdefault(tuple(folded(sorted(rest))), []).append(first)
    return [(tuple(runs(firsts)), *rest) for rests, firsts in by_rest.items() for rest in rests]


def fold(keys):
    """Keys that differ in their numbers only, and have one dtype and shape, as one."""
    groups = {}
    for key, (dtype, shape) in keys.items():
        segments = key.split(".")
        numbers = tuple(int(one) for one in segments if re.fullmatch(r"0|[1-9]\d*", one))
        kind = tuple("#" if re.fullmatch(r"0|[1-9]\d*", one) else one for one in segments)
        groups.setdefault((kind, dtype, tuple(shape)), []).append(numbers)
    out = {}
    for (kind, dtype, shape), tuples in groups.items():
        for choice in folded(sorted(tuples)):
            rest = iter(choice)
            written = []
            for segment in kind:
                if segment == "#":
                    one = next(rest)
                    segment = (
                        one[0] if len(one) == 1 and "-" not in one[0] else "{" + ",".join(one) + "}"
                    )
                written.append(segment)
            key = ".".join(written)
            # Keys may differ in shape and still fold to one pattern only if they are the same keys.
            assert key not in out
            out[key] = [dtype, list(shape)]
    return dict(sorted(out.items()))


def needed(config, fields):
    """The fields that rules ask for, wherever they lie."""
    out = {}
    for name, value in config.items():
        if isinstance(value, dict):
            inner = needed(value, fields)
            if inner:
                out[name] = inner
        elif name in fields:
            out[name] = value
    return out


def main():
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--regraft", required=True)
    args.add_argument("--cases", required=True)
    args.add_argument("--headers", required=True)
    args.add_argument(
        "--only",
        nargs="*",
        help="make the fixtures of these rule files, and leave the others as they are",
    )
    options = args.parse_args()
    texts, known, planner = library(), sources(options), Planner(options.regraft)
    fields = {
        word
        for text in texts.values()
        for path in re.findall(r"config((?:\.\w+)+)", text)
        for word in path[1:].split(".")
    }
    fields |= {"model_type", "architectures", "tie_word_embeddings"}
    users = {}
    for name, text in texts.items():
        for used, under in uses(text):
            users.setdefault(used, []).append((name, under))

    def claimed(name, under=""):
        """Headers that a file serves, or that those which use it do, cut to the subtree, with the
        model's keys there."""
        cut = under + "." if under else ""

        def below(keys):
            return {
                key.removeprefix(cut): said for key, said in keys.items() if key.startswith(cut)
            }

        for one, config, keys, model in known:
            if models(texts[name]) & {
                *(config.get("architectures") or []),
                config.get("model_type"),
            }:
                if below(keys) or below(model):
                    yield one, config, below(keys), below(model)
        for user, subtree in users.get(name, []):
            yield from claimed(user, f"{subtree}.{under}".strip("."))

    def fixture(name):
        """(of, config, keys, target) of the header on which most rules of a file fire."""
        if name in BY_HAND:
            of, config, keys, *target = BY_HAND[name](options.cases)
            return of, config, keys, target[0] if target else None
        own = list(claimed(name))
        plain = [one for one in own if one[2]]
        classes = [
            one for one in plain if models(texts[name]) & set(one[1].get("architectures") or [])
        ]
        tried = (classes + [one for one in plain if one not in classes])[:TRIED]
        found = [(of, config, keys, None) for of, config, keys, _ in tried]
        best = max(found, key=lambda one: fired(planner.plan(name, *one[1:])), default=None)
        if best and fired(planner.plan(name, *best[1:])) > 0:
            return best
        for of, config, keys, model in tried:
            for how, changed, target in older(texts, name, keys, model):
                found.append((f"{of}, {how}", config, changed, target))
        for flag in re.findall(r"^\s+when config\.([\w.]+)", texts[name], re.M):
            # A flag of its own rules its ties: on, and the tied keys left out.
            tied = set(
                re.findall(
                    r'"([^"]+)"',
                    " ".join(re.findall(r"^tie (.*?)^\s+from", texts[name], re.M | re.S)),
                )
            )
            for of, config, keys, _ in tried:
                found.append(
                    (
                        f"{of}, tied",
                        switched(config, flag.split(".")),
                        {k: v for k, v in keys.items() if k not in tied},
                        None,
                    )
                )
        for of, config, keys, model in own[:TRIED]:
            # Only reached through a rename of the file that uses it: the model's keys are there,
            # what comes before them the rules say.
            plan = (
                None
                if keys
                else planner.plan(
                    name, config, {key: said[:2] for key, said in model.items()}, None, True
                )
            )
            if plan and plan["targets"]:
                infos = {one["key"]: plan["nodes"][one["node"]]["info"] for one in plan["targets"]}
                before = {key: [info["dtype"], info["shape"]] for key, info in infos.items()}
                found.append((f"{of}, its model keys read backwards", config, before, None))
        return max(found, key=lambda one: fired(planner.plan(name, *one[1:])), default=None)

    lines, report = [], []
    for name, text in texts.items():
        if not re.search(r"^ruleset \w+: ", text, re.M) or (
            options.only and name not in options.only
        ):
            continue
        best = fixture(name)
        plan = planner.plan(name, *best[1:]) if best else None
        if fired(plan) < 1:
            report.append(
                f"{name}: no rule fires{f' on {best[0]}' if best else ', and there is no header'}"
            )
        if plan is None:
            continue
        of, config, keys, target = best
        if not re.search(
            r"\bdim\d\b", text
        ):  # rules that ask for lengths want those of the configuration
            keys = shrink(planner, name, config, keys, target)
        made = {"of": of, "config": needed(config, fields), "keys": fold(keys)}
        if target:
            made["target"] = list(fold(dict.fromkeys(target, ["U8", []])))
        made |= SET.get(name, {})
        lines.append(f"{json.dumps(name)}: {json.dumps(made, separators=(',', ':'))}")
    for line in report:
        print(line)
    print(f"{len(lines)} fixtures, {sum(map(len, lines)) >> 10} KiB")
    if options.only:
        with open(OUT) as f:
            old = {
                name: json.dumps(made, separators=(",", ":")) for name, made in json.load(f).items()
            }
        new = {
            name: line.partition(": ")[2]
            for line in lines
            for name in [json.loads(line.partition(": ")[0])]
        }
        lines = [
            f"{json.dumps(name)}: {made}"
            for name, made in sorted({**old, **new}.items())
            if name in texts
        ]
    with open(OUT, "w") as f:
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
