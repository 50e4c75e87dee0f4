"""What small packages publish under names of their own: mamba_ssm, fair-esm, Descript's codec and
sentence-transformers."""

import os
import sys
import tempfile
from types import SimpleNamespace
from unittest import mock

import torch
from safetensors.torch import load_file

from . import empty, family
from .converters import script


def saved(model):
    """What transformers writes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(os.path.join(folder, "model.safetensors"))


def mamba(mixer):
    """A model of mamba_ssm's by the shapes in a layer's mixer."""
    shapes = {"backbone.embedding.weight": [6, 8], "backbone.norm_f.weight": [8]}
    shapes["lm_head.weight"] = [6, 8]
    for i in range(2):
        shapes[f"backbone.layers.{i}.norm.weight"] = [8]
        shapes.update({f"backbone.layers.{i}.mixer.{x}": shape for x, shape in mixer.items()})
    return empty(shapes)


SIZES = {"hidden_size": 8, "state_size": 4, "num_hidden_layers": 2, "vocab_size": 6, "expand": 2}


@family("mamba_ssm", layout="mamba_ssm", config={"d_model": 8, "tie_embeddings": True})
class Mamba:
    """Its head is its embedding."""

    @staticmethod
    def source():
        return mamba(
            {
                "A_log": [16, 4], "D": [16], "in_proj.weight": [32, 8], "x_proj.weight": [9, 16],
                "conv1d.weight": [16, 1, 4], "conv1d.bias": [16], "out_proj.weight": [8, 16],
                "dt_proj.weight": [16, 1], "dt_proj.bias": [16],
            }
        )  # fmt: skip

    @staticmethod
    def settle(source):
        return {**source, "lm_head.weight": source["backbone.embedding.weight"].clone()}

    @staticmethod
    def convert(source):
        from transformers import MambaConfig, MambaForCausalLM

        model = MambaForCausalLM(MambaConfig(**SIZES, tie_word_embeddings=True))
        model.load_state_dict(source)
        return saved(model)


@family(
    "mamba_ssm_2",
    layout="mamba_ssm",
    rules="mamba_ssm",
    config={"model_type": "mamba2", "tie_word_embeddings": False},
)
class Mamba2:
    @staticmethod
    def source():
        return mamba(
            {
                "A_log": [4], "D": [4], "dt_bias": [4], "in_proj.weight": [44, 8],
                "conv1d.weight": [24, 1, 4], "conv1d.bias": [24], "norm.weight": [16],
                "out_proj.weight": [8, 16],
            }
        )  # fmt: skip

    @staticmethod
    def convert(source):
        from transformers import Mamba2Config, Mamba2ForCausalLM

        config = Mamba2Config(
            **SIZES, num_heads=4, head_dim=4, n_groups=1, tie_word_embeddings=False
        )
        model = Mamba2ForCausalLM(config)
        model.load_state_dict(source)
        return saved(model)


@family("mamba_ssm_codestral", layout="mamba_ssm", exact=False, rules="mamba_ssm")
class Codestral:
    @staticmethod
    def source():
        return {f"model.{key}": tensor for key, tensor in Mamba2.source().items()}

    @staticmethod
    def convert(source):
        # As the script's loader of Codestral's file has it.
        return Mamba2.convert({key.removeprefix("model."): source[key] for key in source})


class Copied(Exception):
    """The script is done with copying."""


def convert_esm(made, alphabet, source):
    """With transformers 4.57, whose rotary embedding has its table in each layer."""
    made.load_state_dict(source)
    names, models = script("esm"), []

    def masked(config):
        from transformers import EsmForMaskedLM

        models.append(EsmForMaskedLM(config))
        return models[0]

    def transfer(module, onto):
        onto.load_state_dict(module.state_dict())
        raise Copied

    names.MODEL_MAPPING["tiny"] = lambda: (made, alphabet)
    names.EsmForMaskedLM, names.transfer_and_check_weights = masked, transfer
    try:
        names.convert_esm_checkpoint_to_pytorch("tiny", None, False, None, None)
    except Copied:
        return saved(models[0])
    raise AssertionError("the script copies nothing")


def esm2():
    from esm.model.esm2 import ESM2

    made = ESM2(num_layers=2, embed_dim=8, attention_heads=2, alphabet="ESM-1b")
    return made, made.alphabet


def esm1b():
    from esm.data import Alphabet
    from esm.model.esm1 import ProteinBertModel

    args = SimpleNamespace(
        arch="roberta_large", layers=2, embed_dim=8, ffn_embed_dim=16, attention_heads=2,
        max_positions=6, token_dropout=True, emb_layer_norm_before=True,
    )  # fmt: skip
    alphabet = Alphabet.from_architecture("ESM-1b")
    return ProteinBertModel(args, alphabet), alphabet


def esm_family(name, model):
    """One of the two kinds. The head's weight is the embedding."""

    @family(name, layout="fair", rules="esm_fair")
    class Esm:
        @staticmethod
        def source():
            return model()[0].state_dict()

        @staticmethod
        def settle(source):
            return {**source, "lm_head.weight": source["embed_tokens.weight"].clone()}

        @staticmethod
        def convert(source):
            return convert_esm(*model(), source)

    return Esm


