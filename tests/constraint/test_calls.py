"""Grammars of tool calls: what they allow is calls of the tools, and what mistral-common writes is allowed."""

from functools import cache

import jsonschema
import numpy as np
import pytest
from constraint.conftest import new_guide
from helpers import called
from helpers.called import ADD, read_by_mistral_common, tool
from helpers.messages import UNICODE, user
from helpers.oracle import call, calls, truth
from helpers.tokenizer_files import MISTRAL, TEKKEN, both_tokenizers, trained_sentencepiece

from mistral_mlx import OptionError, encode_chat, load_tokenizer
from mistral_mlx.constraint.calls import calls_grammar
from mistral_mlx.constraint.constraint import Constraint
from mistral_mlx.prompt.calls import read_calls
from mistral_mlx.tokenizer.versions import NEEDED, TOOL_CALLS

TOOLS = [*called.TOOLS, tool("find", {"type": "object"})]
SCHEMAS = {**called.SCHEMAS, "find": {"type": "object"}}
MADE = [
    [call({"a": 2}), call({}, name="now"), call({"é": [1.5, {"b": None}]}, name="find")],
    [call({"where": "é\n", "how": [None, None], "what": UNICODE[-4:]}, name="find_it-2")],
    [call({"where": "[ARGS]", "how": True}, name="find_it-2")],
    [call({"a": -15})] * 32,
]


WITH_TOOLS = [*MISTRAL, *(f"{version} tekken" for version in TEKKEN)][1:]
CLOSING = ('"', "]", "}", "]}", "}]")


@pytest.fixture(scope="module", params=WITH_TOOLS)
def both(request, tmp_path_factory):
    """Our tokenizer and mistral-common's of one version that has tools."""
    return both_tokenizers(tmp_path_factory.mktemp("both"), request.param)


@pytest.fixture(scope="module")
def v3(tmp_path_factory):
    return both_tokenizers(tmp_path_factory.mktemp("v3"), "v3")[0]


@pytest.fixture(scope="module")
def v11(tmp_path_factory):
    return both_tokenizers(tmp_path_factory.mktemp("v11"), "v11 tekken")[0]


def bound(tokenizer, tools=TOOLS, name=None):
    return Constraint.from_tools(tools, tokenizer, tokenizer.version, name=name)


def is_whole(tokenizer, constraint, ids):
    """Return whether an answer may be exactly these ids."""
    guide = new_guide(constraint, tokenizer)
    for token in ids:
        if not guide.mask()[token]:
            return False
        guide.take(token)
    return bool(guide.mask()[tokenizer.eos_id])


@cache
def closing(tokenizer):
    """Return the ids that end an answer, a text, a list or an object."""
    ids = (i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).strip() in CLOSING)
    return np.array([tokenizer.eos_id, *ids])


def random_answer(tokenizer, constraint, seed):
    """Return ids that are allowed, without the last eos; texts and lists end early."""
    rng, ids, guide = np.random.default_rng(seed), [], new_guide(constraint, tokenizer)
    while not guide.finished and len(ids) < 2000:
        mask = guide.mask()
        ends = closing(tokenizer)[mask[closing(tokenizer)]]
        token = int(rng.choice(ends if len(ends) and rng.random() < 0.5 else np.flatnonzero(mask)))
        if token == tokenizer.eos_id:
            break
        guide.take(token)
        ids.append(token)
    return ids


def judged(ids, tokenizer, mistral_common):
    """Return the calls in `ids`: calls of the tools, and the same as mistral-common reads."""
    found = read_calls(tokenizer, tokenizer.version, ids)
    assert found, tokenizer.decode(ids)
    for made in found:
        jsonschema.validate(made.arguments, SCHEMAS[made.name])
    text, theirs = read_by_mistral_common(ids, mistral_common)
    assert text == ""
    assert [(made.name, made.arguments) for made in found] == [(name, arguments) for name, arguments, _ in theirs]
    assert [made.id for made, (_, _, i) in zip(found, theirs, strict=True) if i != "null"] == [
        i for _, _, i in theirs if i != "null"
    ]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_every_answer_that_is_allowed_is_calls_of_the_tools(seed, both):
    tokenizer, mistral_common = both
    assert len(judged(random_answer(tokenizer, bound(tokenizer), seed), tokenizer, mistral_common)) <= 32


@pytest.mark.parametrize("name", SCHEMAS)
def test_with_a_name_there_is_one_call_of_this_tool(name, both):
    tokenizer, mistral_common = both
    (found,) = judged(random_answer(tokenizer, bound(tokenizer, name=name), 0), tokenizer, mistral_common)
    assert found.name == name


@pytest.mark.parametrize("made", MADE)
def test_what_mistral_common_writes_is_allowed(made, both):
    tokenizer, mistral_common = both
    answer = calls(*({**one, "id": f"{i:09}"} for i, one in enumerate(made)))
    ids = truth(mistral_common, [user("a"), answer])[len(truth(mistral_common, [user("a")])) :]
    assert ids[0] == tokenizer.control[TOOL_CALLS]
    assert is_whole(tokenizer, bound(tokenizer), ids)
    assert is_whole(tokenizer, bound(tokenizer, name="add"), ids) == (len(made) == 1 and made == [call({"a": -15})])


