#!/usr/bin/env python3
"""Make tests/fixtures/dequant: tiny quantized checkpoints, and what their own libraries make of
them.

    python3 scripts/make_dequant_fixtures.py [--awq packing_utils.py] [--gptq qlinear_cuda.py]

Needs torch, safetensors, bitsandbytes 0.50.2 and compressed-tensors 0.20.0. GPTQ and AWQ are
computed by auto-gptq 0.7.1 (`auto_gptq/nn_modules/qlinear/qlinear_cuda.py`) and AutoAWQ 0.2.7
(`awq/utils/packing_utils.py`), of which these files alone are taken, as the packages ask for CUDA.
What no package on a CPU dequantizes (ModelOpt's NVFP4, FBGEMM's and static FP8) is written out
below, with its source. Each NAME has NAME.safetensors, NAME.json (its config) and
NAME.expected.safetensors.
"""

import argparse
import importlib.util
import json
import os

import torch
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "dequant")
NORM = {"norm.weight": torch.linspace(-1, 1, 8).to(torch.bfloat16)}


def put(name, tensors, expected, quantization):
    def contiguous(found):
        return {key: value.detach().contiguous() for key, value in found.items()}

    save_file(contiguous({**tensors, **NORM}), os.path.join(OUT, f"{name}.safetensors"))
    save_file(contiguous({**expected, **NORM}), os.path.join(OUT, f"{name}.expected.safetensors"))
    with open(os.path.join(OUT, f"{name}.json"), "w") as file:
        json.dump({"model_type": "llama", "quantization_config": quantization}, file, indent=1)
        file.write("\n")


def module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def bitsandbytes():
    import bitsandbytes.functional as bnb

    weight = torch.randn(24, 40) * torch.rand(24, 1)
    codes, scb, _ = bnb.int8_vectorwise_quant(weight.half())
    expected = bnb.int8_vectorwise_dequant(codes, scb).to(torch.bfloat16)
    state = torch.tensor(0, dtype=torch.uint8)
    put(
        "bnb_int8",
        {"a.weight": codes, "a.SCB": scb, "a.weight_format": state},
        {"a.weight": expected},
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False},
    )
    for name, kind, dtype, nested, shape in [
        ("bnb_nf4", "nf4", torch.bfloat16, False, (24, 40)),
        ("bnb_fp4", "fp4", torch.float16, False, (17, 9)),
        # Rows of whole blocks: of others the kernel for a CPU takes the wrong scales.
        ("bnb_nf4_nested", "nf4", torch.bfloat16, True, (44, 384)),
    ]:
        weight = (torch.randn(shape) * torch.rand(shape[0], 1)).to(dtype)
        packed, state = bnb.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
        parts = {f"a.weight.{key}": part for key, part in state.as_dict(packed=True).items()}
        put(
            name,
            {"a.weight": packed, **parts},
            {"a.weight": bnb.dequantize_4bit(packed, state)},
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_quant_type": kind,
                "bnb_4bit_use_double_quant": nested,
            },
        )


def compressed_tensors():
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    def case(name, form, args, scale, zero=None, shape=(16, 32), shared=None):
        weights = QuantizationArgs(**args)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
        dense = (torch.randn(shape) * 0.5).to(torch.bfloat16)
        state = {"weight": dense, "weight_scale": scale(dense)}
        if zero is not None:
            state["weight_zero_point"] = zero
        if shared is not None:
            state["weight_global_scale"] = shared
        compressor = BaseCompressor.load_from_registry(form)
        packed = compressor.compress(state, scheme)
        found = compressor.decompress(dict(packed), scheme)["weight"]
        if form != "pack-quantized":
            # Of scales in F32 it is F32, and loaded into a model of BF16.
            found = found.to(torch.bfloat16)
        put(
            name,
            {f"a.{key}": part for key, part in packed.items()},
            {"a.weight": found},
            {
                "quant_method": "compressed-tensors",
                "format": form,
                "config_groups": {"group_0": {"weights": {**args}}},
            },
        )

    def largest(dims):
        return lambda w: w.float().abs().amax(dims, keepdim=True)

    fp8 = {"num_bits": 8, "type": "float", "symmetric": True}
    case(
        "ct_fp8_channel",
        "float-quantized",
        {**fp8, "strategy": "channel"},
        lambda w: (largest(1)(w) / 448).to(torch.bfloat16),
    )
    case(
        "ct_fp8_tensor",
        "float-quantized",
        {**fp8, "strategy": "tensor"},
        lambda w: (largest((0, 1))(w) / 448).reshape(1),
    )
    case(
        "ct_fp8_block",
        "float-quantized",
        {**fp8, "strategy": "block", "block_structure": [8, 16]},
        lambda w: w.float().reshape(2, 8, 2, 16).abs().amax((1, 3)) / 448,
    )
    integer = {"type": "int", "symmetric": True}
    case(
        "ct_int8_channel",
        "int-quantized",
        {**integer, "num_bits": 8, "strategy": "channel"},
        lambda w: (largest(1)(w) / 127).to(torch.bfloat16),
    )

    def group(w):
        return (w.float().reshape(16, 4, 8).abs().amax(2) / 7).to(torch.bfloat16)

    case(
        "ct_int4_group",
        "pack-quantized",
        {**integer, "num_bits": 4, "strategy": "group", "group_size": 8},
        group,
    )
    case(
        "ct_int8_packed",
        "pack-quantized",
        {**integer, "num_bits": 8, "strategy": "channel"},
        lambda w: largest(1)(w) / 127,
    )
    zero = torch.randint(-8, 8, (16, 4), dtype=torch.int8)
    case(
        "ct_int4_zero",
        "pack-quantized",
        {"type": "int", "symmetric": False, "num_bits": 4, "strategy": "group", "group_size": 8},
        group,
        zero,
    )
    shared = torch.tensor([1732.0])
    case(
        "ct_nvfp4",
        "nvfp4-pack-quantized",
        {
            "type": "float",
            "symmetric": True,
            "num_bits": 4,
            "strategy": "tensor_group",
            "group_size": 16,
        },
        lambda w: (
            (w.float().reshape(16, 2, 16).abs().amax(2) / 6 * shared)
            .to(torch.float8_e4m3fn)
            .float()
        ),
        shared=shared,
    )


