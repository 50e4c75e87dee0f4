"""Vision transformers and convolutions named as timm names them, or nearly so."""

import re
from types import SimpleNamespace

from . import empty, family, with_bias
from .converters import script

WIDTH = 4


def blocks(layers=2, norms=("norm1", "norm2"), mlp=(("fc1", 6), ("fc2", 6)), qkv_bias=True):
    """The blocks that nearly all of them share."""
    shapes = {}
    for i in range(layers):
        block = f"blocks.{i}"
        linear = {f"{block}.attn.proj": [WIDTH, WIDTH]}
        linear.update({f"{block}.{norm}": [WIDTH] for norm in norms})
        if qkv_bias:
            linear[f"{block}.attn.qkv"] = [3 * WIDTH, WIDTH]
        else:
            shapes[f"{block}.attn.qkv.weight"] = [3 * WIDTH, WIDTH]
        (first, wide), (second, narrow) = mlp
        linear[f"{block}.mlp.{first}"] = [wide, WIDTH]
        linear[f"{block}.mlp.{second}"] = [WIDTH, narrow]
        shapes.update(with_bias(linear))
    return shapes


def patches():
    return {"cls_token": [1, 1, WIDTH], **with_bias({"patch_embed.proj": [WIDTH, 3, 2, 2]})}


def renamed(names, source, pairs):
    for old, new in pairs:
        names.rename_key(source, old, new)
    return source


@family("deit_timm", layout="timm")
class Deit:
    @staticmethod
    def source():
        from timm.models.deit import VisionTransformerDistilled

        model = VisionTransformerDistilled(
            img_size=4,
            patch_size=2,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            mlp_ratio=2.0,
            num_classes=3,
        )
        return model.state_dict()

    @staticmethod
    def convert(source):
        names = script("deit")
        config = SimpleNamespace(num_hidden_layers=2, hidden_size=WIDTH)
        renamed(names, source, names.create_rename_keys(config))
        names.read_in_q_k_v(source, config)
        return source


def beit(source, pretrained):
    names = script("beit")
    config = SimpleNamespace(num_hidden_layers=2, hidden_size=WIDTH)
    renamed(names, source, names.create_rename_keys(config, has_lm_head=pretrained))
    names.read_in_q_k_v(source, config, has_lm_head=pretrained)
    return source


def beit_blocks():
    shapes = blocks(qkv_bias=False)
    for i in range(2):
        for x in ("attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2"):
            shapes[f"blocks.{i}.{x}"] = [WIDTH]
    return shapes


@family("beit_unilm", layout="unilm")
class Beit:
    @staticmethod
    def source():
        shapes = {
            **patches(),
            **beit_blocks(),
            **with_bias({"fc_norm": [WIDTH], "head": [3, WIDTH]}),
        }
        for i in range(2):
            shapes[f"blocks.{i}.attn.relative_position_bias_table"] = [7, 2]
        out = empty(shapes)
        for i in range(2):
            out[f"blocks.{i}.attn.relative_position_index"] = empty({"x": [5, 5]})["x"].long()
        return out

    @staticmethod
    def convert(source):
        return beit(source, False)


@family("beit_unilm_pretrained", layout="unilm", rules="beit_unilm")
class BeitPretrained:
    @staticmethod
    def source():
        shapes = {**patches(), **beit_blocks(), "mask_token": [1, 1, WIDTH]}
        shapes.update(with_bias({"norm": [WIDTH], "lm_head": [9, WIDTH]}))
        for x, shape in {"bias_table": [7, 2], "index": [5, 5]}.items():
            shapes[f"rel_pos_bias.relative_position_{x}"] = shape
        return empty(shapes)

    @staticmethod
    def convert(source):
        return beit(source, True)


@family("swin_microsoft", layout="microsoft", exact=False)
class Swin:
    @staticmethod
    def source():
        linear = {"patch_embed.proj": [WIDTH, 3, 2, 2], "patch_embed.norm": [WIDTH]}
        linear.update({"norm": [2 * WIDTH], "head": [3, 2 * WIDTH]})
        shapes = {}
        for stage, width in enumerate([WIDTH, 2 * WIDTH]):
            for i in range(2):
                block = f"layers.{stage}.blocks.{i}"
                linear.update({f"{block}.norm1": [width], f"{block}.norm2": [width]})
                linear[f"{block}.attn.qkv"] = [3 * width, width]
                linear[f"{block}.attn.proj"] = [width, width]
                linear[f"{block}.mlp.fc1"] = [6, width]
                linear[f"{block}.mlp.fc2"] = [width, 6]
                shapes[f"{block}.attn.relative_position_bias_table"] = [9, 2]
                shapes[f"{block}.attn.relative_position_index"] = [4, 4]
        shapes["layers.0.blocks.1.attn_mask"] = [4, 4, 4]
        shapes["layers.0.downsample.reduction.weight"] = [2 * WIDTH, 4 * WIDTH]
        linear["layers.0.downsample.norm"] = [4 * WIDTH]
        return empty({**shapes, **with_bias(linear)})

    @staticmethod
    def convert(source):
        def block(width):
            self = SimpleNamespace(all_head_size=width)
            return SimpleNamespace(attention=SimpleNamespace(self=self))

        layers = [SimpleNamespace(blocks=[block(width)] * 2) for width in (WIDTH, 2 * WIDTH)]
        encoder = SimpleNamespace(layers=layers)
        model = SimpleNamespace(swin=SimpleNamespace(encoder=encoder))
        return script("swin", "convert_swin_timm*").convert_state_dict(source, model)


