"""Diffusion: what diffusers' loaders of single files convert."""

import inspect

from . import empty, family, with_bias


def flux(prefix=""):
    from flux.model import Flux, FluxParams

    made = Flux(
        FluxParams(
            in_channels=4,
            out_channels=4,
            vec_in_dim=2,
            context_in_dim=2,
            hidden_size=4,
            mlp_ratio=4.0,
            num_heads=2,
            depth=2,
            depth_single_blocks=2,
            axes_dim=[1, 1],
            theta=10,
            qkv_bias=True,
            guidance_embed=not prefix,
        )
    )
    out = {}
    for key, tensor in made.state_dict().items():
        # The embedding of times is 256 wide whatever the model is.
        tensor = tensor[:, :2] if tensor.ndim == 2 and tensor.shape[1] == 256 else tensor
        out[prefix + key] = tensor
    return out


def convert_flux(source):
    from diffusers.loaders import single_file_utils

    text = inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    made = {"torch": single_file_utils.torch}
    exec(text.replace("inner_dim = 3072", "inner_dim = 4"), made)
    return made["convert_flux_transformer_checkpoint_to_diffusers"](source)


@family("flux_bfl", layout="bfl")
class Flux:
    source = staticmethod(flux)
    convert = staticmethod(convert_flux)


@family("flux_bfl_prefixed", layout="bfl", exact=False, rules="flux_bfl")
class FluxPrefixed:
    @staticmethod
    def source():
        return flux("model.diffusion_model.")

    convert = staticmethod(convert_flux)


