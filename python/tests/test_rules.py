"""Rules and plans, without torch or numpy: loading, checking, planning, explaining, and what is
raised."""

import inspect
import json
import pickle
import subprocess
import sys
import time

import pytest
import regraft
from regraft import _options

MANIFEST = {f"layers.{i}.weight": ["F32", [4, 6]] for i in range(3)}


def manifest(tmp_path, keys=MANIFEST):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(keys))
    return path


def test_the_library():
    assert {"mixtral", "wrappers", "tied_lm_head", "llama"} <= set(regraft.library())
    rules = regraft.load("mixtral")
    assert (
        rules.layouts == ("hub", "model") and "mixtral" in rules.models and rules.name == "mixtral"
    )
    assert rules.text.startswith("##")
    assert regraft.compile(rules.text).layouts == rules.layouts


def test_rules_from_a_file(tmp_path):
    (tmp_path / "mine.graft").write_text('ruleset mine: a <-> b\nrename "x" <-> "y"\n')
    for path in (tmp_path / "mine.graft", str(tmp_path / "mine.graft")):
        assert regraft.load(path).layouts == ("a", "b")
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.load(tmp_path / "gone.graft")
    assert caught.value.kind == "io" and caught.value.file.endswith("gone.graft")


def test_wrong_rules_say_where():
    text = '# a comment\nrename "a.{x}" <-> "b.{y}"\n'
    with pytest.raises(regraft.RulesError) as caught:
        regraft.compile(text)
    error = caught.value
    assert isinstance(error, regraft.RegraftError)
    assert error.code == "RG201"
    assert text[error.span.start : error.span.end] == '"a.{x}" <-> "b.{y}"'
    assert (error.span.line, error.span.column) == (2, 8)
    assert "RG201" in str(error) and "-->" in str(error) and "rename" in str(error)
    assert error.diagnostics[0].severity == "error" and error.diagnostics[0].hints


def test_every_mistake_is_told_at_once():
    with pytest.raises(regraft.RulesError) as caught:
        regraft.compile('rename "a.{x}" <-> "b"\nmap "a" <-> "b" via transpoze(0, 1)\n')
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} >= {"RG103", "RG201"}


def test_an_unknown_name_has_a_suggestion():
    with pytest.raises(regraft.RulesError, match="did you mean `mixtral`"):
        regraft.load("mixtrl")


def test_exceptions_survive_pickling():
    with pytest.raises(regraft.RulesError) as caught:
        regraft.load("mixtrl")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (
        type(again) is regraft.RulesError
        and str(again) == str(caught.value)
        and again.code == caught.value.code
    )
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.open("/nonexistent/x")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.kind, again.file) == (
        str(caught.value),
        caught.value.kind,
        caught.value.file,
    )


def test_a_plan(tmp_path):
    rules = regraft.compile('map "layers.{l}.weight" <-> "stack" via stack(l)\n')
    plan = rules.plan(manifest(tmp_path))
    assert (
        len(plan) == 1
        and plan.keys() == ["stack"]
        and "stack" in plan
        and "layers.0.weight" not in plan
    )
    (target,) = plan
    assert target.dtype == "F32" and target.shape == (3, 4, 6)
    assert target.sources == tuple(MANIFEST) and target.tied_to is None
    assert len(target.rules) == 1 and "stack(l)" in target.rules[0]
    assert plan["stack"] == target
    assert plan.verdict == "converts"
    whole = json.loads(plan.to_json())
    assert whole == plan.to_dict()
    assert [target["key"] for target in whole["targets"]] == ["stack"]
    with pytest.raises(KeyError):
        plan["gone"]


def test_explain(tmp_path):
    rules = regraft.compile(
        'map "layers.{l}.weight" <-> "stack" via stack(l)\ndrop "junk"\ntie "head" from "stack"'
    )
    plan = rules.plan(manifest(tmp_path, {**MANIFEST, "junk": ["F32", [1]], "other": ["F32", [1]]}))
    assert "becomes stack" in plan.explain("layers.1.weight")
    assert "rules:1" in plan.explain("stack") and "concat" in plan.explain("stack")
    assert "dropped" in plan.explain("junk") and "drop" in plan.explain("junk")
    assert "passes through" in plan.explain("other")
    assert "one tensor with stack" in plan.explain("head")
    assert plan.report.ties == {"head": "stack"}
    assert list(plan.report.dropped) == ["junk"]
    with pytest.raises(KeyError):
        plan.explain("gone")


