"""Reasoning, text and calls of an answer, told apart while its ids arrive."""

import random

import pytest
from helpers.models import LetterTokenizer, Scripted, tiny_model
from helpers.tokenizer_files import mistral_folder, tekken_folder

from mistral_mlx import encode_chat, load_tokenizer
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.channels import AnswerChannels, Parts, split_answer
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline

THINK, END, CALLS = 34, 35, 9
USER = [{"role": "user", "content": "a"}]


@pytest.fixture(scope="module")
def v13(tmp_path_factory):
    return load_tokenizer(tekken_folder(tmp_path_factory.mktemp("v13"), 3000, "v13"))


@pytest.fixture(scope="module")
def v11(tmp_path_factory):
    return load_tokenizer(tekken_folder(tmp_path_factory.mktemp("v11"), 3000, "v11"))


def said(channels, ids, *, cut=False):
    """Return the pieces, joined, and how many tokens were reasoning."""
    parts = []
    for token in ids:
        parts.append(channels.add(token))
        if channels.stopped:
            break
    parts.append(channels.finish(cut=cut))
    return "".join(p.text for p in parts), "".join(p.reasoning for p in parts), channels.reasoning_tokens


def test_what_control_tokens_enclose_is_reasoning(v13):
    ids = [THINK, *v13.encode("Hm 👍. "), END, *v13.encode("Hello 日本! ")]
    n = len(v13.encode("Hm 👍. ")) + 2
    assert said(AnswerChannels(v13), ids) == ("Hello 日本! ", "Hm 👍. ", n)
    twice = [*v13.encode("a"), THINK, *v13.encode("b"), END, *v13.encode("c"), THINK, *v13.encode("d")]
    assert said(AnswerChannels(v13), twice)[:2] == ("ac", "bd")
    assert said(AnswerChannels(v13), [END, *v13.encode("a")])[:2] == ("a", "")


def test_a_mark_in_a_text_is_text(v13):
    for text in ("[THINK]a[/THINK]b", "<think>a</think>b", "a </think>"):
        assert said(AnswerChannels(v13), v13.encode(text)) == (text, "", 0)


def test_a_character_ends_at_a_mark(v13):
    half = [1000 + 0xE6, 1000 + 0x97]
    assert said(AnswerChannels(v13), [THINK, *half, END, *half, THINK])[:2] == ("\ufffd", "\ufffd")
    assert said(AnswerChannels(v13), [THINK, *half], cut=True)[:2] == ("", "")


PLAIN = {
    "<think>\nHm.\n</think>\n\nHello": ("Hello", "Hm."),
    " \n<think>a</think>b": ("b", "a"),
    "<think>\n\na\n\nb </thin k>\n": ("", "a\n\nb </thin k>\n"),
    "<think>a</think>": ("", "a"),
    "<think>": ("", ""),
    "<think>a\n</": ("", "a\n</"),
    "<thinking> a": ("<thinking> a", ""),
    "\n <thi": ("\n <thi", ""),
    "a <think>b</think>": ("a <think>b</think>", ""),
    "<think>a</think>b<think>c</think>": ("b<think>c</think>", "a"),
    "  \n": ("  \n", ""),
    "": ("", ""),
}


@pytest.mark.parametrize("answer", PLAIN)
def test_a_plain_mark_at_the_beginning_begins_reasoning_if_there_is_no_control_token(answer, v11, tmp_path):
    text, reasoning = PLAIN[answer]
    letters = [i for letter in answer for i in v11.encode(letter)]
    for tokenizer, ids in ((v11, letters), (v11, v11.encode(answer))):
        assert said(AnswerChannels(tokenizer), ids)[:2] == (text, reasoning)
        assert split_answer(tokenizer, ids) == Parts(text, reasoning)
    spm = load_tokenizer(mistral_folder(tmp_path, "v3"))
    assert said(AnswerChannels(spm), spm.encode(answer))[:2] == (text, reasoning)