@family("convnext_meta", layout="meta")
class ConvNext:
    @staticmethod
    def source():
        linear = {"norm": [WIDTH], "head": [3, WIDTH]}
        shapes = {}
        for stage in range(4):
            first, second = (
                ([WIDTH, 3, 4, 4], [WIDTH]) if stage == 0 else ([WIDTH], [WIDTH, WIDTH, 2, 2])
            )
            linear[f"downsample_layers.{stage}.0"] = first
            linear[f"downsample_layers.{stage}.1"] = second
            for i in range(1 + stage % 2):
                block = f"stages.{stage}.{i}"
                shapes[f"{block}.gamma"] = [WIDTH]
                linear[f"{block}.dwconv"] = [WIDTH, 1, 2, 2]
                linear[f"{block}.norm"] = [WIDTH]
                linear[f"{block}.pwconv1"] = [6, WIDTH]
                linear[f"{block}.pwconv2"] = [WIDTH, 6]
        return empty({**shapes, **with_bias(linear)})

    @staticmethod
    def convert(source):
        # The script's loop, whose second pass sets the prefix.
        names = script("convnext")
        out = {names.rename_key(key): tensor for key, tensor in source.items()}
        return {
            key if key.startswith("classifier") else f"convnext.{key}": tensor
            for key, tensor in out.items()
        }


def dinov2_source(gated, registers):
    mlp = (("w12", 8), ("w3", 4)) if gated else (("fc1", 6), ("fc2", 6))
    shapes = {**patches(), **blocks(mlp=mlp), **with_bias({"norm": [WIDTH]})}
    shapes.update({"mask_token": [1, WIDTH], "pos_embed": [1, 5, WIDTH]})
    if registers:
        shapes["register_tokens"] = [1, 2, WIDTH]
    for i in range(2):
        shapes[f"blocks.{i}.ls1.gamma"] = shapes[f"blocks.{i}.ls2.gamma"] = [WIDTH]
    return empty(shapes)


def dinov2(source, gated, folder):
    names = script(folder)
    config = SimpleNamespace(num_hidden_layers=2, hidden_size=WIDTH, use_swiglu_ffn=gated)
    renamed(names, source, names.create_rename_keys(config))
    names.read_in_q_k_v(source, config)
    return source


@family("dinov2_meta", layout="meta")
class DinoV2:
    @staticmethod
    def source():
        return dinov2_source(True, False)

    @staticmethod
    def convert(source):
        return dinov2(source, True, "dinov2")


@family("dinov2_meta_registers", layout="meta", rules="dinov2_meta")
class DinoV2Registers:
    @staticmethod
    def source():
        return dinov2_source(False, True)

    @staticmethod
    def convert(source):
        return dinov2(source, False, "dinov2_with_registers")


@family("detr_meta", layout="meta")
class Detr:
    @staticmethod
    def source():
        shapes, width = {}, 2

        def norm(name):
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.{leaf}"] = [2]

        body = "backbone.0.body"
        shapes[f"{body}.conv1.weight"] = [2, 3, 1, 1]
        norm(f"{body}.bn1")
        for stage in (1, 2):
            for i in range(2):
                layer = f"{body}.layer{stage}.{i}"
                if i == 0:
                    shapes[f"{layer}.downsample.0.weight"] = [2, 2, 1, 1]
                    norm(f"{layer}.downsample.1")
                for n in (1, 2, 3):
                    shapes[f"{layer}.conv{n}.weight"] = [2, 2, 1, 1]
                    norm(f"{layer}.bn{n}")
        linear = {
            "input_proj": [2, 2, 1, 1],
            "class_embed": [2, 2],
            "transformer.decoder.norm": [2],
        }
        linear.update({f"bbox_embed.layers.{i}": [2, 2] for i in range(3)})
        shapes["query_embed.weight"] = [2, 2]
        for kind, attentions, norms in (
            ("encoder", ["self_attn"], 2),
            ("decoder", ["self_attn", "multihead_attn"], 3),
        ):
            for i in range(6):
                layer = f"transformer.{kind}.layers.{i}"
                for attention in attentions:
                    shapes[f"{layer}.{attention}.in_proj_weight"] = [3 * width, 1]
                    shapes[f"{layer}.{attention}.in_proj_bias"] = [3 * width]
                    linear[f"{layer}.{attention}.out_proj"] = [2, 2]
                linear.update({f"{layer}.linear{n}": [2, 2] for n in (1, 2)})
                linear.update({f"{layer}.norm{n + 1}": [2] for n in range(norms)})
        return empty({**shapes, **with_bias(linear)})

    @staticmethod
    def convert(source):
        def narrow(text):
            # The script counts rows, of a model that is 256 wide.
            return text.replace("512", "4").replace("256", "2")

        names = script("detr", "convert_detr_to_pytorch", change=narrow)
        config = SimpleNamespace(
            encoder_layers=6, decoder_layers=6, backbone_config=SimpleNamespace(depths=[2, 2])
        )
        renamed(names, source, names.create_rename_keys(config))
        names.read_in_q_k_v(source)
        heads = ("class_labels_classifier", "bbox_predictor")
        return {
            key if key.startswith(heads) else f"model.{key}": tensor
            for key, tensor in source.items()
        }


