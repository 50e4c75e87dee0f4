"""Base checkpoints into classes with a head and back, against transformers' own `from_pretrained`:
the same tensors under the same keys, bit for bit."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

import regraft  # noqa: E402
import regraft.torch as hooks  # noqa: E402

DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 40,
}
DISTIL = {
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 1,
    "n_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 40,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
}
BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 40,
}

FAMILIES = [
    ("Llama", DECODER, "ForCausalLM"),
    ("Qwen2", DECODER, "ForCausalLM"),
    ("Gemma2", dict(DECODER, head_dim=8), "ForCausalLM"),
    ("Mistral", DECODER, "ForCausalLM"),
    ("Bert", ENCODER, "ForMaskedLM"),
    ("Roberta", ENCODER, "ForSequenceClassification"),
    ("DistilBert", DISTIL, "ForMaskedLM"),
    ("Electra", dict(ENCODER, embedding_size=32), "ForTokenClassification"),
    ("ViT", VISION, "ForImageClassification"),
    (
        "GPT2",
        {"n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 64, "n_positions": 40},
        "LMHeadModel",
    ),
    ("Bart", BART, "ForSequenceClassification"),
]


def bits(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


@pytest.mark.parametrize("name, fields, head", FAMILIES, ids=[name for name, _, _ in FAMILIES])
@pytest.mark.parametrize("to_base", [True, False], ids=["to base", "to head"])
def test_as_from_pretrained(name, fields, head, to_base, tmp_path):
    torch.manual_seed(0)
    base = getattr(transformers, f"{name}Model")
    full = getattr(transformers, name + head)
    source, target = (full, base) if to_base else (base, full)
    config = getattr(transformers, f"{name}Config")(**fields)
    source(copy.deepcopy(config)).save_pretrained(tmp_path)
    loaded, info = target.from_pretrained(tmp_path, output_loading_info=True)
    theirs = loaded.state_dict()
    new = set(info["missing_keys"])
    # What is tied to something new, or is no tensor of the checkpoint, is new too.
    pointers = {theirs[key].data_ptr() for key in new if key in theirs}
    wanted = {
        key for key, value in theirs.items() if key not in new and value.data_ptr() not in pointers
    }
    with torch.device("meta"):
        empty = target(copy.deepcopy(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = regraft.open(tmp_path).apply(to="model", target=empty, strict=False)
    # from_pretrained ties after it loaded, by what the class declares.
    hooks.materialize_ties(made, empty)
    assert wanted and wanted <= set(made), sorted(wanted - set(made))
    for key in wanted:
        assert made[key].dtype == theirs[key].dtype and torch.equal(
            bits(made[key]), bits(theirs[key])
        ), key
    assert set(made) <= set(theirs)
