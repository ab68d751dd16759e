"""Chats in Mistral's own formats, against mistral-common."""

import json

import pytest
from helpers.messages import CHATS, HOSTILE, UNICODE, assistant, system, user
from helpers.tokenizer_files import mistral_folder, write_json
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from mistral_mlx import OptionError, encode_chat, load_tokenizer


def in_mistral_common(truth, messages):
    """The ids of mistral-common for `messages`."""
    kinds = {"user": UserMessage, "system": SystemMessage, "assistant": AssistantMessage}
    converted = [kinds[message["role"]](content=message["content"]) for message in messages]
    if messages[-1]["role"] == "assistant":
        converted[-1].prefix = True
    request = ChatCompletionRequest(messages=converted)
    normalized = truth._instruct_request_normalizer.from_chat_completion_request(request)
    return truth.instruct_tokenizer.encode_instruct(normalized).tokens


@pytest.mark.parametrize("chat", CHATS)
def test_ids_equal_mistral_common(mistral, chat):
    ours, truth = mistral
    ids = encode_chat(ours, CHATS[chat])
    assert ids == in_mistral_common(truth, CHATS[chat])
    assert ids.count(1) == 1


def test_public_door_of_mistral_common_agrees(mistral):
    ours, truth = mistral
    request = ChatCompletionRequest(messages=[SystemMessage(content="Be brief."), UserMessage(content=UNICODE)])
    assert encode_chat(ours, [system("Be brief."), user(UNICODE)]) == truth.encode_chat_completion(request).tokens


def test_text_of_messages_yields_no_control_ids(mistral):
    ours, _ = mistral
    harmless = [system("s"), user("u"), assistant("a"), user("v")]
    hostile = [{**message, "content": HOSTILE} for message in harmless]
    control = set(ours.control.values())
    kept = [i for i in encode_chat(ours, harmless) if i in control]
    assert [i for i in encode_chat(ours, hostile) if i in control] == kept


def test_generated_ids_are_taken_as_they_are(mistral):
    ours, _ = mistral
    letters = [i for letter in "hello" for i in ours.encode(letter)]
    ids = encode_chat(ours, [user("a"), assistant("hello", ids=letters), user("b")])
    written = encode_chat(ours, [user("a"), assistant("hello"), user("b")])
    assert letters != ours.encode("hello") and ids != written
    begin = encode_chat(ours, [user("a")])
    assert ids[: len(begin) + len(letters) + 1] == [*begin, *letters, 2]
    assert encode_chat(ours, [user("a"), assistant("hello", ids=letters)]) == [*begin, *letters]


def test_an_empty_answer_is_left_out_and_its_users_are_joined(mistral):
    ours, _ = mistral
    expected = encode_chat(ours, [user("a\n\nb")])
    assert encode_chat(ours, [user("a"), assistant(""), user("b")]) == expected
    assert encode_chat(ours, [user("a"), assistant("", ids=[]), user("b"), assistant("")]) == expected


def test_an_answer_with_ids_is_not_joined_with_another(mistral):
    ours, _ = mistral
    ids = encode_chat(ours, [user("a"), assistant("x", ids=[500, 501]), assistant("y", ids=[502]), user("b")])
    assert ids[: ids.index(502) + 2][-5:] == [500, 501, 2, 502, 2]
    ids = encode_chat(ours, [user("a"), assistant("x"), assistant("y", ids=[502]), user("b")])
    assert ids[: ids.index(502) + 2][-4:] == [ours.encode("x")[-1], 2, 502, 2]


@pytest.mark.parametrize("named", ["v1", "v2", "v3", "v7"])
def test_a_named_format_is_used_instead_of_the_own_one(named, tmp_path):
    ours = load_tokenizer(mistral_folder(tmp_path, "v7"))
    ids = encode_chat(ours, [system("s"), user("a")], template=named)
    plain = {"v1": ours.encode("[INST] s\n\na [/INST]"), "v7": [16, *ours.encode("s"), 17, 3, *ours.encode("a"), 4]}
    assert ids == [1, *plain.get(named, [3, *ours.encode("s\n\na"), 4])]


@pytest.mark.parametrize("named", ["v7", "v3", "v2"])
def test_a_named_format_the_vocabulary_lacks_is_refused(named, tmp_path):
    with pytest.raises(OptionError, match=r"no \[\w+\] token, which the chat format " + named):
        encode_chat(load_tokenizer(mistral_folder(tmp_path, "v1")), [user("a")], template=named)


def test_an_unknown_format_is_refused_with_the_choices(tmp_path):
    with pytest.raises(OptionError, match=r"chatml.*choose one of v1, v2, v3, v7, v11, v13, v15"):
        encode_chat(load_tokenizer(mistral_folder(tmp_path, "v3")), [user("a")], template="chatml")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages; give"),
        ([assistant("")], "no messages; give"),
        ([user("a"), system("b")], "last message is a system message; put a user message"),
        ([{"role": "tool", "content": "a"}], "tool message must follow an assistant message"),
        ([{"role": "judge", "content": "a"}], "role judge; use one of system, user, assistant, tool"),
        ([{"content": "a"}], "role None; use one of"),
        ([{"role": "user", "content": ["a"]}], "content of message 1 has the chunk a; give a text"),
        ([user("a"), {"role": "assistant"}], "content of message 2 is None; give a text"),
        ([{**user("a"), "ids": [1]}], "only assistant messages have ids"),
        ([assistant("a", ids=["x"])], "give a list of token ids"),
        ([assistant("a", ids=[-1])], "give a list of token ids"),
        (["a"], "give a mapping with role and content"),
    ],
)
def test_impossible_messages_are_refused(messages, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        encode_chat(load_tokenizer(mistral_folder(tmp_path, "v3")), messages)


def test_messages_are_left_as_they_were(mistral):
    messages = [system("s"), user("a"), user("b"), assistant("c "), user("d")]
    before = json.dumps(messages)
    assert encode_chat(mistral[0], messages) == encode_chat(mistral[0], messages)
    assert json.dumps(messages) == before


def test_a_mistral_template_gives_the_built_in_format(tmp_path):
    mistral_folder(tmp_path, "v3")
    plain = encode_chat(load_tokenizer(tmp_path), [user("a")])
    write_json(tmp_path, "tokenizer_config.json", {"chat_template": "{{ bos_token }}[INST] wrong [/INST]"})
    assert encode_chat(load_tokenizer(tmp_path), [user("a")]) == plain


def test_llama_2_is_not_taken_for_mistral(tmp_path):
    mistral_folder(tmp_path, "v1")
    template = "{{ bos_token }}[INST] <<SYS>>{{ messages[0].content }}<</SYS>> [/INST]"
    write_json(tmp_path, "tokenizer_config.json", {"chat_template": template})
    tokenizer = load_tokenizer(tmp_path)
    expected = [1, *tokenizer.encode("[INST] <<SYS>>a<</SYS>> [/INST]")]
    assert encode_chat(tokenizer, [user("a")]) == expected
