"""Vision: DINOv3, Hiera, SAM 2."""

from . import family
from .converters import script


@family("dinov3_meta", layout="meta", exact=False)
class DinoV3:
    @staticmethod
    def source():
        return dinov3_model(depth=2, ffn_ratio=2)

    @staticmethod
    def convert(source):
        return dinov3(source)


@family("dinov3_meta_gated", layout="meta", exact=False, rules="dinov3_meta")
class DinoV3Gated:
    @staticmethod
    def source():
        return dinov3_model(depth=1, ffn_layer="swiglu", untie_global_and_local_cls_norm=True)

    @staticmethod
    def convert(source):
        return dinov3(source)


def dinov3_model(**more):
    from dinov3.models.vision_transformer import DinoVisionTransformer

    made = DinoVisionTransformer(
        img_size=4,
        patch_size=2,
        embed_dim=8,
        num_heads=2,
        n_storage_tokens=2,
        layerscale_init=1.0,
        mask_k_bias=True,
        **more,
    )
    return made.state_dict()


def dinov3(source):
    """The steps of the script's main function, with its own mappings."""
    names = script("dinov3_vit")
    source = names.split_qkv(source)
    new_keys = names.convert_old_keys_to_new_keys(list(source))
    out = {}
    for key, tensor in source.items():
        new_key = new_keys[key]
        if "bias_mask" in key or "attn.k_proj.bias" in key or "local_cls_norm" in key:
            continue
        if "embeddings.mask_token" in new_key:
            tensor = tensor.unsqueeze(1)
        if "inv_freq" in new_key:
            continue
        out[new_key] = tensor
    return out


class _HieraConfig:
    def __init__(self, **fields):
        self.__dict__.update(fields)


def hiera(source, config, base, mae):
    names = script("hiera")
    pairs = names.create_rename_keys(
        _HieraConfig(embed_dim=4, embed_dim_multiplier=2.0, **config), base, mae
    )
    if base:
        names.remove_classification_head_(source)
    for old, new in pairs:
        names.rename_key(source, old, new)
    return source


HIERA = {"depths": [1, 2, 2, 1]}


def hiera_model(cls, **more):
    import hiera

    made = getattr(hiera, cls)(
        input_size=(32, 32),
        embed_dim=4,
        num_heads=1,
        stages=(1, 2, 2, 1),
        q_pool=2,
        mask_unit_size=(4, 4),
        mlp_ratio=1.0,
        **more,
    )
    return made.state_dict()


@family("hiera_meta", layout="meta", config=HIERA)
class Hiera:
    @staticmethod
    def source():
        return hiera_model("Hiera", num_classes=3)

    @staticmethod
    def convert(source):
        return hiera(source, HIERA, False, False)


@family("hiera_meta_base", layout="meta", config=HIERA, rules="hiera_meta")
class HieraBase:
    @staticmethod
    def source():
        out = hiera_model("Hiera", num_classes=3)
        return {key: tensor for key, tensor in out.items() if not key.startswith("head")}

    @staticmethod
    def convert(source):
        return hiera(source, HIERA, True, False)


MAE = {**HIERA, "decoder_depth": 1, "num_query_pool": 2}


@family("hiera_meta_mae", layout="meta", config=MAE, rules="hiera_meta")
class HieraMae:
    @staticmethod
    def source():
        from hiera.hiera_mae import MaskedAutoencoderHiera

        made = MaskedAutoencoderHiera(
            input_size=(32, 32),
            embed_dim=4,
            num_heads=1,
            stages=(1, 2, 2, 1),
            q_pool=2,
            mask_unit_size=(4, 4),
            mlp_ratio=1.0,
            decoder_embed_dim=8,
            decoder_depth=1,
            decoder_num_heads=2,
        )
        return made.state_dict()

    @staticmethod
    def convert(source):
        return hiera(source, MAE, False, True)
