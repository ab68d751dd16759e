"""Tool calls that a model has written, read from the ids that mistral-common makes of such calls."""

import pytest
from helpers.messages import UNICODE, user
from helpers.oracle import call, calls, result, thinking
from helpers.tokenizer_files import tekken_folder

from mistral_mlx import encode_chat, load_tokenizer
from mistral_mlx.prompt.calls import read_calls
from mistral_mlx.prompt.tools import ToolCall

ARGUMENTS = [{}, {"a": 2}, {"é": UNICODE.replace("▁", "_"), "b": [1, 2.5, None, {"c": "[TOOL_CALLS]"}]}]


def written(tokenizer, *made, **more):
    """Return the ids of an answer with these calls, as the model writes it."""
    before = encode_chat(tokenizer, [user("a")])
    return encode_chat(tokenizer, [user("a"), calls(*made, **more)])[len(before) :]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_calls_come_back(mistral, arguments):
    tokenizer, _ = mistral
    version = tokenizer.version
    if version == "v1":
        return
    made = [call(arguments, "abcdef123"), call({"x": 1}, "zyxwvu987", name="get_x-1")]
    more = {"content": "Text before. "} if version not in ("v2", "v3") else {}
    found = read_calls(tokenizer, version, written(tokenizer, *made, **more))
    assert [(c.name, c.arguments) for c in found] == [("add", arguments), ("get_x-1", {"x": 1})]
    ids = [c.id for c in found]
    if version in ("v3", "v7", "v11"):
        assert ids == ["abcdef123", "zyxwvu987"]
    else:
        assert len(set(ids)) == 2 and all(len(i) == 9 and i.isalnum() for i in ids)
    as_json = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in found]
    results = [result("5", i) for i in (ids[:1] if version == "v2" else ids)]
    if version != "v2":
        encode_chat(tokenizer, [user("a"), calls(*as_json), *results])


def test_an_answer_without_calls_has_none(mistral):
    tokenizer, _ = mistral
    if tokenizer.version != "v1":
        assert read_calls(tokenizer, tokenizer.version, tokenizer.encode("[TOOL_CALLS]add[ARGS]{}")) == []


def test_the_same_answer_has_the_same_ids_and_another_has_others(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v13"))
    one, other = (written(tokenizer, call({"a": a})) for a in (1, 2))
    first = read_calls(tokenizer, "v13", one)[0].id
    assert (first, first) != (read_calls(tokenizer, "v13", other)[0].id, read_calls(tokenizer, "v13", one)[0].id)
    assert read_calls(tokenizer, "v13", one)[0].id == first


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda t, ids: ids[:-1],  # cut off inside the arguments
        lambda t, ids: [i for i in ids if i != 32],
        lambda t, ids: [*ids, 32, *t.encode("{}")],
        lambda t, ids: [9, *t.encode("a b"), 32, *t.encode("{}")],
        lambda t, ids: [9, *t.encode("add"), 32, *t.encode("[1]")],
        lambda t, ids: [9],
        lambda t, ids: [*ids, 9],
    ],
)
def test_a_call_that_cannot_be_read_is_none(spoilt, tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v13"))
    assert read_calls(tokenizer, "v13", spoilt(tokenizer, written(tokenizer, call()))) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"name": "add"}]', '[{"name": "a b", "arguments": {}}]', '[{"nam'])
def test_a_list_that_cannot_be_read_is_none(text, tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v7"))
    assert read_calls(tokenizer, "v7", [9, *tokenizer.encode(text)]) is None


def test_an_id_that_cannot_be_sent_back_is_replaced(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v7"))
    text = '[{"name": "add", "arguments": {}, "id": "call_1"}, {"name": "add", "arguments": {}, "id": "abcdef123"}]'
    made, kept = read_calls(tokenizer, "v7", [9, *tokenizer.encode(text)])
    assert len(made.id) == 9 and made.id != "call_1" and kept == ToolCall("add", {}, "abcdef123")


def test_two_calls_never_have_the_same_id(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v11"))
    made = read_calls(tokenizer, "v11", written(tokenizer, call()) * 3)
    ids = [one.id for one in made]
    assert ids[0] == "abcdef123" and len(set(ids)) == 3
    encode_chat(tokenizer, [user("a"), calls(*(call(call_id=i) for i in ids)), *(result("5", i) for i in ids)])


def test_thinking_and_text_before_calls_are_passed_by(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v13"))
    (found,) = read_calls(tokenizer, "v13", written(tokenizer, call(), content=[thinking("hm")]))
    assert (found.name, found.arguments) == ("add", {"a": 2})
