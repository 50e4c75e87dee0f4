"""Models of images and text: InternVL, Llama 3.2 vision, open_clip, OWL-ViT."""

import json
from unittest import mock

import torch

from . import empty, family, with_bias
from .converters import script


def internvl_vision(layers=2, width=4):
    prefix = "vision_model.encoder.layers"
    shapes = {
        "vision_model.embeddings.class_embedding": [1, 1, width],
        "vision_model.embeddings.position_embedding": [1, 5, width],
        "vision_model.embeddings.patch_embedding.weight": [width, 3, 2, 2],
        "vision_model.embeddings.patch_embedding.bias": [width],
    }
    for i in range(layers):
        shapes[f"{prefix}.{i}.ls1"] = shapes[f"{prefix}.{i}.ls2"] = [width]
        shapes.update(
            with_bias(
                {
                    f"{prefix}.{i}.attn.qkv": [3 * width, width],
                    f"{prefix}.{i}.attn.proj": [width, width],
                    f"{prefix}.{i}.mlp.fc1": [6, width],
                    f"{prefix}.{i}.mlp.fc2": [width, 6],
                    f"{prefix}.{i}.norm1": [width],
                    f"{prefix}.{i}.norm2": [width],
                }
            )
        )
    shapes.update(with_bias({"mlp1.0": [8], "mlp1.1": [4, 8], "mlp1.3": [4, 4]}))
    return shapes


INTERNVL = {
    "text_config": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "vision_config": {"hidden_size": 4},
}
HEAD, WIDE = 2, 8


def internlm2(layers=2):
    model = "language_model.model"
    shapes = {f"{model}.tok_embeddings.weight": [7, WIDE], f"{model}.norm.weight": [WIDE]}
    for i in range(layers):
        shapes[f"{model}.layers.{i}.attention.wqkv.weight"] = [(4 + 2 * 2) * HEAD, WIDE]
        shapes[f"{model}.layers.{i}.attention.wo.weight"] = [WIDE, 4 * HEAD]
        for w, shape in {"w1": [6, WIDE], "w2": [WIDE, 6], "w3": [6, WIDE]}.items():
            shapes[f"{model}.layers.{i}.feed_forward.{w}.weight"] = shape
        for norm in ("attention_norm", "ffn_norm"):
            shapes[f"{model}.layers.{i}.{norm}.weight"] = [WIDE]
    shapes["language_model.output.weight"] = [7, WIDE]
    return shapes


def qwen2(layers=2):
    model = "language_model.model"
    shapes = {f"{model}.embed_tokens.weight": [7, WIDE], f"{model}.norm.weight": [WIDE]}
    for i in range(layers):
        shapes.update(
            with_bias(
                {
                    f"{model}.layers.{i}.self_attn.q_proj": [8, WIDE],
                    f"{model}.layers.{i}.self_attn.k_proj": [4, WIDE],
                    f"{model}.layers.{i}.self_attn.v_proj": [4, WIDE],
                }
            )
        )
        shapes[f"{model}.layers.{i}.self_attn.o_proj.weight"] = [WIDE, 8]
        for w, shape in {"gate": [6, WIDE], "down": [WIDE, 6], "up": [6, WIDE]}.items():
            shapes[f"{model}.layers.{i}.mlp.{w}_proj.weight"] = shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{model}.layers.{i}.{norm}.weight"] = [WIDE]
    shapes["language_model.lm_head.weight"] = [7, WIDE]
    return shapes


def internvl(source, path):
    """What the script's `write_model` hands to the model that it loads."""
    names = script("internvl")
    config = mock.MagicMock()
    config.text_config.hidden_size = WIDE
    config.text_config.num_attention_heads = 4
    config.text_config.num_key_value_heads = 2
    config.text_config.head_dim = HEAD
    config.vision_config.hidden_size = 4
    taken = {}
    names.get_internvl_config = lambda _: config
    names.load_original_state_dict = lambda _: source
    model = mock.MagicMock()
    model.load_state_dict = lambda tensors, strict: taken.update(tensors) or ([], [])
    names.InternVLForConditionalGeneration = mock.MagicMock(return_value=model)
    for name in ("GotOcr2ImageProcessorFast", "InternVLVideoProcessor", "AutoTokenizer"):
        setattr(names, name, mock.MagicMock())
    names.InternVLProcessor = names.GenerationConfig = mock.MagicMock()
    names.os = mock.MagicMock(path=mock.MagicMock(sep="/"))
    names.write_model("nowhere", path)
    return taken


