"""The checkpoint utilities over real modules: in reference mode against nemo-automodel itself, in
strict mode by what each is for."""

import itertools
import json
import random
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import reference  # noqa: E402
import regraft.checkpoint_utils as ours  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper  # noqa: E402

theirs = reference.load()
needs_nemo = pytest.mark.skipif(
    theirs is None, reason="nemo-automodel and transformers are not installed"
)


class Inner(nn.Module):
    def __init__(self, vocabulary, width, name="embed_tokens"):
        super().__init__()
        setattr(self, name, nn.Embedding(vocabulary, width))
        self.norm = nn.LayerNorm(width)


class Model(nn.Module):
    """A language model, or a stage of one."""

    def __init__(
        self,
        embedding=True,
        head=True,
        tied=False,
        names=True,
        config=True,
        head_rows=6,
        nested=False,
        dtype=None,
    ):
        super().__init__()
        self.model = Inner(6, 4) if embedding else nn.LayerNorm(4)
        if nested:
            self.model = nn.ModuleDict({"language_model": self.model})
        if head:
            self.lm_head = nn.Linear(4, head_rows, bias=False, dtype=dtype)
        self.config = SimpleNamespace(tie_word_embeddings=config, get_text_config=lambda: None)
        self._names = names
        if tied:
            self.lm_head.weight = self.embedding().weight

    def embedding(self):
        inner = (
            self.model["language_model"] if isinstance(self.model, nn.ModuleDict) else self.model
        )
        return inner.embed_tokens

    def get_input_embeddings(self):
        if not self._names:
            raise NotImplementedError
        return self.embedding()


def compiled(model):
    return torch.compile(model, backend="eager")


def checkpointed(model):
    model.model = checkpoint_wrapper(model.model)
    return model


def parallel(model):
    # Without a process group DDP itself can't be made; what it leaves in names can.
    outer = nn.Module()
    outer.module = model
    outer.config = model.config
    return outer


WRAPS = [
    lambda model: model,
    compiled,
    checkpointed,
    parallel,
    lambda model: compiled(checkpointed(model)),
]

MODELS = [
    {},
    {"tied": True},
    {"tied": True, "config": False},
    {"embedding": False},
    {"head": False},
    {"names": False},
    {"names": False, "tied": True},
    {"head_rows": 5},
    {"nested": True, "names": False},
    {"nested": True, "tied": True},
    {"config": None},
    {"config": "false"},
    {"dtype": torch.bfloat16},
]


def make(options, wrap):
    torch.manual_seed(0)
    return wrap(Model(**options))


def outcome(call):
    try:
        return "gives", call()
    except Exception as error:
        return "raises", type(error).__name__


def identity(found):
    """A found parameter as what it is and its name."""
    kind, value = found
    return (
        (kind, (id(value[0]) if value[0] is not None else None, value[1]))
        if kind == "gives"
        else found
    )


@needs_nemo
@pytest.mark.parametrize("wrap", range(len(WRAPS)))
@pytest.mark.parametrize("options", range(len(MODELS)))
def test_reference_mode_is_the_reference_on_modules(options, wrap):
    utils, tied, _ = theirs
    model = make(MODELS[options], WRAPS[wrap])
    with ours.compat_mode("reference"):
        for name in ("get_lm_head_weight_and_name", "get_input_embeddings_weight_and_name"):
            assert identity(outcome(lambda: getattr(ours, name)(model))) == identity(
                outcome(lambda: getattr(tied, name)(model))
            ), name
        for name in ("is_tied_word_embeddings", "has_local_tied_lm_head"):
            assert outcome(lambda: getattr(ours, name)(model)) == outcome(
                lambda: getattr(tied, name)(model)
            ), name
        for head in (None, "lm_head.weight", "other"):
            assert ours.get_tied_lm_head_source_names(
                model, head
            ) == utils.get_tied_lm_head_source_names(model, head)
        for module in ("", "lm_head", "model", "model.embed_tokens", "gone"):
            assert ours._get_module_by_normalized_name(
                model, module
            ) is tied._get_module_by_normalized_name(model, module)
        # What changes something: on two models alike.
        mine, other = (make(MODELS[options], WRAPS[wrap]) for _ in range(2))
        assert outcome(lambda: ours.ensure_tied_lm_head(mine)) == outcome(
            lambda: tied.ensure_tied_lm_head(other)
        )
        shared = [
            [
                [i for i, (_, q) in enumerate(m.named_parameters(remove_duplicate=False)) if q is p]
                for _, p in m.named_parameters(remove_duplicate=False)
            ]
            for m in (mine, other)
        ]
        assert shared[0] == shared[1]