def eva02(inner=False):
    """A block of EVA-02 from `base` on, with tables of RoPE, which timm calculates."""
    linear = {"patch_embed.proj": [8, 3, 4, 4]}
    shapes = {"cls_token": [1, 1, 8], "pos_embed": [1, 5, 8]}
    shapes.update({f"rope.freqs_{x}": [4, 4] for x in ("cos", "sin")})
    for i in range(2):
        block = f"blocks.{i}"
        linear.update({f"{block}.norm{n}": [8] for n in (1, 2)})
        linear[f"{block}.attn.proj"] = [8, 8]
        shapes.update({f"{block}.attn.{x}_bias": [8] for x in "qv"})
        shapes.update({f"{block}.attn.{x}_proj.weight": [8, 8] for x in "qkv"})
        shapes.update({f"{block}.attn.rope.freqs_{x}": [4, 4] for x in ("cos", "sin")})
        if inner:
            linear[f"{block}.attn.inner_attn_ln"] = [8]
        linear.update({f"{block}.mlp.w1": [16, 8], f"{block}.mlp.w2": [16, 8]})
        linear.update({f"{block}.mlp.w3": [8, 16], f"{block}.mlp.ffn_ln": [16]})
    return {**shapes, **with_bias(linear)}


def convert_eva02(source, **more):
    from timm.models import eva

    model = eva.Eva(
        img_size=8,
        patch_size=4,
        embed_dim=8,
        depth=2,
        num_heads=2,
        mlp_ratio=2,
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        use_rot_pos_emb=True,
        **more,
    )
    made = eva.checkpoint_filter_fn(source, model)
    model.load_state_dict(made)
    return made


@family("eva02_baai", layout="baai", exact=False)
class Eva02:
    @staticmethod
    def source():
        return empty({**eva02(), **with_bias({"fc_norm": [8], "head": [3, 8]})})

    @staticmethod
    def convert(source):
        return convert_eva02(source, num_classes=3)


@family("eva02_baai_without_tables", layout="baai", rules="eva02_baai")
class Eva02WithoutTables:
    @staticmethod
    def source():
        return {key: tensor for key, tensor in Eva02.source().items() if "rope" not in key}

    @staticmethod
    def convert(source):
        return convert_eva02(source, num_classes=3)


@family("eva02_baai_pretrained", layout="baai", exact=False, rules="eva02_baai")
class Eva02Pretrained:
    @staticmethod
    def source():
        more = {"mask_token": [1, 1, 8], **with_bias({"norm": [8], "lm_head": [9, 8]})}
        return empty({**eva02(inner=True), **more})

    @staticmethod
    def convert(source):
        return convert_eva02(source, num_classes=0, scale_attn_inner=True)


def renamed_by(names, source):
    """What keys of timm become, each by the first of the regular expressions that it begins with:
    neither timm nor transformers has a converter for the names that timm has today.
    """
    out = {}
    for key, tensor in source.items():
        old, new = next(pair for pair in names if re.match(pair[0], key))
        name = re.sub(old, new, key)
        if "{x}" in name:
            for x, part in zip(("query", "key", "value"), tensor.chunk(3)):
                out[name.format(x=x)] = part
        else:
            out[name] = tensor
    return out