@family("internvl_chat", layout="chat", config=INTERNVL)
class InternVL:
    @staticmethod
    def source():
        return empty({**internvl_vision(), **internlm2()})

    @staticmethod
    def convert(source):
        return internvl(source, "OpenGVLab/InternVL2_5-2B-MPO")


@family("internvl_chat_qwen2", layout="chat", config=INTERNVL, rules="internvl_chat")
class InternVLQwen2:
    @staticmethod
    def source():
        return empty({**internvl_vision(), **qwen2()})

    @staticmethod
    def convert(source):
        return internvl(source, "OpenGVLab/InternVL3-1B")


MLLAMA = {
    "text_config": {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "cross_attention_layers": [1, 4],
    },
    "vision_config": {"max_num_tiles": 4, "patch_size": 2, "num_channels": 3},
}
PARAMS = {
    "vocab_size": 9,
    "n_layers": 4,
    "dim": 8,
    "n_heads": 2,
    "n_kv_heads": 1,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "multiple_of": 4,
    "vision_num_cross_attention_layers": 2,
    "vision_chunk_size": 4,
    "vision_max_num_chunks": 4,
}


def mllama_text():
    shapes = {
        "text_model.tok_embeddings.weight": [9, 8],
        "text_model.learnable_embedding.weight": [2, 8],
        "text_model.norm.weight": [8],
        "text_model.output.weight": [9, 8],
        "text_model.rope.freqs": [1],
    }
    layers = [("layers", i) for i in range(4)] + [("cross_attention_layers", i) for i in range(2)]
    for kind, i in layers:
        layer = f"text_model.{kind}.{i}"
        for x, shape in {"wq": [8, 8], "wk": [4, 8], "wv": [4, 8], "wo": [8, 8]}.items():
            shapes[f"{layer}.attention.{x}.weight"] = shape
        for w, shape in {"w1": [6, 8], "w2": [8, 6], "w3": [6, 8]}.items():
            shapes[f"{layer}.feed_forward.{w}.weight"] = shape
        for norm in ("attention_norm", "ffn_norm"):
            shapes[f"{layer}.{norm}.weight"] = [8]
        if kind != "layers":
            shapes[f"{layer}.gate_attn"] = shapes[f"{layer}.gate_ffwd"] = [1]
            for x in ("q", "k"):
                shapes[f"{layer}.attention.{x}_norm.weight"] = [2]
    return shapes


def mllama_vision(width=4):
    top = "vision_model.vision_encoder"
    shapes = {
        f"{top}.conv1._linear.weight": [width, 3 * 2 * 2],
        f"{top}.class_embedding": [width],
        f"{top}.positional_embedding": [5, width],
        f"{top}.gated_positional_embedding": [4, 4, 5, width],
        f"{top}.gated_positional_embedding_gate": [1],
    }
    for place in ("pre", "post"):
        shapes[f"{top}.{place}_tile_pos_embed.embedding"] = [4, 4, 1, width]
        shapes[f"{top}.{place}_tile_pos_embed.gate"] = [1]
        shapes.update(with_bias({f"{top}.ln_{place}": [width]}))
    for kind, layers in {"transformer": 2, "global_transformer": 1}.items():
        for i in range(layers):
            block = f"{top}.{kind}.resblocks.{i}"
            for x in ("wq", "wk", "wv", "wo"):
                shapes[f"{block}.attn.{x}.weight"] = [width, width]
            linear = {f"{block}.mlp.c_fc": [6, width], f"{block}.mlp.c_proj": [width, 6]}
            norms = {f"{block}.ln_1": [width], f"{block}.ln_2": [width]}
            shapes.update(with_bias({**linear, **norms}))
            if kind != "transformer":
                shapes[f"{block}.gate_attn"] = shapes[f"{block}.gate_ffn"] = [1]
    shapes.update(with_bias({"vision_model.vision_projection": [8, 12]}))
    return shapes