def test_rules_that_do_not_fit(tmp_path):
    holes = {key: info for key, info in MANIFEST.items() if ".1." not in key}
    with pytest.raises(regraft.PlanError) as caught:
        regraft.compile('map "layers.{l}.weight" <-> "stack" via stack(l)').plan(
            manifest(tmp_path, holes)
        )
    assert caught.value.code.startswith("RG3") and "layers.1.weight" in str(caught.value)


def test_targets_in_every_form(tmp_path):
    rules = regraft.compile('rename "layers.{l}.weight" <-> "blocks.{l}.weight"')
    source = manifest(tmp_path)
    keys = [f"blocks.{i}.weight" for i in range(3)]
    listed = tmp_path / "keys.txt"
    listed.write_text("\n".join(keys))
    for target in (
        keys,
        set(keys),
        listed,
        dict.fromkeys(keys, ("F32", (4, 6))),
        dict.fromkeys(keys),
    ):
        assert rules.plan(source, target=target).report.missing == ()
    with pytest.raises(regraft.PlanError) as caught:
        rules.plan(source, target=[*keys, "blocks.3.weight"])
    assert caught.value.keys == ("blocks.3.weight",)
    with pytest.raises(regraft.PlanError):
        rules.plan(source, target=dict.fromkeys(keys, ("F32", (6, 4))))
    pruned = rules.plan(source, target=keys[:1], strict=False)
    assert pruned.keys() == keys[:1]
    assert set(pruned.report.unexpected) == set(keys[1:])
    stage = rules.plan(source, target=keys[:1], part=True)
    assert stage.keys() == keys[:1] and stage.report.unexpected == ()
    with pytest.raises(regraft.PlanError):
        rules.plan(source, target=[*keys[:1], "blocks.9.weight"], part=True)


def test_parameters_and_config(tmp_path):
    source = manifest(tmp_path, {"a": ["F32", [8, 2]]})
    by_parameter = regraft.compile('let heads\nmap "a" <-> "b" via rope_halves(heads)')
    assert by_parameter.plan(source, parameters={"heads": 2}).keys() == ["b"]
    by_config = regraft.compile(
        'let heads = config.num_attention_heads\nmap "a" <-> "b" via rope_halves(heads)'
    )

    class Config:
        def to_dict(self):
            return {"num_attention_heads": 2, "dtype": float, "nan": float("nan")}

    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}')
    for config in ({"num_attention_heads": 2}, Config(), tmp_path / "config.json", tmp_path, None):
        assert by_config.plan(source, config=config).keys() == ["b"], (
            "without one, the file beside the checkpoint counts"
        )
    for wrong in ({"headz": 2}, {}, {"heads": {}}):
        with pytest.raises((regraft.PlanError, ValueError)):
            by_parameter.plan(source, parameters=wrong)


def test_directions(tmp_path):
    rules = regraft.compile(
        'ruleset r: old <-> new\nrename "layers.{l}.weight" <-> "blocks.{l}.weight"'
    )
    source = manifest(tmp_path)
    there = [f"blocks.{i}.weight" for i in range(3)]
    assert (
        rules.plan(source, to="new").keys()
        == rules.plan(source, from_="old").keys()
        == rules.plan(source).keys()
        == there
    )
    back = manifest(tmp_path, dict.fromkeys(there, ["F32", [4, 6]]))
    assert (
        rules.plan(back, to="old").keys() == rules.plan(back, reverse=True).keys() == list(MANIFEST)
    )
    assert rules.plan(back).verdict == "already"
    with pytest.raises(regraft.PlanError, match="layout"):
        rules.plan(back, to="newer")


