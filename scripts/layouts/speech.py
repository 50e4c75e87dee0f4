"""Speech: fairseq's wav2vec 2.0 and HuBERT."""

from typing import ClassVar
from unittest import mock

from torch.nn import Parameter
from torch.nn.utils import remove_weight_norm, weight_norm

from . import empty, family, with_bias
from .converters import script

WIDTH = 4


def body(norm, layers=2, convs=2):
    """The keys of fairseq's Wav2Vec2Model; `norm` is "group" or "layer"."""
    shapes = {"mask_emb": [WIDTH]}
    for i in range(convs):
        shapes[f"feature_extractor.conv_layers.{i}.0.weight"] = [3, 1 if i == 0 else 3, 2]
        if norm == "layer":
            shapes[f"feature_extractor.conv_layers.{i}.0.bias"] = [3]
        if norm == "layer" or i == 0:
            place = "2.1" if norm == "layer" else "2"
            shapes[f"feature_extractor.conv_layers.{i}.{place}.weight"] = [3]
            shapes[f"feature_extractor.conv_layers.{i}.{place}.bias"] = [3]
    linear = {"post_extract_proj": [WIDTH, 3]}
    norms = {"layer_norm": 3, "encoder.layer_norm": WIDTH}
    for i in range(layers):
        for x in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear[f"encoder.layers.{i}.self_attn.{x}"] = [WIDTH, WIDTH]
        linear[f"encoder.layers.{i}.fc1"] = [6, WIDTH]
        linear[f"encoder.layers.{i}.fc2"] = [WIDTH, 6]
        for x in ("self_attn_layer_norm", "final_layer_norm"):
            norms[f"encoder.layers.{i}.{x}"] = WIDTH
    shapes["encoder.pos_conv.0.bias"] = [WIDTH]
    shapes["encoder.pos_conv.0.weight_g"] = [1, 1, 4]
    shapes["encoder.pos_conv.0.weight_v"] = [WIDTH, 2, 4]
    return {**shapes, **with_bias(linear), **with_bias({k: [n] for k, n in norms.items()})}


def config(cls, norm):
    return cls(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=6,
        conv_dim=[3, 3],
        conv_kernel=[2, 2],
        conv_stride=[2, 2],
        feat_extract_norm=norm,
        conv_bias=norm == "layer",
        do_stable_layer_norm=norm == "layer",
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        num_codevectors_per_group=2,
        codevector_dim=4,
        proj_codevector_dim=4,
        vocab_size=5,
    )


def wav2vec2(source, norm, finetuned):
    import transformers

    cls = transformers.Wav2Vec2ForCTC if finetuned else transformers.Wav2Vec2ForPreTraining
    model = cls(config(transformers.Wav2Vec2Config, norm))
    names = script("wav2vec2", "convert_wav2vec2_original_pytorch*")
    checkpoint = mock.Mock(state_dict=lambda: source)
    names.recursively_load_weights(checkpoint, model, not finetuned)
    return dict(model.state_dict())


PRETRAINING = with_bias(
    {"quantizer.weight_proj": [4, 3], "project_q": [4, 4], "final_proj": [4, WIDTH]}
)


@family("wav2vec2_fairseq", layout="fairseq")
class Wav2Vec2:
    @staticmethod
    def source():
        return empty({**body("group"), **PRETRAINING, "quantizer.vars": [1, 4, 2]})

    @staticmethod
    def convert(source):
        return wav2vec2(source, "group", False)


@family("wav2vec2_fairseq_ctc", layout="fairseq", rules="wav2vec2_fairseq")
class Wav2Vec2Ctc:
    @staticmethod
    def source():
        inner = {f"w2v_encoder.w2v_model.{key}": shape for key, shape in body("layer").items()}
        return empty({**inner, **with_bias({"w2v_encoder.proj": [5, WIDTH]})})

    @staticmethod
    def convert(source):
        return wav2vec2(source, "layer", True)


def today(out):
    """The names that PyTorch gives weight norm today, which transformers reads and writes."""
    names = {"weight_g": "parametrizations.weight.original0"}
    names["weight_v"] = "parametrizations.weight.original1"
    for key in list(out):
        start, _, leaf = key.rpartition(".")
        if leaf in names:
            out[f"{start}.{names[leaf]}"] = out.pop(key)
    return out


def as_then():
    """Weight norm as it was when the scripts were written."""
    from torch import nn

    return mock.patch.object(nn.utils.parametrizations, "weight_norm", nn.utils.weight_norm)


def hubert(source, norm, finetuned):
    import transformers

    cls = transformers.HubertForCTC if finetuned else transformers.HubertModel

    def plain(text):
        # Since it knows models with a batch norm there, it can't do those without one.
        return text.replace("pos_conv_embed.batch_norm", "pos_conv_embed.conv")

    names = script("hubert", "convert_hubert_original_pytorch*", change=plain)
    with as_then():
        model = cls(config(transformers.HubertConfig, norm))
    names.recursively_load_weights(mock.Mock(state_dict=lambda: source), model, finetuned)
    return today(dict(model.state_dict()))