def modules(model):
    """The names of what an adapter may be made for."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def adapter(prefix, names):
    """A pair of tensors and an alpha for each name."""
    shapes = {}
    for name in names:
        layer = prefix + name.replace(".", "_")
        shapes[f"{layer}.lora_down.weight"] = [1, 2]
        shapes[f"{layer}.lora_up.weight"] = [2, 1]
        shapes[f"{layer}.alpha"] = []
    return empty(shapes)


def unet(**more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 4),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=4,
        norm_num_groups=2,
        attention_head_dim=2,
        **more,
    )


def text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    made = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=4, intermediate_size=4, num_hidden_layers=2, num_attention_heads=2
        )
    )
    names = [
        name if name.startswith("text_model") else f"text_model.{name}" for name in modules(made)
    ]
    return names


def convert_lora(source):
    from types import SimpleNamespace

    from diffusers.loaders import lora_conversion_utils as utils

    source = utils._maybe_map_sgm_blocks_to_diffusers(source, SimpleNamespace(layers_per_block=2))
    return utils._convert_non_diffusers_lora_to_diffusers(source)[0]


@family("lora_kohya", layout="kohya", exact=False)
class LoraKohya:
    @staticmethod
    def source():
        return {
            **adapter("lora_unet_", modules(unet())),
            **adapter("lora_te_", text_encoder()),
        }

    convert = staticmethod(convert_lora)


SGM = {
    "input_blocks": ["4_1_proj_in", "4_1_transformer_blocks_1_attn2_to_v", "8_1_proj_out"],
    "middle_block": ["1_transformer_blocks_0_ff_net_0_proj", "0_in_layers_2"],
    "output_blocks": ["0_1_transformer_blocks_3_attn1_to_out_0", "5_1_proj_in", "2_2_conv"],
}


@family("lora_kohya_xl", layout="kohya", exact=False, rules="lora_kohya")
class LoraKohyaXl:
    @staticmethod
    def source():
        names = [f"{kind}_{name}" for kind, all in SGM.items() for name in all]
        names += [
            "input_blocks_3_0_op",
            "input_blocks_5_0_out_layers_3",
            "input_blocks_2_0_emb_layers_1",
        ]
        return {
            **adapter("lora_unet_", names),
            **adapter("lora_te1_", text_encoder()),
            **adapter("lora_te2_", text_encoder()),
        }

    convert = staticmethod(convert_lora)


def flux_adapter():
    """Of each kind of layer, with an alpha or without. The scales are at least a half: of
    smaller ones diffusers moves powers of two from one factor to the other."""
    import torch

    layers = {}
    for stream in ("img", "txt"):
        layers.update(
            {
                f"double_blocks_1_{stream}_attn_qkv": (12, 4, 4, 3),
                f"double_blocks_1_{stream}_attn_proj": (4, 4, 4, 3),
                f"double_blocks_1_{stream}_mlp_0": (16, 4, 2, 2),
                f"double_blocks_1_{stream}_mlp_2": (4, 16, 2, None),
                f"double_blocks_1_{stream}_mod_lin": (24, 4, 2, 1.5),
            }
        )
    layers["single_blocks_0_linear1"] = (28, 4, 2, 5)
    layers["single_blocks_0_linear2"] = (4, 20, 2, 3)
    layers["single_blocks_0_modulation_lin"] = (12, 4, 4, 2)
    for kind in ("guidance_in", "time_in", "vector_in"):
        layers[f"{kind}_in_layer"] = (4, 2, 2, 3)
        layers[f"{kind}_out_layer"] = (4, 4, 2, 3)
    layers["img_in"] = layers["txt_in"] = (4, 2, 2, 3)
    # Here diffusers takes no notice of alpha.
    layers["final_layer_linear"] = (4, 4, 2, 2)
    layers["final_layer_adaLN_modulation_1"] = (8, 4, 2, 2)
    out = {}
    names = {f"lora_unet_{name}": layer for name, layer in layers.items()}
    for name in ("self_attn_q_proj", "self_attn_out_proj", "mlp_fc1", "mlp_fc2"):
        names[f"lora_te1_text_model_encoder_layers_0_{name}"] = (4, 4, 4, 3)
    for name, (rows, columns, rank, alpha) in names.items():
        out[f"{name}.lora_down.weight"] = torch.zeros(rank, columns)
        out[f"{name}.lora_up.weight"] = torch.zeros(rows, rank)
        if alpha is not None:
            out[f"{name}.alpha"] = torch.tensor(float(alpha))
    return out


def convert_flux_adapter(source):
    from diffusers.loaders import lora_conversion_utils as utils

    text = inspect.getsource(utils._convert_kohya_flux_lora_to_diffusers)
    made = dict(vars(utils))
    exec(text.replace("dims=[3072, 3072, 3072, 12288]", "dims=[4, 4, 4, 16]"), made)
    return made["_convert_kohya_flux_lora_to_diffusers"](source)


@family("lora_flux_kohya", layout="kohya", exact=False)
class LoraFluxKohya:
    source = staticmethod(flux_adapter)
    convert = staticmethod(convert_flux_adapter)


def convert_names(source):
    from diffusers.utils import state_dict_utils as utils

    def of(model):
        return {
            key.removeprefix(f"{model}."): tensor
            for key, tensor in source.items()
            if key.startswith(f"{model}.")
        }

    made = {
        "unet": utils.convert_unet_state_dict_to_peft(of("unet")),
        "text_encoder": utils.convert_state_dict_to_peft(of("text_encoder")),
    }
    return {f"{model}.{key}": one for model, keys in made.items() for key, one in keys.items()}


@family("lora_diffusers", layout="diffusers")
class LoraDiffusers:
    @staticmethod
    def source():
        return convert_lora(LoraKohya.source())

    convert = staticmethod(convert_names)


def sd3(last, dual=(), norms=False, prefix=""):
    """Keys of Stability AI's MMDiT, whose last block gives no text on."""
    linear = {"x_embedder.proj": [4, 2, 2, 2], "context_embedder": [4, 3]}
    for name, columns in (("t_embedder", 2), ("y_embedder", 3)):
        linear.update({f"{name}.mlp.0": [4, columns], f"{name}.mlp.2": [4, 4]})
    linear.update({"final_layer.linear": [8, 4], "final_layer.adaLN_modulation.1": [8, 4]})
    shapes = {"pos_embed": [1, 4, 4]}
    for i in range(last + 1):
        for stream in ("x", "context"):
            block, ends = f"joint_blocks.{i}.{stream}_block", stream == "context" and i == last
            parts = ["attn", "attn2"] if stream == "x" and i in dual else ["attn"]
            chunks = 2 if ends else 9 if len(parts) == 2 else 6
            linear[f"{block}.adaLN_modulation.1"] = [4 * chunks, 4]
            for part in parts:
                linear[f"{block}.{part}.qkv"] = [12, 4]
                if not ends:
                    linear[f"{block}.{part}.proj"] = [4, 4]
                if norms:
                    shapes.update({f"{block}.{part}.ln_{x}.weight": [2] for x in "qk"})
            if not ends:
                linear.update({f"{block}.mlp.fc1": [16, 4], f"{block}.mlp.fc2": [4, 16]})
    made = empty({**shapes, **with_bias(linear)})
    return {prefix + key: tensor for key, tensor in made.items()}


def convert_sd3(source):
    from diffusers.loaders import single_file_utils

    prefix = "model.diffusion_model."
    if any(key.startswith(prefix) for key in source):
        source = {key: tensor for key, tensor in source.items() if key.startswith(prefix)}
    return single_file_utils.convert_sd3_transformer_checkpoint_to_diffusers(source)


@family("sd3_stability", layout="stability")
class Sd3:
    @staticmethod
    def source():
        return sd3(1)

    convert = staticmethod(convert_sd3)


@family("sd3_stability_5", layout="stability", rules="sd3_stability")
class Sd35:
    @staticmethod
    def source():
        return sd3(2, dual=(0, 1), norms=True)

    convert = staticmethod(convert_sd3)


@family("sd3_stability_single", layout="stability", exact=False, rules="sd3_stability")
class Sd3Single:
    """With something of the VAE that a single file holds too."""

    @staticmethod
    def source():
        vae = with_bias({"first_stage_model.decoder.conv_in": [4, 2, 3, 3]})
        return {**sd3(1, prefix="model.diffusion_model."), **empty(vae)}

    convert = staticmethod(convert_sd3)