def test_lossy_steps_backwards(tmp_path):
    rules = regraft.compile('rename "old" -> "new"\nrename "b" <-> "c"')
    source = manifest(tmp_path, dict.fromkeys(["new", "c"], ["F32", [4]]))
    with pytest.raises(regraft.PlanError, match="one-way rename") as raised:
        rules.plan(source, reverse=True)
    assert [found.code for found in raised.value.diagnostics if found.severity == "error"] == [
        "RG324"
    ]
    plan = rules.plan(source, reverse=True, allow_lossy=True)
    assert plan.keys() == ["b", "new"]
    assert [found.code for found in plan.findings] == ["RG320"]


def test_several_rules_in_order(tmp_path):
    first = regraft.compile('rename "layers.{l}.weight" <-> "blocks.{l}.weight"')
    (tmp_path / "second.graft").write_text('rename "blocks.{l}.weight" <-> "b.{l}"')
    plan = regraft.plan(manifest(tmp_path), rules=[first, str(tmp_path / "second.graft")])
    assert plan.keys() == ["b.0", "b.1", "b.2"]


def test_nonsense_is_an_exception_and_never_a_panic(tmp_path):
    rules = regraft.compile('rename "a" <-> "b"')
    for source in ({1: "x"}, {"a": "x", 2: "y"}):
        with pytest.raises(TypeError):
            rules.plan(source)
    with pytest.raises(TypeError):
        rules.plan(3)
    with pytest.raises(TypeError, match="rules, or a config"):
        regraft.apply({"a": None})
    with pytest.raises((TypeError, ValueError, UnicodeError)):
        rules.plan({"\ud800": None})
    with pytest.raises(regraft.RegraftError):
        regraft.compile("}" * 1000)
    with pytest.raises(regraft.RegraftError):
        regraft.compile("when (" * 10000)
    with pytest.raises(TypeError):
        rules.plan(manifest(tmp_path), config=[])
    with pytest.raises(ValueError):
        rules.plan(manifest(tmp_path), config={"deep": json.loads("[" * 200 + "]" * 200)})
    with pytest.raises(regraft.CheckpointError):
        regraft.open([])


def test_no_framework_is_needed(tmp_path):
    code = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
import regraft
plan = regraft.compile('rename "layers.{l}.weight" <-> "b.{l}"').plan(sys.argv[1])
assert plan.keys() == ["b.0", "b.1", "b.2"], plan.keys()
import regraft.checkpoint_utils as utils
assert utils._normalize_param_name("_orig_mod.a") == "a"
assert regraft.compile('rename "a" <-> "b"').apply({"a": None, "c": 1}) == {"b": None, "c": 1}
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(manifest(tmp_path))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_ninety_thousand_keys(tmp_path):
    keys = {
        f"model.layers.{l}.experts.{e}.{p}.weight": ["BF16", [4, 4]]
        for l in range(60)
        for e in range(500)
        for p in ("w1", "w2", "w3")
    }
    rules = regraft.compile(
        'rename "model.layers.{l}.experts.{e}.w{i}.weight" <-> "h.{l}.e.{e}.w{i}.weight"'
    )
    source = manifest(tmp_path, keys)
    start = time.perf_counter()
    plan = rules.plan(source)
    nodes = plan._inner.nodes()
    seconds = time.perf_counter() - start
    assert len(plan) == len(nodes) == 90_000
    # Far above what it takes when optimized (a fraction of a second): this is no benchmark, and
    # machines are shared.
    assert seconds < 20


def test_options_are_declared_once_and_shown_by_every_verb():
    assert set(_options.DEFAULTS) == set(_options.ConvertOptions.__annotations__)
    of_a_plan = {
        name: default
        for name, default in _options.DEFAULTS.items()
        if name in _options.Options.__annotations__
    }
    assert len(of_a_plan) == 11
    verbs = (
        regraft.plan,
        regraft.apply,
        regraft.convert,
        regraft.Rules.plan,
        regraft.Rules.apply,
        regraft.Checkpoint.plan,
        regraft.Checkpoint.apply,
    )
    for verb in verbs:
        shown = inspect.signature(verb).parameters
        assert {name: shown[name].default for name in of_a_plan} == of_a_plan, verb
        assert all(shown[name].kind is shown[name].KEYWORD_ONLY for name in of_a_plan)
        assert "options" not in shown
        with pytest.raises(TypeError, match="did you mean `target`"):
            verb(*[None] * 2, targett=None)