def test_reasoning_in_plain_marks_is_counted_with_its_marks(v11):
    thought, rest = v11.encode("<think>\nHm. So.\n</think>"), v11.encode(" Hello")
    assert said(AnswerChannels(v11), [*thought, *rest])[2] == len(thought)
    assert said(AnswerChannels(v11), v11.encode("<thinner"))[2] == 0


def test_pieces_come_when_they_are_certain(v11):
    channels = AnswerChannels(v11)
    pieces = [channels.add(i) for letter in "<think>\nab</c</think>\nde" for i in v11.encode(letter)]
    assert [p.reasoning for p in pieces if p.reasoning] == ["a", "b", "</c"]
    assert [p.text for p in pieces if p.text] == ["d", "e"]


def test_a_stop_string_ends_the_text_and_not_the_reasoning(v13, v11):
    ids = [THINK, *v13.encode("a. b"), END, *v13.encode("c. d")]
    assert said(AnswerChannels(v13, ["."]), ids)[:2] == ("c", "a. b")
    assert said(AnswerChannels(v11, [". d"]), v11.encode("<think>a. d</think>c. de"))[:2] == ("c", "a. d")


def test_calls_have_no_text_where_tools_are_offered(v13):
    ids = [*v13.encode("I add. "), CALLS, *v13.encode("add"), 32, *v13.encode('{"a": 2}'), CALLS, *v13.encode("b")]
    assert said(AnswerChannels(v13, calls=True), ids)[0] == "I add. "
    assert said(AnswerChannels(v13), ids)[0] == 'I add. add{"a": 2}b'
    assert said(AnswerChannels(v13, calls=True), [THINK, *v13.encode("x"), END, CALLS, 1001])[:2] == ("", "x")


@pytest.mark.parametrize("splits", [True, False])
def test_an_answer_goes_on_inside_reasoning(splits, v13, v11):
    before = encode_chat(v13, [*USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "a"}]}])
    options = {"continues": True, "splits": splits}
    rest = v13.encode("b")
    expected = ("c", "b") if splits else ("bc", "")
    channels = AnswerChannels(v13, before=before[:-1], **options)  # without [/THINK]
    assert said(channels, [*rest, END, *v13.encode("c")])[:2] == expected
    assert said(AnswerChannels(v13, before=before, **options), rest)[:2] == ("b", "")
    before = encode_chat(v11, [*USER, {"role": "assistant", "content": "<think>\na"}])
    expected = ("c", "b") if splits else ("b</think>\nc", "")
    assert said(AnswerChannels(v11, before=before, **options), v11.encode("b</think>\nc"))[:2] == expected


def test_thinking_of_earlier_turns_says_nothing_of_the_next_answer(v13):
    messages = [*USER, {"role": "assistant", "content": "b", "ids": [THINK, 1100]}, *USER]
    channels = AnswerChannels(v13, before=encode_chat(v13, messages))
    assert not channels.thinking and said(channels, v13.encode("c"))[:2] == ("c", "")


def test_any_ids_lose_no_text(v13, v11):
    rng = random.Random(1)
    for tokenizer in (v13, v11):
        for _ in range(200):
            ids = [rng.choice([THINK, END, *range(1000, 1300)]) for _ in range(20)]
            if tokenizer is v11:
                ids = [i for i in ids if i >= 1000]
            parts = split_answer(tokenizer, ids)
            assert len(parts.text) + len(parts.reasoning) == len(tokenizer.decode(ids))


def test_a_stream_counts_the_tokens_of_both():
    class Thinker(LetterTokenizer):
        def __init__(self):
            super().__init__()
            self.control = {**self.control, "[THINK]": 0, "[/THINK]": 5}

    model, _ = tiny_model()
    tokenizer = Thinker()
    ids = [0, *tokenizer.encode("so"), 5, *tokenizer.encode("yes"), 2]
    options = AnswerOptions(sampler=Scripted(ids), max_tokens=20)
    responses = list(stream(Timeline(model), tokenizer, [1, 7, 8], options))
    assert "".join(r.text for r in responses) == "yes"
    assert "".join(r.reasoning for r in responses) == "so"
    assert (responses[-1].generation_tokens, responses[-1].reasoning_tokens) == (8, 4)
