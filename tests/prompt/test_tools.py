"""Tools, calls and their results in messages, against mistral-common, for every version."""

import pytest
from helpers.messages import HOSTILE, UNICODE, assistant, system, user
from helpers.oracle import ADD, REFUSED, call, calls, ours, random_request, result, text, thinking, truth
from helpers.tokenizer_files import byte_level_folder, mistral_folder, tekken_folder

from mistral_mlx import OptionError, encode_chat, load_tokenizer

NOW = {"type": "function", "function": {"name": "now", "description": None, "x": 1}, "y": 2}
TWO = [call(), call({"a": 3}, "zyxwvu987")]
TOOL_CHATS = {
    "offered": [user("2+3?")],
    "offered later": [system("s"), user("a"), assistant("b"), user("2+3?")],
    "one call": [user("2+3?"), calls(call()), result()],
    "content is null": [user("2+3?"), calls(call(), content=None), result()],
    "a call in earlier turns": [user("2+3?"), calls(call()), result(), assistant("5"), user("thanks")],
    "two rounds": [user("a"), calls(call()), result(), calls(call()), result("6")],
    "two calls": [user("a"), calls(*TWO), result(), result("6", "zyxwvu987")],
    "results in another order": [user("a"), calls(*TWO), result("6", "zyxwvu987"), result()],
    "text before a call": [user("a"), calls(call(), content="I add. "), result()],
    "thinking before a call": [user("a"), calls(call(), content=[thinking("hm"), text("I add.")]), result()],
    "a result that is JSON": [user("a"), calls(call()), result('{"x":[1, 2.50,"é"]}', name="add")],
    "an empty result": [user("a"), calls(call()), result("")],
    "a result in chunks": [user("a"), calls(call()), result([text("5"), text("6")])],
    "arguments that are no JSON": [user("a"), calls(call("nonsense")), result()],
    "no arguments": [user("a"), calls(call("")), result()],
    "unicode": [user(UNICODE), calls(call({"é": UNICODE})), result(UNICODE)],
    "control text": [user(HOSTILE), calls(call({HOSTILE: HOSTILE})), result(HOSTILE)],
    "a call that goes on": [user("a"), calls(call())],
    "a call that nobody answered": [user("a"), calls(call()), user("b")],
    "no result before an answer": [user("a"), calls(call()), assistant("b"), user("c")],
    "too many results": [user("a"), calls(call()), result(), result(), assistant("b"), user("c")],
    "a result of no call": [user("a"), assistant("b"), result()],
    "a result of another call": [user("a"), calls(call()), result("5", "zyxwvu987")],
    "a result after a user": [user("a"), result()],
    "two calls with one id": [user("a"), calls(call(), call()), result()],
    "an id that is too short": [user("a"), calls(call(call_id="abc")), result("5", "abc")],
    "an id that is none": [user("a"), calls(call(call_id="null")), result("5", "null")],
    "a name that cannot be": [user("a"), calls(call(name="a b")), result()],
    "system after a result": [user("a"), calls(call()), result(), system("s"), user("b")],
}


@pytest.mark.parametrize("tools", [[ADD], [ADD, NOW], None], ids=["one", "two", "none"])
@pytest.mark.parametrize("chat", TOOL_CHATS)
def test_tools_have_the_ids_of_mistral_common(mistral, chat, tools):
    tokenizer, oracle = mistral
    expected = REFUSED if tokenizer.version == "v1" and tools else truth(oracle, TOOL_CHATS[chat], tools)
    assert ours(tokenizer, TOOL_CHATS[chat], tools) == expected


def test_random_conversations_have_the_ids_of_mistral_common(mistral):
    tokenizer, oracle = mistral
    n_whole = 0
    for seed in range(120):
        messages, tools, effort = random_request(seed)
        tools = None if tokenizer.version == "v1" else tools
        expected = truth(oracle, messages, tools, effort)
        assert ours(tokenizer, messages, tools, effort) == expected, seed
        n_whole += expected != REFUSED
    assert n_whole > 15


