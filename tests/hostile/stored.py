"""Hostile cases: weights in other formats (AWQ, GPTQ, FP8, the float modes)."""

import struct

from hostile.case import ESCAPES, NOTHING, RUN, WEIGHTS, Case, Change, both, config, edit, rule
from hostile.tensors import content, large, without

CONVERT = "convert carry"
Q = "model.layers.0.self_attn.q_proj"  # [128, 128] in all bases but the tiny model's, which has 32
NORM = "model.norm.weight"
NAN, INF = b"\x00\x7e", b"\x00\x7c"  # as float16
HUGE = 1 << 70

AWQ_CASES = [
    *(Case(f"awq {key} {str(value)[:20]!r}", "awq", rule(**{key: value}), CONVERT, f"{key}|group|format|imply")
      for key, values in {
          "bits": (2, 3, 8, 0, 4.0, True, "4", None, HUGE), "group_size": (0, -2, 64.0, True, "64",
              None, HUGE, 48, 128),
          "version": ("gemv", 7, [1], ESCAPES), "dynamic": ({"x": 1},), "is_marlin_format": (True,),
      }.items() for value in values),
    *(Case(f"quantized by {str(value)[:20]!r}", "awq", rule(quant_method=value), CONVERT, "quantiz")
      for value in ([], {}, 7, None, "bitsandbytes", ESCAPES)),
    Case("awq read as gptq", "awq", rule(quant_method="gptq"), CONVERT, "imply"),
    *(Case(f"awq {part} of {dtype} {list(shape)}", "awq", content(f"{Q}.{part}", shape, dtype), CONVERT, part)
      for part, shape, dtype in (
          ("qweight", (128, 16), "F32"), ("qweight", (128,), "I32"), ("qweight", (2, 64, 16), "I32"),
          ("qweight", (128, 0), "I32"), ("qweight", (0, 16), "I32"), ("qzeros", (16, 2), "I32"),
          ("qzeros", (2, 16), "I64"), ("scales", (128, 2), "F16"), ("scales", (2, 128), "I16"), ("scales", (), "F16"))),
    *(Case(f"awq without {part}", "awq", without(f"{Q}.{part}"), CONVERT, "missing|beside it")
      for part in ("qweight", "qzeros", "scales")),
    Case("awq beside a weight", "awq", content(f"{Q}.weight", (128, 128)), CONVERT, "both"),
    Case("awq rows of another model", "awq", content(f"{Q}.qweight", (64, 16), "I32"), CONVERT, "imply"),
    Case("awq scales NaN", "awq", content(f"{Q}.scales", (2, 128), "F16", NAN), CONVERT, "finite|NaN"),
    Case("awq scales infinite", "awq", content(f"{Q}.scales", (2, 128), "F16", INF), CONVERT, "finite|infinity"),
    Case("awq scales too large", "awq", content(f"{Q}.scales", (2, 128), "F16", b"\xff\x7b"), CONVERT, "too large"),
    Case("awq scales of zero", "awq", content(f"{Q}.scales", (2, 128), "F16"), NOTHING),
    Case("awq bias", "awq", content(f"{Q}.bias", (128,), "F16", b"\1\0"), CONVERT, "bias"),
    Case("awq bias of gigabytes", "awq", large((f"{Q}.bias", "F16", (1 << 31,))), CONVERT, "bias"),
]  # fmt: skip
INT_MIN = struct.pack("<i", -(1 << 31))
GPTQ_CASES = [
    *(Case(f"gptq {key} {value!r:.20}", "gptq", rule(**{key: value}), CONVERT, "imply|bits|format|group")
      for key, values in {
          "bits": (2, 3, 8, -4), "group_size": (HUGE, 1 << 40, 32, 0), "checkpoint_format": ("marlin", 2),
      }.items() for value in values),
    *(Case(f"{base} g_idx {what}", base, content(f"{Q}.g_idx", shape, dtype, item), CONVERT, "g_idx")
      for base in ("gptq", "scattered")
      for what, shape, dtype, item in (
          ("negative", (128,), "I32", b"\xff" * 4), ("far negative", (128,), "I32", INT_MIN),
          ("beyond the groups", (128,), "I32", b"\2\0\0\0"), ("far beyond", (128,), "I32", b"\xff\xff\xff\x7f"),
          ("too short", (127,), "I32", b""), ("of long numbers", (128,), "I64", b""), ("of floats", (128,), "F32", b""),
          ("empty", (0,), "I32", b""), ("a matrix", (1, 128), "I32", b""))),
    Case("scattered without g_idx", "scattered", without(f"{Q}.g_idx"), CONVERT, "g_idx"),
    Case("one group has it all", "gptq", content(f"{Q}.g_idx", (128,), "I32"), NOTHING),
    Case("scattered scales infinite", "scattered", content(f"{Q}.scales", (2, 128), "F16", INF), CONVERT, "infinity"),
    Case("scattered scales of zero", "scattered", content(f"{Q}.scales", (2, 128), "F16"), NOTHING),
    Case("gptq of terabytes", "gptq", both(
        without(*(f"{Q}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))),
        large((f"{Q}.qweight", "I32", (1 << 34, 8)), (f"{Q}.qzeros", "I32", (1 << 31, 1)),
            (f"{Q}.scales", "F16", (1 << 31, 8)), (f"{Q}.g_idx", "I32", (1 << 37,)))), CONVERT, "impossible shape"),
    Case("gptq zeros of another width", "gptq", content(f"{Q}.qzeros", (2, 8), "I32"), CONVERT, "qzeros"),
]  # fmt: skip
FP8_PLACES = [
    ("fp8", Q, "weight_scale_inv", WEIGHTS),
    ("compressed", Q, "weight_scale", WEIGHTS),
    ("native fp8", "layers.0.attention.wq", "qscale_weight", "consolidated.safetensors"),
]
FP8_CASES = [
    *(Case(f"fp8 blocks of {value!r:.30}", "fp8", rule(weight_block_size=value), CONVERT, "scale|block")
      for value in ([0, 48], [48], [48, 80, 1], "x",
          7, [48.0, 80.0], [True, 1], [-48, 80], [HUGE, HUGE], [1, 1], None)),
    *(Case(f"fp8 {key} {value!r:.20}", "fp8", rule(**{key: value}), CONVERT, "FP8")
      for key, value in (("fmt", "e5m2"), ("fmt", []), ("quant_method", "compressed-tensors"))),
    *(Case(f"compressed {key} {value!r:.80}", "compressed", rule(**{key: value}), CONVERT, "FP8|block")
      for key, values in {
          "format": (None, 7, ESCAPES, "int-quantized"),
          "config_groups": (None, [], {}, {"a": 1}, {"a": {}, "b": {}}, {"a": {"weights": []}},
              {"a": {"weights": {"type": "int", "num_bits": 8}}}, {"a": {"weights": {"type": "float", "num_bits": 4}}},
              {"a": {"weights": {"type": "float", "num_bits": 8, "block_structure": "x"}}}),
      }.items() for value in values),
    *(Case(f"native fp8 rule {value!r:.30}", "native fp8",
        edit("params.json", lambda p, v=value: p.update(quantization=v)), CONVERT, "quantization")
      for value in (7, "fp8", [1], {"qformat_weight": "int8"}, {"qformat_weight": ["fp8_e4m3"]})),
    *(Case(f"{base} without scales", base, without(f"{path}.{scale}", file=file), CONVERT, "0 scales")
      for base, path, scale, file in FP8_PLACES),
    *(Case(f"{base} scales {what}", base, content(f"{path}.{scale}", shape, "F32", item, file), CONVERT, said)
      for base, path, scale, file in FP8_PLACES
      for what, shape, item, said in (
          ("NaN", (1,), b"\0\0\xc0\x7f", "NaN"), ("infinite", (1,), b"\0\0\x80\x7f", "infinity"),
          ("too large", (1,), b"\xff\xff\x7f\x7f", "NaN or infinity|more than"),
              ("of too many", (999,), b"", "does not scale"),
          ("of no rows", (0,), b"", "does not scale"), ("in four dimensions", (1, 1, 1, 1), b"", "does not scale"))),
    Case("fp8 scales of zero", "fp8", content(f"{Q}.weight_scale_inv", (1,)), NOTHING),
    Case("fp8 scales of integers", "fp8", content(f"{Q}.weight_scale_inv", (1,), "I32"), CONVERT, "does not scale"),
    Case("fp8 with two scales", "fp8", content(f"{Q}.weight_scale", (1,)), CONVERT, "2 scales"),
    Case("fp8 scales of nothing", "fp8", content("x.weight_scale_inv", (1,)), CONVERT, "beside it"),
    Case("fp8 codes of NaN", "fp8", content(f"{Q}.weight", (128, 128), "F8_E4M3", b"\x7f"), CONVERT, "NaN"),
    Case("fp8 in three dimensions", "fp8", content(f"{Q}.weight", (128, 64, 2), "F8_E4M3"), CONVERT, "no matrix"),
    Case("fp8 of no rows", "fp8", content(f"{Q}.weight", (0, 128), "F8_E4M3"), CONVERT, "impossible shape"),
    Case("fp8 norm", "fp8", content(NORM, (128,), "F8_E4M3"), CONVERT, "scales"),
    Case("fp8 of the other kind", "fp8", content(f"{Q}.weight", (128, 128), "F8_E5M2"), CONVERT, "F8_E5M2|beside it"),
    Case("fp8 activations NaN", "fp8", content(f"{Q}.activation_scale", (), "F32", b"\xff" * 4), NOTHING),
]  # fmt: skip


def modes(**values: object) -> Change:
    """Set keys of both rules in config.json."""
    return edit("config.json", lambda c: [c[key].update(values) for key in ("quantization", "quantization_config")])


MODE = "bits|mode|quantiz|implies|use"
MODE_CASES = [
    *(Case(f"mode {value!r:.20}", "mxfp4", modes(mode=value), "info complete", MODE)
      for value in ("mxfp5", 4, [], {}, None, ESCAPES, "affine", "MXFP4", "mxfp8", "nvfp4", "x" * 99999)),
    *(Case(f"mxfp4 {key} {value!r:.20}", "mxfp4", modes(**{key: value}), "info complete", MODE)
      for key, value in (("bits", 8), ("bits", 4.0), ("group_size", 16), ("group_size", True), ("group_size", -32),
          ("global_scale", 2.0), (Q, {"mode": "nvfp4"}), (Q, {"mode": 7}), (Q, {"mode": "affine", "bits": 7}))),
    *(Case(f"modules that are not there {rules!r:.40}", "mxfp4", modes(**rules), NOTHING)
      for rules in ({"model.layers.99.x": {"bits": 4, "group_size": 32}}, {"no.such": {"mode": "nvfp4"}}, {Q: 7},
          {"../x": {"mode": "mxfp8"}}, {ESCAPES: {"mode": "mxfp8"}}, {f"m{i}": {"bits": 8} for i in range(9999)})),
    *(Case(f"{mode} scales {what}", mode, content(f"{Q}.scales", shape, dtype, item), refused, said)
      for mode, columns in (("mxfp4", 1), ("nvfp4", 2))
      for what, shape, dtype, item, refused, said in (
          ("of floats", (32, columns), "F32", b"", "info complete", "implies"),
          ("for fewer rows", (31, columns), "U8", b"", "info complete", "implies"),
          ("for more groups", (32, columns + 1), "U8", b"", "info complete", "implies"),
          ("of none", (32, 0), "U8", b"", "info complete", "implies|impossible"),
          ("of zero", (32, columns), "U8", b"", NOTHING, ""), ("NaN", (32, columns), "U8", b"\xff", RUN, "NaN"),
          ("of the largest", (32, columns), "U8", b"\xfe", RUN if mode == "mxfp4" else NOTHING, "NaN"))),
    Case("mxfp4 with biases", "mxfp4", content(f"{Q}.biases", (32, 1), "U8"), "info complete", "does not use"),
    Case("mxfp4 without scales", "mxfp4", without(f"{Q}.scales"), "info complete", "implies"),
    Case("mxfp4 with nothing said", "mxfp4", config(quantization=None, quantization_config=None), "info complete",
        "quantization"),
    Case("mxfp4 codes of floats", "mxfp4", content(f"{Q}.weight", (32, 4), "F32"), "info complete", "implies"),
]  # fmt: skip
STORED_CASES = [*AWQ_CASES, *GPTQ_CASES, *FP8_CASES, *MODE_CASES]
