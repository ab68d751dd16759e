"""Cases for chat templates, for saved sessions and for kept prompts."""

import json
import zlib
from pathlib import Path
from random import Random

from fuzz.mutations import TEXTS, damaged, dumped, mutated
from fuzz.reader import Reader
from helpers.tiny_folder import write_tiny_folder
from helpers.tokenizer_files import CHATML

from mistral_mlx.cli.chat.settings import ChatOptions
from mistral_mlx.errors import SessionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.loading import load
from mistral_mlx.prompt.template import render_chat
from mistral_mlx.session import saved as saved_session
from mistral_mlx.session.kept import KeptPrompts
from mistral_mlx.session.kept_entry import read_entry
from mistral_mlx.session.saved_document import list_sessions
from mistral_mlx.session.session import Session


class Template(Reader):
    """A chat template."""

    PIECES = (
        "{{ m.content }}", "{{ m['role'] }}", "{% set x = m %}", "{{ x * 99999 }}", "{{ [x] * 999 }}", "{{ x + x }}",
        "{{ messages | tojson }}", "{{ raise_exception(x) }}", "{{ strftime_now(x) }}", "{{ x.append }}", "{{ x % x }}",
        "{{ range(10 ** 9) }}", "{{ x ** 99 }}", "{% macro f(a) %}{{ f(a) }}{% endmacro %}", "{{ x[::0] }}",
        "{{ f(1) }}", "{{ namespace(a=1).a }}", "{{ loop.index }}", "{{ messages[0:99] | join(x) }}", "a text",
        "{{ x | replace('', x) }}", "{% set x = x + x + x %}", "{{ x | sort | unique | list }}", "{{ -x // 0 }}",
        "{{ x.split('') }}", "{{ x is divisibleby 0 }}", "{{ dict(a=x) }}", "{% set x = [x, x] %}",
        "{% set x = {'a': x} %}", "{{ x | length }}", "{{ x | string | upper }}", "{{ x | indent(9) }}",
    )  # fmt: skip
    BLOCKS = (
        "{% for m in messages %}~{% endfor %}", "{% if x %}~{% else %}~{% endif %}",
        "{% filter upper %}~{% endfilter %}", "{% for i in range(99) %}~{% endfor %}",
        "{% for x in x %}~{% endfor %}", "{% set x %}~{% endset %}", "~~",
    )  # fmt: skip

    def __call__(self, rng: Random) -> None:
        code = "{% set x = messages[0].content %}~"
        for _ in range(rng.randrange(8)):
            code = code.replace("~", rng.choice(self.BLOCKS), 1)
        while "~" in code:
            code = code.replace("~", rng.choice(self.PIECES), 1)
        if rng.random() < 0.2:
            at = rng.randrange(len(code))
            code = code[:at] + rng.choice(("{{", "}}", "{%", "(", ")", "|", "'", ".", *TEXTS)) + code[at + 1 :]
        messages = [{"role": "user", "content": rng.choice(TEXTS) * 3}, {"role": "assistant", "content": "a"}]
        text = render_chat(
            rng.choice((code, CHATML + code)),
            messages,
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token=None,
        )
        assert len(text) < 10_000_000


class Saved(Reader):
    """A saved session, its cache and its settings."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.file = place / "s.json"
        self.model = load(write_tiny_folder(place / "model"))
        session = Session(*self.model)
        for _ in session.ask("Hello", AnswerOptions(max_tokens=3)):
            pass
        saved_session.save(session, self.file, {"model": "tiny", **ChatOptions().as_saved()})
        self.document = json.loads(self.file.read_text())
        self.cache = next(place.glob("*.safetensors"))
        self.cached = self.cache.read_bytes()

    def __call__(self, rng: Random) -> None:
        self.file.write_bytes(dumped(mutated(self.document, rng), rng))
        self.cache.write_bytes(damaged(self.cached, rng) if rng.random() < 0.1 else self.cached)
        for info in list_sessions(self.place):
            info.saved_at.astimezone()
        session, settings, _ = saved_session.load(self.file, *self.model)
        ChatOptions().restored(settings, given=frozenset()).sampler()
        assert session.system is None or isinstance(session.system, str)


class Kept(Reader):
    """A kept prompt, mostly with the checksum of what it became."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.model = load(write_tiny_folder(place / "model"))[0]
        self.ids = [5 + i % 20 for i in range(90)]
        self.said = list[str]()
        self.store = KeptPrompts(place / "kept", 10**9, self.said.append)
        timeline = Timeline(self.model)
        timeline.extend(self.ids)
        assert self.store.keep(timeline, 80)
        (path,) = self.store.folder.iterdir()
        raw, self.stem = path.read_bytes(), path.name[:34]
        length = int.from_bytes(raw[:8], "little")
        self.header, self.data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
        self.entry_ids = read_entry(path).ids

    def __call__(self, rng: Random) -> None:
        header = self.header
        if rng.random() < 0.5:
            header = mutated(header, rng)
        elif rng.random() < 0.8:
            header = {**header, "__metadata__": mutated(header["__metadata__"], rng)}
        text = dumped(header, rng)
        raw = len(text).to_bytes(8, "little") + text + self.data
        raw = damaged(raw, rng) if rng.random() < 0.2 else raw
        crc = zlib.crc32(json.dumps(self.entry_ids).encode(), zlib.crc32(raw))
        self.store.clear()
        (self.store.folder / f"{self.stem}{crc:08x}.safetensors").write_bytes(raw)
        self.said.clear()
        timeline = Timeline(self.model)
        self.store.found()
        n = self.store.take_up(timeline, self.ids)
        assert n in (0, 80) and timeline.ids == self.ids[:n] and all("\n" not in remark for remark in self.said)
        if not n:
            raise SessionError("; ".join(self.said))  # as a reader refuses a case
        timeline.extend(self.ids[n:])
