"""Hostile cases: adapters, and texts to calibrate with."""

import json
import os
import shutil
import struct
from pathlib import Path

from hostile.case import (
    CALIBRATE,
    CODE,
    ESCAPES,
    MERGE,
    NOTHING,
    PICKLE,
    Case,
    Change,
    both,
    cut,
    edit,
    instead,
    nested,
    outside,
    put,
    raw,
    remove,
    sparse,
)
from hostile.tensors import content, join, large, split, without

CONFIG = "adapter_config.json"
PEFT, MLX = "adapter_model.safetensors", "adapters.safetensors"
PATH = "model.layers.0.self_attn.q_proj"  # [128, 128], of rank 4
A, B, M = (f"base_model.model.{PATH}.{part}" for part in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"))
NAN, INF = b"\0\0\xc0\x7f", b"\0\0\x80\x7f"
HUGE = 1 << 70


def adapter(**values: object) -> Change:
    """Set keys of adapter_config.json."""
    return edit(CONFIG, lambda value: value.update(values))


def parameters(**values: object) -> Change:
    """Set keys of what mlx-lm says of LoRA."""
    return edit(CONFIG, lambda value: value["lora_parameters"].update(values))


def renamed(old: str, new: str, file: str = PEFT) -> Change:
    """Give a tensor, or all that begin with `old`, another name."""

    def apply(folder: Path) -> None:
        text, data = split(folder / file)
        value = {name.replace(old, new): entry for name, entry in json.loads(text).items()}
        join(folder / file, json.dumps(value).encode(), data)

    return apply


def with_model(folder: Path) -> None:
    """Put the model into the adapter's folder."""
    for path in (folder.parent / "base").iterdir():
        shutil.copy(path, folder)


def many(folder: Path) -> None:
    """More tensors than a model has, and lists of what they are to be looked up in."""
    names = [f"base_model.model.model.layers.{i}.x.lora_{part}.weight" for i in range(15_000) for part in "AB"]
    header = {n: {"dtype": "F16", "shape": [1, 1], "data_offsets": [2 * i, 2 * i + 2]} for i, n in enumerate(names)}
    join(folder / PEFT, json.dumps(header).encode(), bytes(2 * len(names)))
    long = {"layers_to_transform": [*range(99_999, -1, -1)], "rank_pattern": {f"p{i}": 1 for i in range(100_000)}}
    adapter(r=1, lora_alpha=1, **long)(folder)


BOTH = ("peft", "mlx adapter")
FILES = {"peft": PEFT, "mlx adapter": MLX}
ADAPTER_CASES = [
    *(Case(f"{base} of a pickle alone", base, both(remove(FILES[base]), put("adapter_model.bin", PICKLE)), MERGE,
        "never opened") for base in BOTH),
    *(Case(f"{base} beside a pickle and code", base, both(put("adapter_model.bin", PICKLE), put("x.py", CODE),
        put("__init__.py", CODE), adapter(auto_mapping={"a": "x.M"})), NOTHING) for base in BOTH),
    *(Case(f"{base} that is a pickle", base, put(FILES[base], PICKLE * 9), MERGE, "not a whole") for base in BOTH),
    Case("adapters of numpy", "mlx adapter", both(remove(MLX), put("adapters.npz", PICKLE)), MERGE, "never opened"),
    Case("no adapter", "peft", remove(PEFT), MERGE, "no adapter in"),
    Case("two adapters", "peft", lambda f: shutil.copy(f / PEFT, f / MLX), MERGE, "holds both"),
    Case("a model for an adapter", "peft", both(remove(PEFT, CONFIG), with_model), MERGE, "no adapter in"),
    Case("an adapter and its model in a folder", "peft", with_model, NOTHING),
    *(Case(f"{name} of {base} is a link out", base, outside(name), MERGE, "link out of")
      for base in BOTH for name in (CONFIG, FILES[base])),
    *(Case(f"{name} of {base} is a {kind}", base, instead(name, make), MERGE, "missing|regular|no adapter")
      for base in BOTH for name in (CONFIG, FILES[base]) for kind, make in (("FIFO", os.mkfifo),
          ("directory", os.mkdir))),
    *(Case(f"{base} cut", base, cut(FILES[base], 1), MERGE, "cut short") for base in BOTH),
    *(Case(f"{base} with a header of 100 MB", base, sparse(FILES[base], 200 << 20, struct.pack("<Q", 100 << 20)), MERGE,
        "header of") for base in BOTH),
    *(Case(f"{base} config {what}", base, change, MERGE, "JSON|plausible|items|UTF-8")
      for base in BOTH for what, change in (
          ("of 100 MB", sparse(CONFIG, 100 << 20, b"{")), ("empty", put(CONFIG, b"")), ("a list", put(CONFIG, "[1]")),
          ("nested", put(CONFIG, '{"a":' + nested(5000) + "}")), ("cut", cut(CONFIG, 3)),
              ("in bytes", put(CONFIG, b'"\xff')))),
    Case("alpha NaN", "peft", raw(CONFIG, '"lora_alpha": 6', '"lora_alpha": NaN'), MERGE, "JSON"),
    Case("alpha infinite", "peft", raw(CONFIG, '"lora_alpha": 6', '"lora_alpha": 1e999'), MERGE, "JSON"),
    *(Case(f"peft {key} {value!r:.30}", "peft", adapter(**{key: value}), MERGE, key)
      for key, values in {
          "r": (0, -4, 4.0, True, "4", None, HUGE, 4097, 5), "lora_alpha": (None, True, "6", [6], 1e300, -1e39),
          "peft_type": ("IA3", None, [], ESCAPES), "bias": ("all", 1, []), "init_lora_weights": ("pissa", [1], ESCAPES),
          "use_dora": (1, "x"), "use_rslora": (1, []), "rank_pattern": ([1], "x", {".*": 4}, {"^": 1}),
          "alpha_pattern": ({"(a|a)*b": 1}, 7), "layers_to_transform": ("x", [True], [[]], 5, [HUGE]),
          "modules_to_save": (7, [7], {}), "lora_bias": (True,), "trainable_token_indices": ([1],),
          "megatron_config": ({"a": 1},), "layer_replication": ([[0, 1]],), "fan_in_fan_out": (True,)
      }.items() for value in values if (key, value) not in (("modules_to_save", {}),)),
    Case("a key of escapes", "peft", adapter(**{ESCAPES: 1}), MERGE, "does not implement"),
    Case("a pattern of rank 0", "peft", adapter(rank_pattern={"q_proj": 0}), MERGE, "r is 0"),
    Case("dora without magnitudes", "peft", adapter(use_dora=True), MERGE, "missing"),
    Case("magnitudes without dora", "dora", adapter(use_dora=False), MERGE, "not expected"),
    *(Case(f"peft {what}", "peft", content(name, shape, dtype, item, PEFT), MERGE, said)
      for what, name, shape, dtype, item, said in (
          ("A of another rank", A, (5, 128), "F32", b"", "says rank"),
              ("A the wrong way round", A, (128, 4), "F32", b"", "rank"),
          ("B of another model", B, (256, 4), "F32", b"", "another model"),
              ("A as a vector", A, (4,), "F32", b"", "another"),
          ("A as a number", A, (), "F32", b"", "rank"), ("A with no columns", A, (4, 0), "F32", b"", "another"),
          ("A of whole numbers", A, (4, 128), "I32", b"", "stored as I32"),
              ("A of FP8", A, (4, 128), "F8_E4M3", b"", "stored as"),
          ("A NaN", A, (4, 128), "F32", NAN, "NaN"), ("B infinite", B, (128, 4), "F32", INF, "infinity"),
          ("B huge", B, (128, 4), "F32", b"\xff\xff\x7f\x7f", "NaN or infinity|more than|too large"),
          ("unknown tensor", "x", (1,), "F32", b"", "does not begin"),
          ("tensor up", "base_model.model.../../x.lora_A.weight", (4, 128), "F32", b"", "missing|does not have"),
          ("whole tensor nobody saved", "base_model.model.lm_head.weight", (64, 128), "F32", b"", "modules_to_save"),
          ("A twice", f"base_model.model.{PATH}.lora_A", (4, 128), "F32", b"", "twice"),
      )),
    *(Case(f"peft for {new!r:.20}", "peft", renamed(PATH, new), MERGE, "does not have|neither|has a name")
      for new in ("../../x", ESCAPES, "model.layers.99.self_attn.q_proj", "",
          "x" * 9999, "model.layers." + "9" * 5000 + ".x")),
    *(Case(f"dora magnitudes {what}", "dora", content(M, shape, dtype, item, PEFT), refused, said)
      for what, shape, dtype, item, refused, said in (
          ("of zero", (128,), "F32", b"", NOTHING, ""), ("NaN", (128,), "F32", NAN, MERGE, "NaN"),
          ("infinite", (128,), "F32", INF, MERGE, "infinity"), ("of whole numbers", (128,),
              "I32", b"", MERGE, "stored as"),
          ("huge", (128,), "F32", b"\xff\xff\x7f\x7f", NOTHING, ""),
          ("for fewer rows", (127,), "F32", b"", MERGE, "magnitudes"),
              ("as a matrix", (128, 1), "F32", b"", MERGE, "magnitudes"))),
    Case("many tensors and long lists", "peft", many, MERGE),
    Case("a tensor of terabytes", "peft", both(without(A, file=PEFT), large((A, "F32", (4, 1 << 38)), file=PEFT)),
        MERGE, "another model"),
    Case("a tokenizer of its own", "peft", put("tokenizer.model", PICKLE), MERGE, "sentencepiece"),
    Case("a tokenizer that is a link out", "peft", outside("tokenizer.json"), MERGE, "link out of"),
    *(Case(f"mlx-lm {key} {value!r:.30}", "mlx adapter", adapter(**{key: value}), MERGE, said)
      for key, values, said in (
          ("fine_tune_type", ("x", None, [], "dora", "full"), "fine_tune_type|missing|does not have"),
          ("lora_parameters", (None, [], 7, {"rank": 4}, {"x": 1}), "lora_parameters"),
          ("num_layers", (None, "x", 1.0, True, 1), "num_layers"))
      for value in values),
    *(Case(f"mlx-lm lora {key} {value!r:.30}", "mlx adapter", parameters(**{key: value}), MERGE, key)
      for key, values in {
          "rank": (0, -1, 4.0, None, HUGE, 8), "scale": (None, "x", True, 1e300),
              "keys": ("x", [7], ["mlp.up_proj"], {}, []),
          "x": (1,),
      }.items() for value in values),
    Case("mlx-lm layers of many digits", "mlx adapter", renamed("model.layers.0.",
        "model.layers." + "9" * 5000 + ".", MLX),
        MERGE),
    Case("mlx-lm names that lead up", "mlx adapter", renamed(PATH, "../x", MLX), MERGE, "does not have"),
    Case("mlx-lm A of another shape", "mlx adapter", content(f"{PATH}.lora_a", (128, 5), file=MLX), MERGE, "rank"),
    Case("mlx-lm B NaN", "mlx adapter", content(f"{PATH}.lora_b", (4, 128), item=NAN, file=MLX), MERGE, "NaN"),
]  # fmt: skip
TEXT = "../home/text"
TEXT_CASES = [
    Case(f"a text {what}", "text", change, CALIBRATE, said)
    for what, change, said in (
        ("that is empty", put(TEXT, b""), "empty"), ("of blanks", put(TEXT, " \n" * 999), "empty"),
        ("of bytes", put(TEXT, b"\x80\xff" * 999), "UTF-8"), ("that is too short", put(TEXT, "Hello"), "tokens"),
        ("that is a FIFO", instead(TEXT, os.mkfifo), "regular|not a file"),
        ("that is a directory", instead(TEXT, os.mkdir), "regular|directory"),
        ("that is missing", remove(TEXT), "cannot be read"),
        ("that is a device", instead(TEXT, lambda path: path.symlink_to("/dev/zero")), "regular|not a file"),
    )
] + [
    Case("a text of one long word", "text", put(TEXT, b"a" * 300_000), NOTHING),
    Case("a text of a terabyte", "text", sparse(TEXT, 1 << 40), NOTHING),
    Case("a text of control codes", "text", put(TEXT, "\x1b[2J\x9b[INST]</s><s>" * 999), NOTHING),
    Case("a text and a tokenizer that is a link out", "text", outside("tokenizer.model"), CALIBRATE, "link out of"),
    Case("a text and a pickled tokenizer", "text", put("tokenizer.model", PICKLE), CALIBRATE, "sentencepiece"),
    Case("a text and no tokenizer", "text", remove("tokenizer.model"), CALIBRATE, "tokenizer"),
]  # fmt: skip
