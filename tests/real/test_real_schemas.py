"""Answers of the demo model under a constraint, and the commands of the pages that ask for them."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from helpers.cli import run
from helpers.pages import SHELL, blocks, typed
from helpers.warm_program import warm_program

from mistral_mlx import AnswerOptions, Constraint, Sampler, Session, load
from mistral_mlx.cli.models.registry import register

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_an_object_of_two_fields_goes_through_a_pipe(demo):
    result = run("complete", "-m", demo, "-q", "--temperature", "0", "--schema", "name, age int", "Invent a person.")
    person = json.loads(result.stdout)
    assert (result.returncode, list(person)) == (0, ["name", "age"])
    assert isinstance(person["name"], str) and isinstance(person["age"], int)


@pytest.mark.parametrize("seed", range(3))
def test_sampled_answers_have_the_form(demo, seed):
    args = ("complete", "-m", demo, "-q", "--temperature", "1.2", "--seed", str(seed), "-n", "300", "--json")
    record = json.loads(run(*args, "--schema", json.dumps(PERSON), "Invent a person.").stdout)
    if record["finish_reason"] == "stop":
        assert record["parsed"] == json.loads(record["text"]) and list(record["parsed"]) == ["name", "age"]
    assert re.fullmatch(rb"(red|green|blue)\n", run(*args[:-1], "--regex", "(red|green|blue)", "A colour?").stdout)


def test_greedy_text_is_unchanged_where_it_has_the_form(demo):
    """What the model says by itself is bound to be what it said."""
    model, tokenizer = load(demo)
    for question in ("What is the capital of France?", "Name three colours.", "Write a haiku."):
        texts = []
        for constraint in (None, Constraint.from_regex(r"(?s).*")):
            options = AnswerOptions(Sampler(temperature=0), 80, constraint=constraint)
            texts.append("".join(piece.text for piece in Session(model, tokenizer).ask(question, options)))
        assert texts[0] == texts[1]
    json_text = texts_of_json(model, tokenizer, None)
    assert texts_of_json(model, tokenizer, Constraint.from_schema(PERSON)) == json_text


def texts_of_json(model, tokenizer, constraint):
    """Return how the model goes on with a person in JSON, up to the end of the object."""
    session = Session(model, tokenizer)
    session.messages = [
        {"role": "user", "content": "Write John, who is 30 years old, as JSON with name and age."},
        {"role": "assistant", "content": '{"name": "John",'},
    ]
    options = AnswerOptions(Sampler(temperature=0), 30, constraint=constraint)
    text = "".join(piece.text for piece in session.continue_answer(options))
    return text[: text.index("}") + 1]


@pytest.mark.parametrize("page", ["docs/schemas.md", "docs/recipes.md", "README.md"])
def test_the_commands_of_a_page_with_a_schema_work(demo, page, tmp_path):
    register("demo", demo)
    scripts = ["\n".join(typed(block)) for block in blocks((ROOT / page).read_text("utf-8")) if block.language in SHELL]
    with warm_program(tmp_path) as folder:
        env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        for script in (text for text in scripts if "--schema " in text and "mistral-mlx" in text):
            command = ["bash", "-eo", "pipefail", "-c", script.replace("git log -5 --format=%s", "echo Begin")]
            done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, env=env, capture_output=True)
            assert done.returncode == 0, (script, done.stderr)