@needs_nemo
@pytest.mark.parametrize("seed", range(20))
def test_reference_mode_materializes_what_the_reference_does(seed):
    utils, _, _ = theirs
    chosen = random.Random(seed)
    model = make(chosen.choice(MODELS), chosen.choice(WRAPS))
    keys = [
        "model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
        "embed_tokens.weight",
        "lm_head.weight",
        "other",
    ]
    values = [
        lambda: torch.randn(6, 4),
        lambda: torch.randn(3, 4),
        lambda: torch.randn(6, 4).bfloat16(),
        lambda: None,
        lambda: 3,
    ]
    given = {
        key: chosen.choice(values)() for key in chosen.sample(keys, chosen.randrange(len(keys)))
    }
    fallback = chosen.random() < 0.5
    mine, other = dict(given), dict(given)
    assert ours.materialize_missing_tied_lm_head(
        mine, model, allow_current_lm_head_fallback=fallback, compat="reference"
    ) == utils.materialize_missing_tied_lm_head(
        other, model, allow_current_lm_head_fallback=fallback
    )
    assert list(mine) == list(other)
    for key in mine:
        if isinstance(mine[key], torch.Tensor):
            assert (
                mine[key].data_ptr() == other[key].data_ptr()
                and mine[key].requires_grad == other[key].requires_grad
            )
        else:
            assert mine[key] is other[key]


@needs_nemo
def test_reference_mode_on_names_sizes_and_the_like(monkeypatch, tmp_path):
    utils, tied, names = theirs
    parts = [
        "_orig_mod",
        "_checkpoint_wrapped_module",
        "_fsdp_wrapped_module",
        "my_orig_mod",
        "model",
        "weight",
        "",
        "é",
    ]
    chosen = random.Random(7)
    for _ in range(300):
        name = ".".join(chosen.choice(parts) for _ in range(chosen.randrange(1, 6)))
        assert ours._normalize_param_name(name, compat="reference") == tied._normalize_param_name(
            name
        )
        assert ours.canonical_parameter_fqn(
            name, compat="reference"
        ) == names.canonical_parameter_fqn(name)
    for number in (0, 1, 2**30, 10**12, -5, True, 1.5, 2**200):
        for function in ("format_bytes", "format_output_file_count"):
            mine, other = (
                outcome(lambda: getattr(module, function)(number, **options))
                for module, options in ((ours, {"compat": "reference"}), (utils, {}))
            )
            assert mine == other, (function, number)
    for name in (
        None,
        "",
        "nvidia/x",
        "nvidia/",
        "meta/x",
        str(tmp_path),
        tmp_path,
        3,
        b"nvidia/x",
        [1],
    ):
        mine = outcome(lambda: ours.resolve_trust_remote_code(name, compat="reference"))
        assert mine == outcome(lambda: utils.resolve_trust_remote_code(name)), name
    for rank in ("0", "3", " 3 ", "1_0", "-1", "x", None):
        for variable, function in (
            ("RANK", "get_rank_safe"),
            ("WORLD_SIZE", "get_world_size_safe"),
            ("RANK", "is_rank_0"),
        ):
            monkeypatch.delenv(variable, raising=False)
            if rank is not None:
                monkeypatch.setenv(variable, rank)
            assert outcome(lambda: getattr(ours, function)(compat="reference")) == outcome(
                getattr(utils, function)
            ), (function, rank)
    for text in (
        '{"metadata": {"total_size": 5}}',
        '{"metadata": null}',
        "[]",
        "{}",
        "no json",
        '{"metadata": {"total_size": true}}',
    ):
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(text)
        for given in (None, str(path), str(tmp_path), str(tmp_path / "gone")):
            mine = outcome(lambda: ours.get_safetensors_index_total_size(given, compat="reference"))
            assert mine == outcome(lambda: utils.get_safetensors_index_total_size(given)), text