esm_family("esm_fair", esm2)
esm_family("esm_fair_1b", esm1b)


class Base(torch.nn.Module):
    """What Descript's models ask of audiotools' BaseModel."""

    INTERN: list[str] = []
    EXTERN: list[str] = []


DAC = {
    "encoder_dim": 1,
    "encoder_rates": [2, 2, 2, 2],
    "decoder_dim": 16,
    "decoder_rates": [2, 2, 2, 2],
    "n_codebooks": 2,
    "codebook_size": 4,
    "codebook_dim": 2,
    "quantizer_dropout": False,
}


@family("dac_descript", layout="descript", exact=False)
class Dac:
    @staticmethod
    def source():
        audiotools = mock.MagicMock()
        audiotools.ml.BaseModel = Base
        stand_ins = {"audiotools": audiotools, "audiotools.ml": audiotools.ml}
        stand_ins["argbind"] = mock.MagicMock()
        with mock.patch.dict(sys.modules, stand_ins):
            from dac.model.dac import DAC as Model

            return Model(**DAC).state_dict()

    @staticmethod
    def convert(source):
        from transformers import DacConfig

        names = script("dac")
        config = DacConfig(
            encoder_hidden_size=1, downsampling_ratios=DAC["encoder_rates"],
            decoder_hidden_size=16, upsampling_ratios=DAC["decoder_rates"],
            n_codebooks=2, codebook_size=4, codebook_dim=2,
        )  # fmt: skip
        names.DacConfig = lambda: config
        file = {"metadata": {"kwargs": DAC}, "state_dict": source}
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch("torch.load", lambda *_, **__: file),
        ):
            names.convert_checkpoint("dac_44khz", None, folder)
            return load_file(os.path.join(folder, "model.safetensors"))


def sentences():
    """A tiny BERT, the mean of its tokens, and a layer behind it."""
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizer

    with tempfile.TemporaryDirectory() as folder:
        words = os.path.join(folder, "vocab.txt")
        with open(words, "w") as f:
            f.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
        config = BertConfig(
            vocab_size=5, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=8, max_position_embeddings=5,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
        BertTokenizer(words).save_pretrained(folder)
        transformer = models.Transformer(folder)
    return SentenceTransformer(modules=[transformer, models.Pooling(4), models.Dense(4, 3)])


@family("sentence_transformers", layout="sentence_transformers", told=False)
class Sentences:
    @staticmethod
    def source():
        return sentences().state_dict()

    @staticmethod
    def convert(source):
        made = sentences()
        made.load_state_dict(source)
        transformer, _, dense = made
        out = getattr(transformer, "model", None) or transformer.auto_model
        return {**out.state_dict(), **{f"2.{key}": v for key, v in dense.state_dict().items()}}
