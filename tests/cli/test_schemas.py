"""`--schema`, `--regex` and `--grammar` in `complete`, `batch` and templates, and `/schema` in a chat."""

import json
import re

import pytest
from helpers.cli import run
from helpers.invoke import invoke

from mistral_mlx.errors import OptionError

COLOUR = {"enum": ["red", "green", "blue"]}
OBJECT = {
    "type": "object",
    "properties": {"colour": COLOUR, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
TEXT = json.dumps(OBJECT)
FREE = ("--temperature", "1.5", "-n", "300")


def complete(folder, *args, input="a"):
    return run("complete", "-m", folder, "--seed", "1", *FREE, *args, input=input.encode())


def said(result):
    return result.stderr.decode()


def is_whole(value):
    return list(value) == ["colour", "count"] and value["colour"] in COLOUR["enum"] and 0 <= value["count"] <= 9


def test_the_answer_is_json_that_follows_the_schema(folder, tmp_path):
    (tmp_path / "thing.json").write_text(TEXT)
    for schema in (TEXT, tmp_path / "thing.json"):
        result = complete(folder, "-q", "--schema", schema)
        assert (result.returncode, said(result), is_whole(json.loads(result.stdout))) == (0, "", True)


def test_several_answers_and_their_values(folder):
    records = json.loads(complete(folder, "-q", "--schema", TEXT, "--json", "--samples", "5").stdout)
    assert all(is_whole(r["parsed"]) and json.loads(r["text"]) == r["parsed"] for r in records)
    assert len({r["text"] for r in records}) > 1
    end = json.loads(complete(folder, "-q", "--schema", TEXT, "--jsonl").stdout.splitlines()[-1])
    assert end["event"] == "end" and is_whole(end["parsed"])


def test_a_list_of_such_values(folder):
    several = {**COLOUR, "enum": ["a", "b"]}
    value = json.loads(complete(folder, "-q", "--schema", json.dumps(several), "--schema-multi", "-n", "2000").stdout)
    assert list(value) == ["items"] and set(value["items"]) <= {"a", "b"}


def test_a_regular_expression_and_grammars(folder, tmp_path):
    assert re.fullmatch(rb"(yes|no)[0-9]{3}\n", complete(folder, "-q", "--regex", "(yes|no)[0-9]{3}").stdout)
    (tmp_path / "g.lark").write_text('start: "ab"~2 C\nC: /[xyz]/\n')
    (tmp_path / "g.gbnf").write_text('root ::= "ab" [xyz]{2}\n')
    assert re.fullmatch(rb"abab[xyz]\n", complete(folder, "-q", "--grammar", tmp_path / "g.lark").stdout)
    assert re.fullmatch(rb"ab[xyz]{2}\n", complete(folder, "-q", "--grammar", tmp_path / "g.gbnf").stdout)


def test_an_answer_that_a_limit_cuts_is_an_error(folder):
    result = complete(folder, "--schema", TEXT, "-n", "3", "--json")
    record = json.loads(result.stdout)
    assert (result.returncode, record["parsed"], record["finish_reason"]) == (6, None, "length")
    assert "error: the answer does not fit the schema; it was cut short, give it more --max-tokens" in said(result)
    result = complete(folder, "-q", "--schema", TEXT, "--stop", "count")
    assert (result.returncode, said(result).count("\n")) == (6, 1)
    assert "the answer does not fit the schema; a stop string ended it" in said(result)


def test_an_answer_that_was_cut_and_may_go_on_is_not_whole(folder):
    """Its beginning fits by itself: 12 is an integer, and so was 123456."""
    for form in (("--schema", '{"type": "integer"}'), ("--regex", "[0-9]+")):
        result = complete(folder, "-q", *form, "-n", "1")
        assert (result.returncode, len(result.stdout) > 1) == (6, True)
        assert "the answer may not be whole, though it fits" in said(result)
    result = complete(folder, "-q", "--schema", '{"type": "integer"}', "--prefill", "1", "--stop", "0", "--stop", "1")
    assert result.returncode in (0, 6)
    line = json.dumps({"prompt": "a", "schema": {"type": "integer", "minimum": 1}, "max_tokens": 1}).encode()
    record = json.loads(run("batch", "-", "-m", folder, *FREE, "-q", input=line).stdout)
    assert "may not be whole" in record["error"] and record["text"]


def test_the_prompt_tells_the_schema_and_stats_say_so(folder):
    told = complete(folder, "--schema", TEXT, "--stats", "--json")
    untold = complete(folder, "--schema", TEXT, "--stats", "--json", "--no-schema-prompt")
    n_told, n_untold = (json.loads(result.stdout)["prompt_tokens"] for result in (told, untold))
    assert n_told > n_untold + len(TEXT) // 8
    assert "the schema is in the prompt" in said(told) and "the schema is not in the prompt" in said(untold)
    assert "the schema is not in the prompt" in said(complete(folder, "--schema", TEXT, "--stats", "--raw"))


def test_the_prefill_is_the_beginning_of_the_form(folder):
    record = json.loads(complete(folder, "-q", "--schema", TEXT, "--json", "--prefill", '{"colour": "gr').stdout)
    assert record["parsed"]["colour"] == "green"
    result = complete(folder, "-q", "--schema", TEXT, "--prefill", "Sure!")
    assert (result.returncode, result.stdout) == (2, b"")
    assert "the answer begins with Sure!, which does not fit the schema" in said(result)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--schema", "a", "--regex", "b"), "--schema and --regex exclude each other"),
        (("--schema-multi",), "--schema-multi needs --schema"),
        (("--schema", "no-such-file.json"), "the schema no-such-file.json cannot be read"),
        (("--schema", "."), "the schema . cannot be read: Is a directory"),
        (("--schema", "./nope"), "the schema nope cannot be read: No such file"),
        (("--schema", "-"), "the schema - cannot be read"),
        (("--schema", "[1]"), "give a JSON Schema, which is an object"),
        (("--schema", '{"name": "string"}'), "the schema has no word of JSON Schema (it has name)"),
        (("--schema", "{"), "the schema { is not valid JSON"),
        (("--schema", "age intt"), "the field age has the type intt"),
        (
            ("--schema", '{"type": "array", "uniqueItems": true}'),
            "'uniqueItems' at its top, which cannot be guaranteed",
        ),
        (("--regex", "("), "the regular expression"),
        (("--grammar", "no-such-grammar"), "the grammar no-such-grammar cannot be read"),
        (("--schema", "a", "-x"), "--extract and a form of the answer"),
        (("--schema", "a", "--tools", "tools.json"), "--tools and a form of the answer"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_opened(folder, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = {"name": "f", "parameters": {"type": "object"}}
    (tmp_path / "tools.json").write_text(json.dumps([{"type": "function", "function": function}]))
    result = run("complete", "-m", "no-such-model", *args, input=b"a")
    assert (result.returncode, result.stdout) == (2, b"")
    assert message in said(result) and len(said(result).splitlines()) == 1


def test_a_template_may_have_a_schema(folder, home):
    (home / "templates").mkdir()
    template = home / "templates" / "thing.toml"
    template.write_text(f"schema = '{TEXT}'\n")
    assert is_whole(json.loads(complete(folder, "-q", "-t", "thing").stdout))
    template.write_text('[schema]\nenum = ["only this"]\n')
    assert json.loads(complete(folder, "-q", "-t", "thing").stdout) == "only this"
    assert complete(folder, "-q", "-t", "thing", "--regex", "yes").stdout == b"yes\n"
    template.write_text("schema = 3\n")
    assert "schema of the template thing is 3" in said(complete(folder, "-t", "thing"))


def test_a_line_of_a_batch_may_have_a_schema(folder):
    lines = [
        {"prompt": "a", "schema": {"enum": ["its own"]}},
        {"prompt": "a"},
        {"prompt": "a", "schema": None, "max_tokens": 5},
        {"prompt": "a", "schema": OBJECT, "max_tokens": 3},
        {"prompt": "a", "schema": "age intt"},
    ]
    text = "\n".join(map(json.dumps, lines))
    result = run("batch", "-", "-m", folder, "--seed", "1", *FREE, "-q", "--schema", TEXT, input=text.encode())
    own, default, free, cut, wrong = map(json.loads, result.stdout.splitlines())
    assert (result.returncode, own["parsed"], is_whole(default["parsed"])) == (8, "its own", True)
    assert "parsed" not in free and "error" not in free
    assert cut["error"] == "the answer does not fit the schema; it was cut short, give it more --max-tokens"
    assert cut["parsed"] is None and cut["text"]
    assert "the field age has the type intt" in wrong["error"]


def test_a_batch_with_a_wrong_schema_answers_nothing(folder):
    with pytest.raises(OptionError, match="is not valid JSON"):
        invoke("batch", "-", "-m", folder, "--schema", "{", input='"a"\n')


def test_a_chat_follows_a_schema_until_it_is_ended(folder):
    script = f"/schema {TEXT}\nHello\n/set max_tokens 3\nAgain\n/set max_tokens 300\n/continue\n/schema -\n/schema\n"
    result = run("chat", "-m", folder, "--seed", "1", *FREE, "--no-save", input=script.encode())
    first, rest = result.stdout.decode().split("}\n", 1)
    assert is_whole(json.loads(first + "}"))
    parts = [rest[:i] + rest[i + 1 :] for i, letter in enumerate(rest) if letter == "\n"]  # without what ends the first
    assert any(is_json(text) and is_whole(json.loads(text)) for text in parts), rest
    assert "answers follow the schema {" in said(result) and said(result).count("answers are free") == 2
    assert said(result).count("the answer does not fit the schema") == 1


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
