"""Cases for chat templates and for saved sessions."""

import json
from pathlib import Path
from random import Random

from fuzz.mutations import TEXTS, damaged, dumped, mutated
from fuzz.reader import Reader
from helpers.tiny_folder import write_tiny_folder
from helpers.tokenizer_files import CHATML

from mistral_mlx.cli.chat.settings import ChatOptions
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.model.loading import load
from mistral_mlx.prompt.template import render_chat
from mistral_mlx.session import saved as saved_session
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
        for info in saved_session.list_sessions(self.place):
            info.saved_at.astimezone()
        session, settings = saved_session.load(self.file, *self.model)
        ChatOptions().restored(settings, given=frozenset()).sampler()
        assert session.system is None or isinstance(session.system, str)
