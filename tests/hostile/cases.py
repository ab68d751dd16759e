"""The hostile set: a row for each fault of a model folder, a GGUF file or a saved session."""

import os
import struct

from hostile.adapters import ADAPTER_CASES, TEXT_CASES
from hostile.case import (
    ALL,
    CODE,
    ESCAPES,
    GGUF,
    NOTHING,
    PICKLE,
    RUN,
    USE,
    WEIGHTS,
    Case,
    both,
    config,
    cut,
    edit,
    gguf,
    instead,
    nested,
    outside,
    place,
    put,
    raw,
    remove,
    sparse,
)
from hostile.gguf import KINDS_CASES, PARTS_CASES
from hostile.mixtures import MIXTURE_CASES
from hostile.stored import STORED_CASES
from hostile.tensors import header, raw_header, retyped
from hostile.texts import GGUF_CASES, SESSION_CASES, TEKKEN_CASES, TEMPLATE_CASES, TOKENIZER_CASES

HEAD, NORM, EMBED = "lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"
HUGE = 1 << 63

CODE_CASES = [
    Case("pickles beside a good model", "plain", put("pytorch_model.bin", PICKLE), NOTHING),
    Case("pickles alone", "plain", both(remove(WEIGHTS), put("pytorch_model.bin", PICKLE)), ALL, "pickle"),
    Case("a pickle of Mistral's", "plain", both(remove(WEIGHTS), put("consolidated.00.pth", PICKLE)), ALL),
    Case("a pickle called safetensors", "plain", put(WEIGHTS, PICKLE * 9), ALL, "not a whole safetensors file"),
    Case("a pickle called gguf", "gguf", gguf(PICKLE), GGUF, "not a GGUF file"),
    Case("a pickle in the index", "sharded", place(HEAD, "pytorch_model.bin"), ALL, "not a safetensors file"),
    Case("a pickled tokenizer", "plain", put("tokenizer.model", PICKLE), USE, "not a sentencepiece model"),
    Case("python files", "plain", both(*(put(f"{name}.py", CODE) for name in
         ("modeling_mistral", "tokenization", "__init__", "json", "mlx", "sentencepiece", "conftest"))), NOTHING),
    Case("model_file", "plain", both(config(model_file="x.py"), put("x.py", CODE)), "info complete", "model_file"),
    Case("auto_map", "plain", both(config(auto_map={"AutoModel": "x.M"}), put("x.py", CODE)), "info complete",
        "auto_map"),
    Case("auto_map of the tokenizer", "json", edit("tokenizer_config.json", lambda c: c.update(auto_map={"A": "x.T"})),
         NOTHING),
    Case("shared objects", "plain", both(put("_ext.so", b"\x7fELF"), put("libmlx.so", b"\x7fELF")), NOTHING),
]  # fmt: skip
PATH_CASES = [
    Case("weight_map up", "sharded", place(HEAD, "../outside.safetensors"), ALL, "not a plain file name"),
    Case("weight_map absolute", "sharded", place(HEAD, "/etc/x.safetensors"), ALL, "not a plain file name"),
    Case("weight_map below", "sharded", place(HEAD, "sub/x.safetensors"), ALL, "not a plain file name"),
    Case("weight_map backwards", "sharded", place(HEAD, "..\\x.safetensors"), ALL, "missing"),
    Case("weight_map with a zero byte", "sharded", place(HEAD, "\0x.safetensors"), ALL,
        "missing|not a plain file name"),
    Case("weight_map of escapes", "sharded", place(HEAD, f"{ESCAPES}.safetensors"), ALL, "not a plain"),
    Case("weight_map too long", "sharded", place(HEAD, "x" * 5000 + ".safetensors"), ALL, "missing"),
    Case("weight_map of half a character", "sharded", place(HEAD, "\ud800.safetensors"), ALL),
    Case("weight_map of a number", "sharded", place(HEAD, 7), ALL, "not a safetensors file"),
    Case("weight_map of a tensor elsewhere", "sharded", place("no.such", "model-00001-of-00002.safetensors"), ALL),
    Case("weight_map is a list", "sharded", edit(INDEX, lambda i: i.update(weight_map=[1])), ALL, "no weight_map"),
    Case("a loop of links", "plain", instead(WEIGHTS, lambda path: path.symlink_to(path.name)), ALL),
    Case("a link to nowhere", "plain", instead("config.json", lambda path: path.symlink_to("gone")), ALL,
        "missing|regular"),
    Case("a device", "plain", instead("config.json", lambda path: path.symlink_to("/dev/zero")), ALL,
        "not a regular file"),
    Case("a device as weights", "plain", instead(WEIGHTS, lambda path: path.symlink_to("/dev/zero")), ALL),
    Case("files of the system", "plain", instead("config.json", lambda p: p.symlink_to("/etc/passwd")), ALL,
        "link out of"),
    Case("a folder of the system", "plain", instead(WEIGHTS, lambda path: path.symlink_to("/etc")), ALL),
]  # fmt: skip
OPENED = {  # the files the program opens, by the base that has them, and who refuses them when they lead elsewhere
    "plain": {"config.json": ALL, WEIGHTS: ALL, "generation_config.json": ALL, "tokenizer.model": USE},
    "sharded": {INDEX: ALL, "model-00001-of-00002.safetensors": ALL},
    "json": dict.fromkeys(
        "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json chat_template.jinja".split(),
        USE,
    ),
    "gguf": {"model.gguf": GGUF},
}
FILE_CASES = [
    Case(f"{name} is a link out", base, outside(name), refused, "link out of")
    for base, names in OPENED.items()
    for name, refused in names.items()
]
NO_FILE_CASES = [
    Case(f"{name} is a {kind}", base, instead(name, make), refused)
    for base, names in {
        "plain": {"config.json": ALL, WEIGHTS: ALL, "tokenizer.model": RUN, "generation_config.json": NOTHING},
        "sharded": {INDEX: ALL, "model-00001-of-00002.safetensors": ALL},
        "json": {"tokenizer.json": RUN},
        "gguf": {"model.gguf": GGUF},
    }.items()
    for name, refused in names.items()
    for kind, make in (("FIFO", os.mkfifo), ("directory", os.mkdir))
]
SAFETENSORS_CASES = [
    Case("weights cut by a byte", "plain", cut(WEIGHTS, 1), ALL, "cut short"),
    Case("weights cut to the header", "plain", cut(WEIGHTS, -9), ALL, "not a whole safetensors file"),
    Case("weights empty", "plain", put(WEIGHTS, b""), ALL, "not a whole safetensors file"),
    Case("a byte too many", "plain", lambda f: put(WEIGHTS, (f / WEIGHTS).read_bytes() + b"x")(f), ALL, "damaged"),
    Case("a shard cut by a byte", "sharded", cut("model-00002-of-00002.safetensors", 1), ALL, "cut short"),
    Case("a shard missing", "sharded", remove("model-00002-of-00002.safetensors"), ALL, "missing"),
    Case("a header of 100 MB", "plain", sparse(WEIGHTS, 200 << 20, struct.pack("<Q", 100 << 20)), ALL, "header of"),
    Case("a header of 2^63", "plain", put(WEIGHTS, struct.pack("<Q", HUGE) + b"{}"), ALL, "header of"),
    Case("a header of zeros", "plain", sparse(WEIGHTS, 7 << 20, struct.pack("<Q", 6 << 20)), ALL, "not valid JSON"),
    Case("an index of 100 MB", "sharded", sparse(INDEX, 100 << 20, b"{"), ALL, "not plausible"),
    Case("headers of many shards", "sharded", lambda f: [
        [sparse(f"{i}.safetensors", 4 << 20, struct.pack("<Q", 3 << 20))(f) for i in range(99)],
        edit(INDEX, lambda index: index.update(weight_map={str(i): f"{i}.safetensors" for i in range(99)}))(f)],
        ALL, "not plausible"),
    Case("a name twice", "plain", raw_header(b'"lm_head.weight"', b'"model.norm.weight"'), ALL, "twice"),
    Case("a name twice in the index", "sharded", raw(INDEX, HEAD, NORM), ALL, "twice"),
    *(Case(f"shape {shape}", "plain", header(lambda h, shape=shape: h[NORM].update(shape=shape)), ALL, "norm")
      for shape in ([-1], [2**70], [1.5], [True], [32.0], ["32"], [], None, [[32]], [2**62, 4], [1] * 99, [0], [64])),
    *(Case(f"offsets {offsets}", "plain", header(lambda h, offsets=offsets: h[NORM].update(data_offsets=offsets)), ALL)
      for offsets in ([HUGE, HUGE + 128], [-128, 0], [0, 128], [128, 0], [0, 2**70], [0.0, 128.0], [0], None, "x")),
    *(Case(f"dtype {dtype!r}", "plain", header(lambda h, dtype=dtype: h[NORM].update(dtype=dtype)), ALL)
      for dtype in ("F128", "I32", "f32", 7, None, ["F32"], ESCAPES)),
    Case("a tensor with a key too many", "plain", header(lambda h: h[NORM].update(x=1)), ALL, "is not described by"),
    Case("a tensor that is a text", "plain", header(lambda h: h.update({NORM: "x"})), ALL, "is not described by"),
    Case("a tensor of another name", "plain", header(lambda h: h.update({ESCAPES: h.pop(NORM)})), ALL),
    Case("scales nobody asked for", "plain", header(lambda h: h.update({"model.norm.scales": h.pop(NORM)})), ALL),
    Case("header nested", "plain", raw_header(b'"dtype"', f'"x":{nested(5000)},"dtype"'.encode()), ALL, "nested|JSON"),
    Case("header not UTF-8", "plain", raw_header(b"lm_head", b"lm_h\xffad"), ALL, "UTF-8"),
    Case("header of another kind", "plain", lambda f: put(WEIGHTS, struct.pack("<Q", 2) + b"[]")(f), ALL,
        "JSON object"),
]  # fmt: skip
CONFIG_CASES = [
    *(Case(f"{key} {str(value)[:30]}", "plain", config(**{key: value}), ALL, f"{key}|already quantized")
      for key, values in {
          "hidden_size": (-1, 0, 2**70, 32.0, True, "32", None, [32]),
          "num_hidden_layers": (0, -1, 10**9, 1e3, True),
          "num_attention_heads": (0, 3, 2**40), "num_key_value_heads": (0, -2, 3, 2**63),
          "head_dim": (0, -8, 7, 2**62), "intermediate_size": (0, 2**21), "vocab_size": (0, -1, 2**33),
          "sliding_window": (-1, 0, 2**31, 1.5, True, [], [None, 0], "8"), "rms_norm_eps": (0, -1e-5, "x", True),
          "rope_theta": (0, -1, None, [1]), "max_position_embeddings": (0, -1, 2**70, 1e6),
          "eos_token_id": (-1, 1.5, "2", [None]), "tie_word_embeddings": (1, "no"), "layer_types": ([], [[]], 7, "x"),
          "model_type": ("gpt2", 7, None, ["mistral"], ESCAPES), "quantization": ({"bits": 7}, [1], "x",
              {"bits": 4.0, "group_size": 64.0}, {"bits": True, "group_size": 64}, {"bits": [4], "group_size": {}}),
          "rope_scaling": ({"type": "yarn"}, {"type": "yarn", "factor": 2, "original_max_position_embeddings": 0},
              {"type": "dynamic", "factor": 2}, {"type": ["yarn"]}, 7), "text_config": ([1], "x"), "num_experts": (8,),
      }.items() for value in values if (key, value) != ("rope_theta", None)),
    *(Case(f"config {what[:16]} of {len(what)}", "plain", raw("config.json", '"rope_theta": 10000.0',
        f'"rope_theta": {what}'), ALL, "JSON")
      for what in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "1" * 200, nested(100),
          nested(100_000),
                   "1, \"rope_theta\": 2", "", "\"\ud800\"".encode("utf-8", "surrogatepass").hex(), '"\\ud800"')),
    Case("config cut short", "plain", cut("config.json", 5), ALL, "JSON"),
    Case("config empty", "plain", put("config.json", b""), ALL, "JSON"),
    Case("config not UTF-8", "plain", put("config.json", b'{"a": "\xff"}'), ALL, "UTF-8"),
    Case("config of zeros", "plain", sparse("config.json", 1 << 30), ALL, "not plausible"),
    Case("config of lists", "plain", put("config.json", '{"a": [' + "[]," * 5_000_000 + "[]]}"), ALL, "items"),
    Case("config of one text", "plain", raw("config.json", '"mistral"', '"' + "\\u001b" * 3_000_000 + '"'), ALL,
        "model_type"),
    Case("config with a giant key", "plain", raw("config.json", '"rope_theta"', '"' + "rope" * 900_000 + '"'), ALL,
        "rope"),
    Case("infinity where nothing reads it", "plain", raw("config.json", '"mistral"',
        '"mistral", "attention_dropout": 1e999'),
         ALL, "too large"),
    Case("nesting where nothing reads it", "plain", raw("config.json", '"mistral"', f'"mistral", "x": {nested(900)}'),
        ALL),
    Case("generation_config nested", "plain", put("generation_config.json", '{"a":' + nested(5000) + "}"), ALL),
    Case("generation_config of odd ids", "plain", put("generation_config.json",
        '{"eos_token_id": [-1, 1e3, true, 9]}'),
         NOTHING),
]  # fmt: skip
Q = "model.layers.0.self_attn.q_proj"
NATIVE_WEIGHTS = "consolidated-00001-of-00002.safetensors"
NATIVE_CASES = [
    *(Case(f"params {key} {str(value)[:20]}", "native", edit("params.json", lambda p, k=key,
        v=value: p.update({k: v})), ALL)
      for key, values in {
          "dim": (0, -1, 128.0, True, 2**70, None), "n_layers": (0, 10**9, 1e9), "head_dim": (0, 7, 2**62),
          "n_heads": (0, 3, 2**40), "n_kv_heads": (0, 3, "2"), "norm_eps": (0, "x", True), "vocab_size": (-1, 2**40),
          "rope_theta": (0, -1, [1]), "sliding_window": (-1, 0, [], [8, "x"]), "moe": ({"num_experts": 8},),
          "model_type": ("mamba", []), "tied_embeddings": (1, "x"),
      }.items() for value in values),
    Case("params NaN", "native", raw("params.json", "10000.0", "NaN"), ALL, "JSON"),
    Case("params infinite", "native", raw("params.json", "10000.0", "1e999"), ALL, "JSON"),
    Case("params nested", "native", put("params.json", '{"dim": ' + nested(5000) + "}"), ALL, "JSON"),
    Case("params is a link out", "native", outside("params.json"), ALL, "link out of"),
    Case("a native shard is a link out", "native", outside(NATIVE_WEIGHTS), ALL, "link out of"),
    Case("a native shard cut by a byte", "native", cut(NATIVE_WEIGHTS, 1), ALL, "cut short"),
    Case("a native index that leads up", "native", edit("consolidated.safetensors.index.json",
        lambda i: i["weight_map"].update({"norm.weight": "../x.safetensors"})), ALL, "not a plain file name"),
    Case("a native pickle", "native", put("consolidated.00.pth", PICKLE), NOTHING),
]  # fmt: skip
PACKED_CASES = [
    Case("scales and biases of two dtypes", "packed", retyped(f"{Q}.biases", "F16"), ALL, "already quantized|biases"),
    Case("packed weights of another dtype", "packed", header(lambda h: h[f"{Q}.weight"].update(dtype="I32")), ALL),
    Case("scales that are missing", "packed", header(lambda h: h.update(x=h.pop(f"{Q}.scales"))), ALL),
    *(Case(f"packed as {rule}", "packed", config(quantization=rule, quantization_config=rule), ALL,
        "quantiz|implies|has scales|cannot be packed|does not use")
      for rule in (
          None, {"bits": 4, "group_size": 64}, {"bits": 8, "group_size": 32}, {"bits": 7, "group_size": 32},
          {"bits": -4, "group_size": 32}, {"bits": 4, "group_size": 0}, {"bits": 4, "group_size": 48},
          {"bits": 4.0, "group_size": 32.0}, {"bits": 4, "group_size": 32, "mode": "mxfp4"},
          {"bits": 4, "group_size": 32, Q: {"bits": 2, "group_size": 32}}, {"bits": 4, "group_size": 32, Q: {}},
      )),
]  # fmt: skip
CASES = [
    *CODE_CASES, *PATH_CASES, *FILE_CASES, *NO_FILE_CASES, *SAFETENSORS_CASES, *CONFIG_CASES, *PACKED_CASES,
    *NATIVE_CASES, *TEMPLATE_CASES, *TOKENIZER_CASES, *GGUF_CASES, *TEKKEN_CASES, *SESSION_CASES, *STORED_CASES,
    *PARTS_CASES, *KINDS_CASES, *ADAPTER_CASES, *TEXT_CASES, *MIXTURE_CASES,
]  # fmt: skip