@family("hubert_fairseq", layout="fairseq", exact=False)
class Hubert:
    @staticmethod
    def source():
        heads = with_bias({"final_proj": [4, WIDTH]})
        return empty({**body("group"), **heads, "label_embs_concat": [5, 4]})

    @staticmethod
    def convert(source):
        return hubert(source, "group", False)


@family("hubert_fairseq_ctc", layout="fairseq", exact=False, rules="hubert_fairseq")
class HubertCtc:
    @staticmethod
    def source():
        inner = {f"w2v_encoder.w2v_model.{key}": shape for key, shape in body("layer").items()}
        inner["w2v_encoder.w2v_model.label_embs_concat"] = [5, 4]
        return empty({**inner, **with_bias({"w2v_encoder.proj": [5, WIDTH]})})

    @staticmethod
    def convert(source):
        return hubert(source, "layer", True)


def encodec_model(norm):
    import transformers

    with as_then():
        return transformers.EncodecModel(
            transformers.EncodecConfig(
                num_filters=2,
                hidden_size=16,
                codebook_size=2,
                codebook_dim=16,
                norm_type=norm,
                target_bandwidths=[1.5],
                upsampling_ratios=[2, 2, 2, 2],
                kernel_size=2,
                residual_kernel_size=2,
                last_kernel_size=2,
                num_lstm_layers=1,
            )
        )


def encodec_source(norm):
    """The keys of Meta's code: a module of its own around each convolution."""
    shapes = {}
    for key, tensor in encodec_model(norm).state_dict().items():
        side, *rest = key.split(".")
        if side == "quantizer":
            key = key.replace("quantizer.layers", "quantizer.vq.layers").replace(
                ".codebook.", "._codebook."
            )
        elif "lstm" in key:
            key = key.replace(".layers.", ".model.")
        else:
            up = side == "decoder" and rest[1] in ("3", "6", "9", "12")
            conv = "convtr" if up else "conv"
            key = key.replace(".layers.", ".model.")
            key = key.replace(".conv.", f".{conv}.{conv}.").replace(".norm.", f".{conv}.norm.")
        shapes[key] = tensor
    return shapes


def encodec(source, norm, name):
    model = encodec_model(norm)
    script("encodec").recursively_load_weights(source, model, name)
    return today(dict(model.state_dict()))


@family("encodec_meta", layout="meta")
class Encodec:
    @staticmethod
    def source():
        return encodec_source("weight_norm")

    @staticmethod
    def convert(source):
        return encodec(source, "weight_norm", "encodec_24khz")


@family("encodec_meta_48khz", layout="meta", rules="encodec_meta")
class Encodec48:
    @staticmethod
    def source():
        return encodec_source("time_group_norm")

    @staticmethod
    def convert(source):
        return encodec(source, "time_group_norm", "encodec_48khz")


@family("hifigan_parallelwavegan", layout="parallelwavegan", exact=False)
class HifiGan:
    SIZES: ClassVar[dict[str, object]] = {
        "upsample_rates": [2, 2],
        "upsample_kernel_sizes": [4, 4],
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 3], [1, 3]],
        "model_in_dim": 4,
        "upsample_initial_channel": 8,
    }

    @staticmethod
    def source():
        names = {"conv_pre": "input_conv", "conv_post": "output_conv.1"}
        shapes = {}
        for key, tensor in HifiGan.model().state_dict().items():
            *path, leaf = key.split(".")
            if leaf in ("mean", "scale"):
                continue
            if path[0] == "upsampler":
                path = ["upsamples", path[1], "1"]
            elif path[0] == "resblocks":
                path = ["blocks", *path[1:], "1"]
            name = names.get(path[0], ".".join(path))
            if leaf == "weight":
                shapes[f"{name}.weight_g"] = [tensor.shape[0], 1, 1]
                shapes[f"{name}.weight_v"] = list(tensor.shape)
            else:
                shapes[f"{name}.{leaf}"] = list(tensor.shape)
        return empty(shapes)

    @staticmethod
    def model():
        import transformers

        return transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**HifiGan.SIZES))

    @staticmethod
    def convert(source):
        model = HifiGan.model()
        convs = [it for it in model.modules() if isinstance(getattr(it, "bias", None), Parameter)]
        # As the model did it when the script was written: with weight_g and weight_v.
        model.apply_weight_norm = lambda: [weight_norm(conv) for conv in convs]
        model.remove_weight_norm = lambda: [remove_weight_norm(conv) for conv in convs]
        script("speecht5", "convert_hifigan").load_weights(source, model, model.config)
        made = model.state_dict()
        return {key: made[key] for key in made if key not in ("mean", "scale")}