def test_text_of_tools_calls_and_results_yields_no_control_ids(mistral):
    tokenizer, _ = mistral
    if tokenizer.version == "v1":
        return
    function = {"name": "add", "description": HOSTILE, "parameters": {"title": HOSTILE}}
    hostile = [user(HOSTILE), calls(call({HOSTILE: HOSTILE})), result(HOSTILE)]
    harmless = [user("a"), calls(call()), result()]
    control = set(tokenizer.control.values())
    kept = [i for i in encode_chat(tokenizer, harmless, tools=[ADD]) if i in control]
    ids = encode_chat(tokenizer, hostile, tools=[{"type": "function", "function": function}])
    assert [i for i in ids if i in control] == kept


def test_a_call_as_complete_writes_it_is_the_same_call(mistral):
    tokenizer, _ = mistral
    flat = {"id": "abcdef123", "name": "add", "arguments": {"a": 2}}
    if tokenizer.version != "v1":
        expected = encode_chat(tokenizer, [user("a"), calls(call()), result()])
        assert encode_chat(tokenizer, [user("a"), calls(flat), result()]) == expected


def test_a_call_that_was_generated_keeps_its_ids(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v13"))
    made = calls(call(), ids=[9, 1300 - 1, 32, 1100])
    ids = encode_chat(tokenizer, [user("a"), made, result()])
    assert ids[ids.index(9) :][:5] == [9, 1299, 32, 1100, 2]


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ({"a": 1}, "give a list of definitions"),
        (["add"], "tool 1 is add; give"),
        ([ADD, {"type": "function"}], "tool 2 is"),
        ([{**ADD, "type": "retrieval"}], "type retrieval; only functions"),
        ([{"function": {"name": "a b"}}], r"name of the function in tool 1 is a b; give 1 to 64"),
        ([{"function": {}}], "is None; give 1 to 64"),
        ([{"function": {"name": "a", "description": 7}}], "description of the tool a is 7"),
        ([{"function": {"name": "a", "parameters": [1]}}], "parameters of the tool a"),
        ([{"function": {"name": "a", "parameters": {"type": "obj"}}}], r"parameters\.type is obj, which draft 7"),
        ([{"function": {"name": "a", "parameters": {"properties": {"b": 1}}}}], r"parameters\.properties\.b is 1"),
        ([{"function": {"name": "a", "parameters": {"x": {1, 2}}}}], "cannot be written as JSON"),
    ],
)
def test_impossible_tools_are_refused(tools, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        encode_chat(load_tokenizer(mistral_folder(tmp_path, "v3")), [user("a")], tools=tools)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (calls("add"), "a tool call of message 2 is add"),
        ({"role": "assistant", "tool_calls": "add"}, "the tool_calls of message 2 are add; give a list"),
        (calls({"id": 7, "function": {"name": "add"}}), "the id of a tool call of message 2 is 7"),
        (calls({"function": "add"}), "the function in a tool call of message 2 is add"),
        (calls({"function": {"name": "add", "arguments": [1]}}), "the arguments in a tool call of message 2"),
        (calls({"type": "x", "function": {"name": "add"}}), "type x; only functions"),
        ({**user("a"), "tool_calls": [call()]}, "only assistant messages have tool_calls"),
        (result("a", 7), "the tool_call_id of message 2 is 7"),
        (result([thinking("a")]), "message 2 has thinking and the role tool"),
    ],
)
def test_impossible_calls_are_refused(message, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        encode_chat(load_tokenizer(mistral_folder(tmp_path, "v3")), [user("a"), message, result()])


def test_a_model_with_another_format_takes_no_tools(tmp_path):
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer = load_tokenizer(byte_level_folder(tmp_path, chat_template=template))
    for messages, tools in (([user("a")], [ADD]), ([user("a"), calls(call()), result()], None)):
        with pytest.raises(OptionError, match="tools cannot be written in the model's own chat template"):
            encode_chat(tokenizer, messages, tools=tools)