def test_there_are_at_most_32_calls(both):
    tokenizer, _ = both
    answer = calls(*(call({"a": 1}, f"{i:09}") for i in range(33)))
    before = encode_chat(tokenizer, [user("a")])
    assert not is_whole(tokenizer, bound(tokenizer), encode_chat(tokenizer, [user("a"), answer])[len(before) :])


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('[{"name":"add","arguments":{"a":1}}]', True),
        (' [{"name": "add", "arguments": {"a": 1}}]', True),
        ('\n[\n  {\n    "name": "add",\n    "arguments": {\n      "a": 1\n    }\n  }\n]', True),
        ('[{"name": "add", "arguments": {"a": 1}, "id": "abcdef123"}]', True),
        ('[{"name": "add", "arguments": {"a": 1}, "id": "abcdef12"}]', False),
        ('[{"name": "add",  "arguments": {"a": 1}}]', False),  # an answer must not be white space without end
        ('[{"name": "add", "arguments": {"a":  1}}]', False),
        ('[{"name": "add", "arguments": {"a": 1.5}}]', False),
        ('[{"name": "ad", "arguments": {"a": 1}}]', False),
        ('[{"name": "find", "arguments": 1}]', False),
        ('[{"name": "now", "arguments": {"a": 1}}]', False),  # without parameters there are no arguments
        ('[{"name": "now", "arguments": {}}] text', False),
        ("[]", False),
    ],
)
def test_what_a_list_may_be(text, allowed, v3):
    assert is_whole(v3, bound(v3), [v3.control[TOOL_CALLS], *v3.encode(text)]) == allowed


def test_v2_has_no_ids(tmp_path):
    tokenizer, _ = both_tokenizers(tmp_path, "v2")
    listed = '[{"name": "now", "arguments": {}%s}]'
    for more, allowed in (("", True), (', "id": "abcdef123"', False)):
        ids = [tokenizer.control[TOOL_CALLS], *tokenizer.encode(listed % more)]
        assert is_whole(tokenizer, bound(tokenizer), ids) == allowed


def test_an_id_in_v11_is_whole_or_missing(v11):
    begin, args, call_id = (v11.control[text] for text in (TOOL_CALLS, "[ARGS]", "[CALL_ID]"))
    for own_id, allowed in (("abcdef123", True), (None, True), ("", False), ("call_1234", False)):
        ids = [begin, *v11.encode("now"), *([] if own_id is None else [call_id, *v11.encode(own_id)]), args]
        assert is_whole(v11, bound(v11), [*ids, *v11.encode("{}")]) == allowed, own_id


def test_a_vocabulary_with_a_blank_of_its_own_may_write_it(tmp_path):
    named = [*NEEDED["v11"], TOOL_CALLS]
    options = {"control_symbols": named, "byte_fallback": True, "vocab_size": 309}
    tokenizer = load_tokenizer(trained_sentencepiece(tmp_path, **options))
    assert tokenizer.version == "v11"
    for seed in range(3):
        assert read_calls(tokenizer, "v11", random_answer(tokenizer, bound(tokenizer), seed))
    before, answer = encode_chat(tokenizer, [user("a")]), calls(call({"a": 1}), call({}, "zyxwvu987", "now"))
    assert is_whole(tokenizer, bound(tokenizer), encode_chat(tokenizer, [user("a"), answer])[len(before) :])


def test_control_tokens_are_no_text(v11):
    spelt = v11.encode("[TOOL_CALLS]now[ARGS]{}")
    assert not is_whole(v11, bound(v11), spelt)
    assert not is_whole(v11, bound(v11), [v11.control[TOOL_CALLS], *v11.encode("now[ARGS]{}")])


@pytest.mark.parametrize(
    ("tools", "name", "said"),
    [
        ([tool("add", {"type": "string"})], None, "the parameters of the tool add are of the type string"),
        ([tool("add", {"type": ["null", "array"]})], None, "the parameters of the tool add are of the type"),
        (
            [tool("add"), tool("sub", {"properties": {"a": {"contains": {}}}})],
            None,
            "calls of the tool sub cannot be bound: .*contains",
        ),
        ([tool("add", {"enum": [1]})], None, "calls of the tool add cannot be bound"),
        ([tool("add"), tool("now"), tool("add", ADD)], None, "two tools have the name add; give each its own"),
        ([tool("add"), tool("now")], "sub", "there is no tool sub; choose one of add, now"),
    ],
)
def test_tools_that_cannot_be_bound_are_refused(tools, name, said, v11):
    with pytest.raises(OptionError, match=said):
        bound(v11, tools, name)


def test_a_model_without_the_tokens_is_refused(v3):
    with pytest.raises(OptionError, match=r"no \[CALL_ID\] token"):
        calls_grammar(v3, "v11", TOOLS)


def test_parameters_may_allow_more_than_objects_but_arguments_are_objects(v11):
    grammar = bound(v11, [tool("any", {"type": ["object", "null"]}), tool("either", {"anyOf": [{"const": 1}, ADD]})])
    ids = [v11.control[TOOL_CALLS], *v11.encode("any"), v11.control["[ARGS]"]]
    assert is_whole(v11, grammar, [*ids, *v11.encode('{"b": 1}')]) and not is_whole(
        v11, grammar, [*ids, *v11.encode("null")]
    )
    ids = [v11.control[TOOL_CALLS], *v11.encode("either"), v11.control["[ARGS]"]]
    assert is_whole(v11, grammar, [*ids, *v11.encode('{"a": 1}')]) and not is_whole(
        v11, grammar, [*ids, *v11.encode("1")]
    )
