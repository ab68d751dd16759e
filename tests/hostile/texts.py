"""Hostile cases: chat templates, tokenizers, GGUF files and saved sessions."""

import os
import struct

from hostile.case import (
    CHAT,
    ESCAPES,
    GGUF,
    RUN,
    USE,
    Case,
    cut,
    edit,
    gguf,
    gguf_header,
    instead,
    outside,
    put,
    session,
    sparse,
    template,
    tensor,
    text,
)

HUGE = 1 << 63
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}"
REACH = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
TEMPLATE_CASES = [
    Case(f"template {name}", "json", template(code), RUN, "template")
    for name, code in {
        "loops": LOOP, "reaches for attributes": REACH, "asks for terabytes": "{{ 'x' * 999999999999 }}",
        "powers": "{{ 9 ** 9 ** 9 }}", "formats": "{{ '%99999999999d' % 1 }}", "imports": "{% import 'x' as y %}",
        "includes": "{% include '/etc/passwd' %}", "calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "nested": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "negates": "{{ " + "-" * 9000 + "1 }}",
        "does not end": "{% for m in messages %}", "raises": "{{ raise_exception('" + "\\x1b[2J" + "') }}",
        "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "huge": "x" * 100_001,
        "dates": "{{ strftime_now('%9999999999d' * 99) }}", "filters": "{{ 1" + "|string" * 5000 + " }}",
    }.items()
]  # fmt: skip
TOKENIZER_CASES = [
    Case("tokenizer.model cut", "plain", cut("tokenizer.model", 7), USE, "tokenizer.model"),
    Case("tokenizer.model cut in two", "plain", cut("tokenizer.model", -900), USE, "tokenizer.model|vocab"),
    Case("tokenizer.model empty", "plain", put("tokenizer.model", b""), USE, "empty"),
    Case("tokenizer.model huge", "plain", sparse("tokenizer.model", 1 << 40), USE, "not plausible"),
    Case("tokenizer.json cut", "json", cut("tokenizer.json", 9), USE, "JSON"),
    Case("tokenizer_config.json cut", "json", cut("tokenizer_config.json", 9), USE, "JSON"),
    Case("tokenizer.json of another model", "json", edit("tokenizer.json", lambda t: t.update(model={})), RUN),
    Case("tokenizer ids negative", "json", edit("tokenizer.json", lambda t: t["model"]["vocab"].update(a=-1)), USE),
    Case("tokenizer ids huge", "json", edit("tokenizer.json", lambda t: t["model"]["vocab"].update(a=2**80)), USE),
    Case("tokenizer ids true", "json", edit("tokenizer.json", lambda t: t["model"]["vocab"].update(a=True)), RUN),
    Case("tokenizer larger than the model", "plain", put("added_tokens.json", '{"x": 9999998}'), USE, "belong"),
    Case("added token of half a character", "json", edit("tokenizer.json", lambda t: t["added_tokens"].append(
        {"id": 3, "content": "\ud800", "special": False})), USE),
    Case("normalizer that explodes", "json", edit("tokenizer.json", lambda t: t.update(normalizer={"type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 99}] * 9})), RUN, "longer"),
    Case("pattern that takes forever", "json", edit("tokenizer.json",
        lambda t: t.update(pre_tokenizer={"type": "Split",
        "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False})), RUN, "forever"),
    Case("components nested deep", "json", edit("tokenizer.json", lambda t: t.update(pre_tokenizer=sequences(12))),
        RUN),
    Case("eos of escapes", "json", edit("tokenizer_config.json", lambda c: c.update(eos_token=ESCAPES)), RUN,
        "eos_token"),
]  # fmt: skip


def sequences(depth: int) -> dict[str, object]:
    inner = {"type": "BertPreTokenizer"} if depth == 0 else sequences(depth - 1)
    return {"type": "Sequence", "pretokenizers": [inner]}


TEKKEN_CASES = [
    Case(f"tekken {key} {value!r:.20}", "tekken",
         edit("tekken.json", lambda t, k=key, v=value: t["config"].update({k: v})), USE)
    for key, values in {
        "pattern": ("(a|a)*b", None, 7), "default_vocab_size": (0, -1, 2**40, 20, 1e3), "version": ("v99", ESCAPES,
            []),
        "default_num_special_tokens": (-1, 2**40, True, None),
    }.items()
    for value in values
] + [
    Case("tekken cut", "tekken", cut("tekken.json", 9), USE, "JSON"),
    Case("tekken of bytes that are none", "tekken", edit("tekken.json",
        lambda t: t["vocab"][7].update(token_bytes="?")), USE),
    Case("tekken without bytes", "tekken", edit("tekken.json", lambda t: t["vocab"].pop(7)), USE, "tekken"),
    Case("tekken is a link out", "tekken", outside("tekken.json"), USE, "link out of"),
    Case("tekken of many keys", "tekken", put("tekken.json", '{"a": {' + ",".join(f'"{i}":0' for i in range(2_000_000))
        + "}}"), USE, "entries"),
    Case("tekken of as many keys as may be", "tekken", put("tekken.json", '{"a": {' + ",".join(
        f'"{i}":0' for i in range(649_990)) + "}}"), USE, "config|ids"),
    Case("tekken of lists", "tekken", put("tekken.json", '{"a": [' + "[]," * 5_000_000 + "[]]}"), USE,
        "items|entries"),
]  # fmt: skip
ARRAY = text("a") + struct.pack("<I", 9)
GGUF_CASES = [
    Case(f"gguf {name}", "gguf", gguf(content), GGUF, said)
    for name, content, said in (
        ("empty", b"", "ends inside"),
        ("of version 1", gguf_header(version=1), "version 1"),
        ("of the other end", gguf_header(version=3 << 24), "version"),
        ("with huge counts", gguf_header(HUGE, HUGE), "items"),
        ("with many tensors", gguf_header(0, 1 << 20), "ends inside"),
        ("with a huge text", gguf_header(1, rest=struct.pack("<Q", HUGE)), "ends inside"),
        ("with a huge array", gguf_header(1, rest=ARRAY + struct.pack("<IQ", 0, HUGE)), "items"),
        ("with arrays in arrays", gguf_header(1, rest=(ARRAY + struct.pack("<IQ", 9, 1)) + bytes(99)),
            "unknown type 9"),
        ("with an unknown type", gguf_header(1, rest=text("a") + struct.pack("<I", 99)), "unknown type 99"),
        ("with a key twice", gguf_header(2, rest=(text("a") + struct.pack("<IB", 0, 1)) * 2), "twice"),
        ("with bytes for text", gguf_header(1, rest=text(b"\xff")), "UTF-8"),
        ("with escapes", gguf_header(2, rest=(text(ESCAPES) + struct.pack("<IB", 0, 1)) * 2), "twice"),
        *((f"with alignment {n}", gguf_header(1, rest=text("general.alignment") + struct.pack("<II", 4, n)),
            "alignment")
          for n in (0, 3)),
        ("with a tensor twice", gguf_header(0, 2, tensor() * 2 + bytes(999)), "twice"),
        ("with overlapping tensors", gguf_header(0, 2, tensor() + tensor(name="u") + bytes(999)), "overlap"),
        ("with no dimensions", gguf_header(0, 1, tensor(0, ())), "0 dimensions"),
        ("with many dimensions", gguf_header(0, 1, tensor(1 << 31)), "dimensions"),
        ("with huge dimensions", gguf_header(0, 1, tensor(4, (HUGE,) * 4)), "cut short"),
        ("with no rows", gguf_header(0, 1, tensor(2, (32, 0))), "impossible shape"),
        ("with a far offset", gguf_header(0, 1, tensor(offset=HUGE)), "cut short"),
        ("with an unknown kind", gguf_header(0, 1, tensor(kind=777)), "unknown type 777"),
        ("of nothing", gguf_header(), "architecture"),
    )
] + [
    Case("gguf cut short", "gguf", cut("model.gguf", 40), GGUF, "cut short"),
    Case("gguf cut in the header", "gguf", cut("model.gguf", -500), GGUF, "ends inside"),
    Case("two gguf files", "gguf", put("other.gguf", b"GGUF"), GGUF, "2 GGUF files"),
]  # fmt: skip
SESSION_CASES = [
    Case(f"session {name}", "session", session(change), CHAT)
    for name, change in {
        "of another format": lambda s: s.update(format="x"), "of version true": lambda s: s.update(version=True),
        "with no fingerprints": lambda s: s.pop("fingerprints"),
            "of another model": lambda s: s["fingerprints"].update(model=""),
        "with a template of its own": lambda s: s.update(template=REACH),
            "with system 7": lambda s: s.update(system=7),
        "with messages of numbers": lambda s: s.update(messages=[7]),
        "with another role": lambda s: s["messages"][0].update(role="root"),
        "with a role that is a list": lambda s: s["messages"][0].update(role=[]),
        "with ids of another text": lambda s: s["messages"][1].update(ids=[5]),
        "with ids out of range": lambda s: s["messages"][1].update(ids=[10**9]),
        "with settings of lists": lambda s: s.update(settings=[]),
        "with temperature nil": lambda s: s["settings"].update(temperature=None),
        "with stops of numbers": lambda s: s["settings"].update(stop=[7]),
        "with half a token": lambda s: s["settings"].update(max_tokens=1.5),
        "with a cache elsewhere": lambda s: s["cache"].update(id="../../../etc/x"),
        "with another checksum": lambda s: s["cache"].update(crc32=0),
            "with a cache of lists": lambda s: s.update(cache=[]),
        "with turns nil": lambda s: s.update(turns=None, messages=None),
    }.items()
] + [
    Case("session cut short", "session", cut("../home/sessions/s.json", 9), CHAT, "JSON"),
    Case("session of zeros", "session", sparse("../home/sessions/s.json", 1 << 33), CHAT, "at most"),
    Case("session that is a FIFO", "session", instead("../home/sessions/s.json", os.mkfifo), CHAT, "no session"),
]  # fmt: skip
