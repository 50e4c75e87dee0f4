r"""A publisher's own model and that of transformers give equal outputs, once regraft has converted
the weights of one to the other's layout.

Each test needs the publisher's package (requirements-families.txt, which `sh python/test.sh`
installs), and is skipped where it isn't installed.
"""

import importlib

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

import regraft  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


def package(name):
    """A publisher's package, or a skip."""
    return pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)


@pytest.fixture
def convert(tmp_path):
    """Takes a publisher's model to one of transformers, by its layout as it's recognized."""

    def converted(original, model):
        torch.manual_seed(7)
        for parameter in original.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        state = original.state_dict().items()
        state = {key: tensor.clone().contiguous() for key, tensor in state}
        save_file(state, tmp_path / "in.safetensors")
        config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
        out = tmp_path / "out.safetensors"
        regraft.convert(tmp_path / "in.safetensors", out, to="model", config=config)
        made = load_file(out)
        # What `load_state_dict` says is missing may only be what the model ties or makes itself.
        missing, unexpected = model.load_state_dict(made, strict=False)
        assert not unexpected
        model.tie_weights()
        kept = {name for name, _ in model.named_parameters()}
        assert not kept & set(missing)
        return made

    return converted


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def test_whisper(convert):
    whisper = package("whisper.model")
    dims = whisper.ModelDimensions(
        n_mels=8,
        n_audio_ctx=16,
        n_audio_state=16,
        n_audio_head=2,
        n_audio_layer=2,
        n_vocab=32,
        n_text_ctx=12,
        n_text_state=16,
        n_text_head=2,
        n_text_layer=2,
    )
    original = whisper.Whisper(dims).eval()
    config = transformers.WhisperConfig(
        num_mel_bins=8,
        max_source_positions=16,
        max_target_positions=12,
        d_model=16,
        vocab_size=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = transformers.WhisperForConditionalGeneration(config).eval()
    convert(original, model)
    mel, tokens = torch.randn(2, 8, 32), torch.randint(0, 32, (2, 5))
    close(model(input_features=mel, decoder_input_ids=tokens).logits, original(mel, tokens))


def test_clip(convert):
    open_clip = package("open_clip.model")
    original = open_clip.CLIP(
        embed_dim=8,
        vision_cfg={"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 16},
        text_cfg={"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 2},
        quick_gelu=True,
    ).eval()
    shared = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8}
    config = transformers.CLIPConfig(
        projection_dim=8,
        vision_config={
            **shared,
            "hidden_size": 64,
            "intermediate_size": 256,
            "patch_size": 8,
            "image_size": 16,
        },
        text_config={
            **shared,
            "hidden_size": 16,
            "intermediate_size": 64,
            "vocab_size": 32,
            "max_position_embeddings": 8,
            "bos_token_id": 1,
            "eos_token_id": 31,
        },
    )
    model = transformers.CLIPModel(config).eval()
    convert(original, model)
    image, text = torch.randn(2, 3, 16, 16), torch.tensor([[1, 5, 7, 31, 0, 0, 0, 0]] * 2)
    ours = model(pixel_values=image, input_ids=text)
    theirs = original.encode_image(image, normalize=True), original.encode_text(text, True)
    close((ours.image_embeds, ours.text_embeds), theirs)


VISION = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 5,
}


def timm_model(**given):
    timm = package("timm.models.vision_transformer")
    shape = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return timm.VisionTransformer(num_classes=5, **shape, **given).eval()


def test_vit(convert):
    original = timm_model()
    config = transformers.ViTConfig(**VISION, layer_norm_eps=1e-6)
    model = transformers.ViTForImageClassification(config).eval()
    convert(original, model)
    image = torch.randn(2, 3, 16, 16)
    close(model(image).logits, original(image))


def test_deit(convert):
    deit = package("timm.models.deit")
    original = deit.VisionTransformerDistilled(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5
    ).eval()
    config = transformers.DeiTConfig(**VISION, layer_norm_eps=1e-6)
    model = transformers.DeiTForImageClassificationWithTeacher(config).eval()
    convert(original, model)
    image = torch.randn(2, 3, 16, 16)
    close(model(image).logits, original(image))


def test_swin(convert):
    swin = package("timm.models.swin_transformer")
    shared = {"patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (1, 2, 2)}
    shared.update(num_heads=(1, 2, 4), mlp_ratio=2.0)
    original = swin.SwinTransformer(img_size=32, num_classes=5, **shared).eval()
    config = transformers.SwinConfig(image_size=32, num_labels=5, **shared)
    model = transformers.SwinForImageClassification(config).eval()
    convert(original, model)
    image = torch.randn(2, 3, 32, 32)
    close(model(image).logits, original(image))


def test_convnext(convert):
    convnext = package("timm.models.convnext")
    depths, widths = (1, 2, 1, 1), (4, 8, 8, 16)
    original = convnext.ConvNeXt(depths=depths, dims=widths, num_classes=5).eval()
    config = transformers.ConvNextConfig(depths=depths, hidden_sizes=widths, num_labels=5)
    model = transformers.ConvNextForImageClassification(config).eval()
    convert(original, model)
    image = torch.randn(2, 3, 64, 64)
    close(model(image).logits, original(image))


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_beit(convert, pool):
    beit = package("timm.models.beit")
    shape = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    positions = {"use_rel_pos_bias": True, "use_abs_pos_emb": pool == "token"}
    original = beit.Beit(
        num_classes=5, init_values=0.1, global_pool=pool, **positions, **shape
    ).eval()
    config = transformers.BeitConfig(
        **VISION,
        layer_norm_eps=1e-6,
        use_relative_position_bias=True,
        use_absolute_position_embeddings=pool == "token",
        use_mean_pooling=pool == "avg",
    )
    model = transformers.BeitForImageClassification(config).eval()
    convert(original, model)
    image = torch.randn(2, 3, 16, 16)
    close(model(image).logits, original(image))


def test_sam(convert):
    modeling = package("segment_anything.modeling")
    encoder = modeling.ImageEncoderViT(
        img_size=32,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        out_chans=8,
        use_rel_pos=True,
        window_size=2,
        global_attn_indexes=(1,),
    )
    prompts = modeling.PromptEncoder(
        embed_dim=8, image_embedding_size=(4, 4), input_image_size=(32, 32), mask_in_chans=16
    )
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=8, mlp_dim=16, num_heads=2)
    decoder = modeling.MaskDecoder(
        transformer_dim=8, transformer=transformer, iou_head_depth=3, iou_head_hidden_dim=16
    )
    original = modeling.Sam(encoder, prompts, decoder, [0.0] * 3, [1.0] * 3).eval()
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 4,
            "mlp_dim": 64,
        },
        prompt_encoder_config={"hidden_size": 8, "image_size": 32, "patch_size": 8},
        mask_decoder_config={
            "hidden_size": 8,
            "mlp_dim": 16,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    model = transformers.SamModel(config).eval()
    convert(original, model)
    image, point = torch.randn(1, 3, 32, 32), torch.tensor([[[9.0, 20.0]]])
    label = torch.tensor([[1]])
    embedded = original.image_encoder(image)
    sparse, dense = original.prompt_encoder(points=(point, label), boxes=None, masks=None)
    place = original.prompt_encoder.get_dense_pe()
    masks, scores = original.mask_decoder(embedded, place, sparse, dense, multimask_output=True)
    ours = model(pixel_values=image, input_points=point[None], input_labels=label[None])
    close((ours.pred_masks[0], ours.iou_scores[0]), (masks, scores))


LANGUAGE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}