@needs_nemo
def test_reference_mode_on_configs():
    transformers = pytest.importorskip("transformers")
    _, tied, _ = theirs
    small = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 8,
    }
    configs = [
        transformers.LlamaConfig(**small),
        transformers.LlamaConfig(**small, tie_word_embeddings=True),
        transformers.T5Config(),
        transformers.LlavaConfig(
            text_config=transformers.LlamaConfig(**small, tie_word_embeddings=True)
        ),
        transformers.Gemma3Config(),
    ]
    flags = [True, False, None, 0, 1, "", "false", 2.5]
    for flag, sub in itertools.product(["none", *flags], repeat=2):
        config = SimpleNamespace(**({} if flag == "none" else {"tie_word_embeddings": flag}))
        inner = SimpleNamespace(**({} if sub == "none" else {"tie_word_embeddings": sub}))
        configs += [
            config,
            SimpleNamespace(**vars(config), thinker_config=inner),
            SimpleNamespace(**vars(config), get_text_config=lambda inner=inner: inner),
        ]
    for config in configs:
        assert ours.get_controlling_tie_word_embeddings(
            config, compat="reference"
        ) == tied.get_controlling_tie_word_embeddings(config), config


@needs_nemo
def test_reference_mode_on_storages_and_dtypes(tmp_path):
    from safetensors.torch import save_file

    utils, tied, _ = theirs
    x = torch.randn(4, 4)
    tensors = [
        x,
        x[:],
        x[1:],
        x.T,
        x[0],
        x.clone(),
        x.detach(),
        x.view(torch.int32),
        torch.empty(0),
        torch.empty(0),
        x.to("meta"),
        x.to("meta"),
    ]
    tensors += [x.to_sparse(), nn.Parameter(x)]
    for left, right in itertools.product(tensors, repeat=2):
        assert ours._same_tensor_storage(
            left, right, compat="reference"
        ) == tied._same_tensor_storage(left, right)
    dicts = [
        {},
        {"a": x},
        {"a": x, "b": x.bfloat16()},
        {"a": None},
        {"a": x.to("meta")},
        {"a": 3, "b": x},
        {"a": torch.empty(0)},
    ]
    for given in dicts:
        assert ours.estimate_state_dict_bytes(
            given, compat="reference"
        ) == utils.estimate_state_dict_bytes(given)
    save_file(
        {"a": x, "b": x.bfloat16(), "c": x.to(torch.int8)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = SimpleNamespace()
    assert ours._get_checkpoint_tensor_dtypes(
        str(tmp_path), config, compat="reference"
    ) == utils._get_checkpoint_tensor_dtypes(str(tmp_path), config)
    kwargs = {"state_dict": {"a": x, "b": None}}
    assert (
        ours._get_checkpoint_tensor_dtypes("", config, kwargs)
        == utils._get_checkpoint_tensor_dtypes("", config, kwargs)
        == {"a": torch.float32}
    )
    assert ours._get_checkpoint_tensor_dtypes("", config, {"gguf_file": "x"}) == {}
    with pytest.raises(OSError):
        ours._get_checkpoint_tensor_dtypes(str(tmp_path / "gone"), config)


@pytest.mark.parametrize("wrap", WRAPS)
def test_strict_ties_through_wrappers(wrap):
    model = wrap(Model(names=False))
    assert ours.is_tied_word_embeddings(model) and not ours.has_local_tied_lm_head(model)
    if wrap is not parallel:
        _, name = ours.get_lm_head_weight_and_name(model)
        assert name == "lm_head.weight"
    assert ours.ensure_tied_lm_head(model)
    assert ours.has_local_tied_lm_head(model)
    head, _ = ours.get_lm_head_weight_and_name(model)
    embedding, _ = ours.get_input_embeddings_weight_and_name(model)
    assert head is embedding


def test_strict_keeps_a_head_of_its_own_kind():
    for options in ({"head_rows": 5}, {"dtype": torch.bfloat16}):
        model = Model(**options)
        head = model.lm_head.weight
        assert not ours.ensure_tied_lm_head(model)
        assert model.lm_head.weight is head


def test_a_models_own_way_comes_first_and_its_errors_pass():
    class Own(Model):
        called = 0

        def tie_weights(self):
            self.called += 1
            self.lm_head.weight = self.model.embed_tokens.weight

    model = Own()
    assert ours.ensure_tied_lm_head(model) and model.called == 1

    class Broken(Model):
        def tie_weights(self):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ours.ensure_tied_lm_head(Broken())

    class Lost(Model):
        def tie_weights(self):
            raise AttributeError("lost")

    assert ours.ensure_tied_lm_head(Lost())


def test_a_stage_gets_its_head_from_an_embedding_that_it_does_not_have():
    stage = Model(embedding=False)
    embedding = torch.randn(6, 4)
    given = {"model.embed_tokens.weight": embedding}
    assert ours.materialize_missing_tied_lm_head(given, stage)
    assert given["lm_head.weight"].data_ptr() == embedding.data_ptr()
    wrong = {"model.embed_tokens.weight": torch.randn(7, 4)}
    assert not ours.materialize_missing_tied_lm_head(wrong, stage)
    assert ours.materialize_missing_tied_lm_head(wrong, stage, allow_current_lm_head_fallback=True)
    assert wrong["lm_head.weight"].data_ptr() == stage.lm_head.weight.data_ptr()


def test_strict_is_stricter():
    assert (
        ours._normalize_param_name("layers.0.my_orig_mod.weight") == "layers.0.my_orig_mod.weight"
    )
    assert (
        ours._normalize_param_name("layers.0.my_orig_mod.weight", compat="reference")
        == "layers.0.myweight"
    )
    with pytest.raises(TypeError):
        ours.format_bytes(-1)
    assert ours.format_bytes(3 << 30) == "3.0 GiB"
    assert not ours.resolve_trust_remote_code("nvidia/../x") and ours.resolve_trust_remote_code(
        "nvidia/x"
    )
    assert ours.resolve_trust_remote_code("acme/x", patterns=["acme/*"])
    x = torch.zeros(4, 4)
    assert not ours._same_tensor_storage(x, x[0]) and ours._same_tensor_storage(
        x, x[0], compat="reference"
    )
    with pytest.raises(ValueError):
        ours.set_compat("lenient")
    for flag, strict, lenient in (("false", False, True), (1, False, True), (True, True, True)):
        config = SimpleNamespace(tie_word_embeddings=flag)
        assert ours.get_controlling_tie_word_embeddings(config) is strict
        assert ours.get_controlling_tie_word_embeddings(config, compat="reference") is lenient


def test_a_prefix_goes_from_every_key_or_none():
    given = {"module.a": 1, "module.b": 2}
    ours.consume_prefix_in_state_dict_if_present(given, "module.")
    assert given == {"a": 1, "b": 2}
    mixed = {"module.a": 1, "b": 2}
    ours.consume_prefix_in_state_dict_if_present(mixed, "module.")
    assert mixed == {"module.a": 1, "b": 2}
    ours.consume_prefix_in_state_dict_if_present(mixed, "module.", compat="reference")
    assert mixed == {"b": 2, "a": 1} and list(mixed) == ["b", "a"]
    wrapped = nn.Module()
    wrapped.module = nn.Linear(2, 2)
    state_dict = wrapped.state_dict()
    ours.consume_prefix_in_state_dict_if_present(state_dict, "module.")
    nn.Linear(2, 2).load_state_dict(state_dict)


def test_index_sizes(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 5}})
    )
    assert ours.get_safetensors_index_total_size(tmp_path) == 5
    assert ours.get_safetensors_index_total_size(None) is None


def test_every_name_that_is_offered_is_there():
    assert all(callable(getattr(ours, name)) for name in ours.__all__)
