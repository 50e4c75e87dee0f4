"""SAM 2 and 2.1, the whole model and its video part."""

from . import family, shrunk
from .converters import script


def sam2(later):
    """A tiny SAM 2 of Meta's code; `later` is what 2.1 adds."""
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.modeling.sam2_base import SAM2Base

    wide, narrow = 256, 64
    trunk = Hiera(embed_dim=16, num_heads=1, stages=(1, 1, 2, 1), global_att_blocks=(2,))
    channels = [128, 64, 32, 16]
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=wide),
        d_model=wide,
        backbone_channel_list=channels,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    rope = {"rope_theta": 10000.0, "embedding_dim": wide, "num_heads": 1, "downsample_rate": 1}
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=16,
        dropout=0.1,
        pos_enc_at_attn=False,
        self_attention=RoPEAttention(**rope),
        d_model=wide,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=RoPEAttention(**rope, rope_k_repeat=True, kv_in_dim=narrow),
    )
    memory = MemoryEncoder(
        out_dim=narrow,
        position_encoding=PositionEmbeddingSine(num_pos_feats=narrow),
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(dim=wide, kernel_size=7, padding=3), num_layers=2),
    )
    made = SAM2Base(
        image_encoder=ImageEncoder(trunk=trunk, neck=neck, scalp=1),
        memory_attention=MemoryAttention(
            d_model=wide, pos_enc_at_input=True, layer=layer, num_layers=2
        ),
        memory_encoder=memory,
        image_size=64,
        use_high_res_features_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=later,
        proj_tpos_enc_in_obj_ptrs=later,
        no_obj_embed_spatial=later,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        use_multimask_token_for_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True,
        directly_add_no_mem_embed=True,
    )
    # Each point has one row, and the script joins them.
    out = shrunk(made.state_dict())
    return out


def replace_keys(source):
    return script("sam2").replace_keys(source)


@family("sam2_meta", layout="meta")
class Sam21:
    @staticmethod
    def source():
        return sam2(True)

    convert = staticmethod(replace_keys)


@family("sam2_meta_first", layout="meta", rules="sam2_meta")
class Sam2:
    @staticmethod
    def source():
        return sam2(False)

    convert = staticmethod(replace_keys)