def lit_model(name, **given):
    lit = package("litgpt.model")
    config = importlib.import_module("litgpt.config").Config
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 16, "head_size": 8, "intermediate_size": 24}
    sizes.update(padded_vocab_size=64, vocab_size=64, block_size=32)
    return lit.GPT(config.from_name(name, **{**sizes, "n_query_groups": 2, **given})).eval()


def languages(convert, original, model):
    convert(original, model)
    tokens = torch.randint(0, 64, (2, 7))
    close(model(tokens).logits, original(tokens))


def test_llama_of_litgpt(convert):
    config = transformers.LlamaConfig(**LANGUAGE, rms_norm_eps=1e-5)
    model = transformers.LlamaForCausalLM(config).eval()
    languages(convert, lit_model("Llama-2-7b-hf"), model)


def test_mixtral_of_litgpt(convert):
    config = transformers.MixtralConfig(
        **LANGUAGE, num_local_experts=4, num_experts_per_tok=2, rope_theta=1e6, rms_norm_eps=1e-5
    )
    model = transformers.MixtralForCausalLM(config).eval()
    original = lit_model("Mixtral-8x7B-v0.1", n_expert=4, n_expert_per_token=2)
    languages(convert, original, model)


def test_qwen3_of_litgpt(convert):
    config = transformers.Qwen3Config(**LANGUAGE, rope_theta=1e6, rms_norm_eps=1e-6)
    model = transformers.Qwen3ForCausalLM(config).eval()
    languages(convert, lit_model("Qwen3-0.6B"), model)


def test_qwen2_of_litgpt(convert):
    sizes = {**LANGUAGE, "hidden_size": 32}
    config = transformers.Qwen2Config(**sizes, rope_theta=1e6, rms_norm_eps=1e-6)
    model = transformers.Qwen2ForCausalLM(config).eval()
    languages(convert, lit_model("Qwen2.5-7B", n_embd=32), model)


def test_gpt_neox_of_litgpt(convert):
    config = transformers.GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
        max_position_embeddings=32,
        rotary_pct=0.25,
    )
    model = transformers.GPTNeoXForCausalLM(config).eval()
    original = lit_model("pythia-70m", n_embd=32, n_query_groups=4)
    languages(convert, original, model)


def test_vae_of_stable_diffusion(tmp_path):
    """To the names of a single file, which diffusers' own loader reads: the same weights again."""
    diffusers = package("diffusers")
    single = package("diffusers.loaders.single_file_utils")
    model = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=2,
    ).eval()
    state = model.state_dict()
    save_file(state, tmp_path / "in.safetensors")
    config, out = dict(model.config), tmp_path / "out.safetensors"
    regraft.convert(
        tmp_path / "in.safetensors",
        out,
        rules=["sd_vae_ldm"],
        to="ldm",
        config=config,
        parameters={"levels": 2},
    )
    again = single.convert_ldm_vae_checkpoint(load_file(out), config)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