@family("swin_timm", layout="timm")
class SwinOfTimm:
    @staticmethod
    def source():
        from timm.models.swin_transformer import SwinTransformer

        model = SwinTransformer(
            img_size=16,
            patch_size=2,
            window_size=2,
            embed_dim=2,
            depths=(1, 2, 1),
            num_heads=(1, 1, 2),
            mlp_ratio=2.0,
            num_classes=3,
        )
        return model.state_dict()

    @staticmethod
    def convert(source):
        block = r"swin.encoder.layers.\1.blocks.\2"
        names = [
            (r"patch_embed\.proj", "swin.embeddings.patch_embeddings.projection"),
            (r"patch_embed\.norm", "swin.embeddings.norm"),
            (r"norm\.", "swin.layernorm."),
            (r"head\.fc", "classifier"),
            # Here a stage ends with what the next one begins with in timm.
            (r"layers\.1\.downsample", "swin.encoder.layers.0.downsample"),
            (r"layers\.2\.downsample", "swin.encoder.layers.1.downsample"),
        ]
        for old, new in [
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            (r"attn\.qkv", "attention.self.{x}"),
            (r"attn\.proj", "attention.output.dense"),
            (r"attn\.relative", "attention.self.relative"),
            (r"mlp\.fc1", "intermediate.dense"),
            (r"mlp\.fc2", "output.dense"),
        ]:
            names.append((rf"layers\.(\d+)\.blocks\.(\d+)\.{old}", f"{block}.{new}"))
        return renamed_by(names, source)


@family("convnext_timm", layout="timm")
class ConvNextOfTimm:
    @staticmethod
    def source():
        from timm.models.convnext import ConvNeXt

        model = ConvNeXt(depths=(1, 2, 1, 1), dims=(2, 3, 3, 4), kernel_sizes=3, num_classes=3)
        return model.state_dict()

    @staticmethod
    def convert(source):
        stage = r"convnext.encoder.stages.\1"
        names = [
            (r"stem\.0", "convnext.embeddings.patch_embeddings"),
            (r"stem\.1", "convnext.embeddings.layernorm"),
            (r"head\.norm", "convnext.layernorm"),
            (r"head\.fc", "classifier"),
            (r"stages\.(\d+)\.downsample", f"{stage}.downsampling_layer"),
        ]
        for old, new in [
            ("gamma", "layer_scale_parameter"),
            ("conv_dw", "dwconv"),
            ("norm", "layernorm"),
            (r"mlp\.fc", "pwconv"),
        ]:
            names.append((rf"stages\.(\d+)\.blocks\.(\d+)\.{old}", rf"{stage}.layers.\2.{new}"))
        return renamed_by(names, source)


def beit_of_timm(**given):
    from timm.models.beit import Beit

    model = Beit(
        img_size=4,
        patch_size=2,
        embed_dim=WIDTH,
        depth=2,
        num_heads=2,
        mlp_ratio=2.0,
        init_values=0.1,
        num_classes=3,
        **given,
    )
    return model.state_dict()


def beit_to_hub(source):
    attention = r"beit.encoder.layer.\1.attention.attention"
    names = [
        ("cls_token", "beit.embeddings.cls_token"),
        ("pos_embed", "beit.embeddings.position_embeddings"),
        (r"patch_embed\.proj", "beit.embeddings.patch_embeddings.projection"),
        ("rel_pos_bias", "beit.encoder.relative_position_bias"),
        (r"norm\.", "beit.layernorm."),
        ("fc_norm", "beit.pooler.layernorm"),
        ("head", "classifier"),
        (r"blocks\.(\d+)\.gamma_", r"beit.encoder.layer.\1.lambda_"),
        (r"blocks\.(\d+)\.norm1", r"beit.encoder.layer.\1.layernorm_before"),
        (r"blocks\.(\d+)\.norm2", r"beit.encoder.layer.\1.layernorm_after"),
        (r"blocks\.(\d+)\.attn\.q_bias", f"{attention}.query.bias"),
        (r"blocks\.(\d+)\.attn\.v_bias", f"{attention}.value.bias"),
        (r"blocks\.(\d+)\.attn\.qkv", attention + ".{x}"),
        (r"blocks\.(\d+)\.attn\.relative", f"{attention}.relative_position_bias.relative"),
        (r"blocks\.(\d+)\.attn\.proj", r"beit.encoder.layer.\1.attention.output.dense"),
        (r"blocks\.(\d+)\.mlp\.fc1", r"beit.encoder.layer.\1.intermediate.dense"),
        (r"blocks\.(\d+)\.mlp\.fc2", r"beit.encoder.layer.\1.output.dense"),
    ]
    return renamed_by(names, source)


@family("beit_timm", layout="unilm", rules="beit_unilm")
class BeitOfTimm:
    @staticmethod
    def source():
        return beit_of_timm(use_abs_pos_emb=False, use_rel_pos_bias=True)

    @staticmethod
    def convert(source):
        return beit_to_hub(source)


@family("beit_timm_token", layout="unilm", rules="beit_unilm")
class BeitOfTimmByToken:
    @staticmethod
    def source():
        return beit_of_timm(use_shared_rel_pos_bias=True, global_pool="token")

    @staticmethod
    def convert(source):
        return beit_to_hub(source)