def smaller(text):
    for constant, value in (("dim", 4), ("num_heads", 2), ("patch_size", 2)):
        at = text.index(f"    vision_{constant} = ")
        text = f"{text[:at]}    vision_{constant} = {value}{text[text.index(chr(10), at) :]}"
    return text


def mllama(source):
    """What the script's `write_model` hands to the model that it loads."""
    names = script("mllama", change=smaller)
    taken = {}
    model = mock.MagicMock()
    model.load_state_dict = lambda tensors, **_: taken.update(tensors)
    for name in ("MllamaTextConfig", "MllamaVisionConfig", "MllamaConfig", "GenerationConfig"):
        setattr(names, name, mock.MagicMock())
    names.MllamaForConditionalGeneration = mock.MagicMock(return_value=model)
    names.open = mock.mock_open(read_data=json.dumps(PARAMS))
    names.torch = mock.MagicMock(wraps=torch, load=lambda *_, **__: source)
    names.os = mock.MagicMock()
    names.write_model("nowhere", "nowhere", 1)
    return taken


@family("mllama_meta", layout="meta", config=MLLAMA, exact=False)
class Mllama:
    @staticmethod
    def source():
        return empty({**mllama_text(), **mllama_vision()})

    convert = staticmethod(mllama)


@family("clip_open_clip", layout="open_clip")
class OpenClip:
    @staticmethod
    def model():
        from open_clip import model

        vision = model.CLIPVisionCfg(
            layers=2, width=8, head_width=4, mlp_ratio=2, patch_size=4, image_size=8
        )
        text = model.CLIPTextCfg(
            context_length=6, vocab_size=12, width=8, heads=2, layers=2, mlp_ratio=2
        )
        return model.CustomTextCLIP(8, vision, text)

    @staticmethod
    def source():
        return OpenClip.model().state_dict()

    @staticmethod
    def convert(source):
        from transformers import CLIPConfig, CLIPModel

        made, names = OpenClip.model(), script("clip")
        made.load_state_dict(source)
        tower = {
            "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }  # fmt: skip
        config = CLIPConfig(
            projection_dim=8,
            text_config={**tower, "vocab_size": 12, "max_position_embeddings": 6},
            vision_config={**tower, "patch_size": 4, "image_size": 8},
        )
        hub = CLIPModel(config)
        names.copy_text_model_and_projection(hub, made.text)
        names.copy_vison_model_and_projection(hub, made)
        hub.logit_scale = made.logit_scale
        return hub.state_dict()


OWL = {"vision_config": {"num_attention_heads": 2}, "text_config": {"num_attention_heads": 3}}
# An older Python had this name too, which the scripts ask for.
MAPPING = {"change": lambda text: text.replace("collections.MutableMapping", "dict")}


def scenic_norm(name, width):
    return {f"{name}/scale": [width], f"{name}/bias": [width]}


def scenic_dense(name, *shape):
    return {f"{name}/kernel": list(shape), f"{name}/bias": list(shape[1:])}


def scenic_tower(tower, width, heads, norms, layers):
    out = {}
    for i in range(layers):
        block = f"backbone/clip/{tower}/transformer/resblocks.{i}"
        for norm in norms:
            out.update(scenic_norm(f"{block}/{norm}", width))
        for x in ("query", "key", "value"):
            out.update(scenic_dense(f"{block}/attn/{x}", width, heads, width // heads))
        out[f"{block}/attn/out/kernel"] = [heads, width // heads, width]
        out[f"{block}/attn/out/bias"] = [width]
        out.update(scenic_dense(f"{block}/mlp/c_fc", width, 2 * width))
        out.update(scenic_dense(f"{block}/mlp/c_proj", 2 * width, width))
    return out


def scenic_detector(norms, heads):
    """Scenic's flattened parameters of a detector: images are 4 wide with 2 heads, text is 6
    wide with 3."""
    clip, out = "backbone/clip", {}
    out.update(scenic_tower("visual", 4, 2, norms, 2))
    out.update(scenic_tower("text", 6, 3, norms, 1))
    for name, width in {"visual/ln_pre": 4, "visual/ln_post": 4, "text/ln_final": 6}.items():
        out.update(scenic_norm(f"{clip}/{name}", width))
    out.update(scenic_norm("backbone/merged_class_token", 4))
    out.update(
        {
            f"{clip}/visual/class_embedding": [4],
            f"{clip}/visual/conv1/kernel": [2, 2, 3, 4],
            f"{clip}/visual/positional_embedding": [5, 4],
            f"{clip}/text/token_embedding/embedding": [7, 6],
            f"{clip}/text/positional_embedding": [4, 6],
            f"{clip}/text/text_projection/kernel": [6, 6],
            f"{clip}/logit_scale": [],
        }
    )
    for name, width in {"Dense_0": 6, "logit_shift": 1, "logit_scale": 1}.items():
        out.update(scenic_dense(f"class_head/{name}", 4, width))
    for head, width in heads.items():
        for i in range(3):
            out.update(scenic_dense(f"{head}/Dense_{i}", 4, width if i == 2 else 4))
    return out


def nested(source):
    """Flax's tree of arrays, of its flattened names."""
    out = {}
    for key, tensor in source.items():
        *path, last = key.split("/")
        place = out
        for name in path:
            place = place.setdefault(name, {})
        place[last] = tensor.numpy()
    return out


def owl_config(cls):
    tower = {"patch_size": 2, "image_size": 4, "num_hidden_layers": 2, "hidden_size": 4}
    text = {"vocab_size": 7, "max_position_embeddings": 4, "num_hidden_layers": 1, "hidden_size": 6}
    return cls(
        projection_dim=6,
        vision_config={**tower, **OWL["vision_config"], "intermediate_size": 8},
        text_config={**text, **OWL["text_config"], "intermediate_size": 12},
    )


@family("owlvit_scenic", layout="scenic", config=OWL)
class OwlVit:
    @staticmethod
    def source():
        projection = {"backbone/clip/visual/proj/kernel": [4, 6]}
        return empty({**scenic_detector(["ln_1", "ln_2"], {"obj_box_head": 4}), **projection})

    @staticmethod
    def convert(source):
        from open_clip import model
        from transformers import OwlViTConfig, OwlViTForObjectDetection

        vision = model.CLIPVisionCfg(
            layers=2, width=4, head_width=2, mlp_ratio=2, patch_size=2, image_size=4
        )
        text = model.CLIPTextCfg(
            context_length=4, vocab_size=7, width=6, heads=3, layers=1, mlp_ratio=2
        )
        names, config = script("owlvit", **MAPPING), owl_config(OwlViTConfig)
        hub = OwlViTForObjectDetection(config)
        hub.save_pretrained = mock.MagicMock()
        # OpenAI's model, which the script fills on the way, has these names too.
        names.CLIP = lambda: model.CLIP(6, vision, text)
        names.OwlViTConfig = lambda: config
        names.OwlViTForObjectDetection = lambda _: hub
        for name in ("Repository", "OwlViTImageProcessor", "CLIPTokenizer", "OwlViTProcessor"):
            setattr(names, name, mock.MagicMock())
        params = nested(source)
        _, backbone, attention = names.convert_clip_backbone(params, {})
        names.convert_owlvit_checkpoint(backbone, params, attention, "nowhere")
        return hub.state_dict()


@family("owlv2_scenic", layout="scenic", config=OWL, rules="owlvit_scenic")
class Owlv2:
    @staticmethod
    def source():
        return empty(scenic_detector(["ln_0", "ln_1"], {"obj_box_head": 4, "objectness_head": 1}))

    @staticmethod
    def convert(source):
        from transformers import Owlv2Config, Owlv2ForObjectDetection

        names, config = script("owlv2", **MAPPING), owl_config(Owlv2Config)
        names.print = lambda *_: None
        out = names.flatten_nested_dict(nested(source))
        for old, new in names.create_rename_keys(config, "owlv2"):
            names.rename_and_reshape_key(out, old, new, config)
        loaded = Owlv2ForObjectDetection(config).load_state_dict(out, strict=False)
        assert loaded.missing_keys == ["owlv2.visual_projection.weight"], loaded
        assert not loaded.unexpected_keys, loaded
        return out