def gptq(path):
    """Through a product with the identity, which is exact."""
    linear = module(path, "qlinear_cuda").QuantLinear
    for name, bits, order in [("gptq", 4, False), ("gptq_order", 4, True), ("gptq_8bit", 8, False)]:
        rows, columns, size = 64, 32, 16
        made = linear(bits, size, rows, columns, False)
        made.qweight = torch.randint(-(2**31), 2**31 - 1, made.qweight.shape, dtype=torch.int32)
        made.qzeros = torch.randint(-(2**31), 2**31 - 1, made.qzeros.shape, dtype=torch.int32)
        made.scales = (torch.rand(made.scales.shape) * 0.1).half()
        if order:
            made.g_idx = made.g_idx[torch.randperm(rows)].contiguous()
        weight = made(torch.eye(rows, dtype=torch.float16))
        tensors = {
            "a.qweight": made.qweight,
            "a.qzeros": made.qzeros,
            "a.scales": made.scales,
            "a.g_idx": made.g_idx,
        }
        put(
            name,
            tensors,
            {"a.weight": weight.t()},
            {"quant_method": "gptq", "bits": bits, "group_size": size, "desc_act": order},
        )


def awq(path):
    unpack = module(path, "packing_utils").dequantize_gemm

    def words(rows, columns):
        return torch.randint(-(2**31), 2**31 - 1, (rows, columns), dtype=torch.int32)

    qweight, qzeros = words(64, 4), words(4, 4)
    scales = (torch.rand(4, 32) * 0.1).half()
    put(
        "awq",
        {"a.qweight": qweight, "a.qzeros": qzeros, "a.scales": scales},
        {"a.weight": unpack(qweight, qzeros, scales, 4, 16).t()},
        {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"},
    )


def written_out():
    fp4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    # ModelOpt 0.29, NVFP4QTensor.dequantize: values in the dtype of the result's computation (F32),
    # scales of 16 times the scale of all, the product of both.
    packed = torch.randint(0, 256, (16, 24), dtype=torch.uint8)
    scale = torch.rand(16, 3).mul(400).to(torch.float8_e4m3fn)
    whole = torch.tensor(0.00037)
    values = fp4[torch.stack((packed & 15, packed >> 4), -1).long()].reshape(16, 3, 16)
    dense = values * (scale.float() * whole).unsqueeze(-1)
    put(
        "nvfp4",
        {
            "a.weight": packed,
            "a.weight_scale": scale,
            "a.weight_scale_2": whole,
            "a.input_scale": torch.tensor(0.25),
        },
        {"a.weight": dense.reshape(16, 48).to(torch.bfloat16)},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    )
    # transformers 5.23.0, integrations/finegrained_fp8.py, Fp8Dequantize: values as F32 times
    # scales of blocks.
    codes = (torch.randn(20, 24) * 100).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2) * 0.01
    wide = scale.repeat_interleave(8, 0)[:20].repeat_interleave(16, 1)[:, :24]
    put(
        "fp8_block",
        {"a.weight": codes, "a.weight_scale_inv": scale},
        {"a.weight": (codes.float() * wide).to(torch.bfloat16)},
        {"quant_method": "fp8", "weight_block_size": [8, 16]},
    )
    # The same with one scale for all, as static FP8 has it, and one for each row, as FBGEMM has it.
    for name, method, scale in [
        ("fp8_tensor", "fp8", torch.tensor(0.0123)),
        ("fp8_row", "fbgemm_fp8", torch.rand(20, 1) * 0.01),
    ]:
        put(
            name,
            {"a.weight": codes, "a.weight_scale": scale, "a.input_scale": torch.tensor(1.0)},
            {"a.weight": (codes.float() * scale).to(torch.bfloat16)},
            {"quant_method": method},
        )


def weight_norm():
    """What PyTorch's remove_weight_norm leaves."""
    tensors, expected = {}, {}
    for at, (shape, dim) in enumerate([((8, 5, 7), 0), ((4, 3, 1), 0), ((6, 33), 0)]):
        g, v = torch.rand(shape[0], *[1] * (len(shape) - 1)), torch.randn(shape)
        tensors |= {f"{at}.weight_g": g, f"{at}.weight_v": v}
        expected[f"{at}.weight"] = torch._weight_norm(v, g, dim)
    put("weight_norm", tensors, expected, {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--awq", help="packing_utils.py of AutoAWQ")
    parser.add_argument("--gptq", help="qlinear_cuda.py of auto-gptq")
    options = parser.parse_args()
    torch.manual_seed(20)
    torch.set_num_threads(1)
    os.makedirs(OUT, exist_ok=True)
    written_out()
    weight_norm()
    bitsandbytes()
    compressed_tensors()
    if options.gptq:
        gptq(options.gptq)
    if options.awq:
        awq(options.awq)


if __name__ == "__main__":
    main()
