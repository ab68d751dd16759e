"""Reasoning in a session: apart from the content, kept as ids, saved, and the effort of v15."""

import json

import pytest
from helpers.models import Scripted, tiny_model
from helpers.tokenizer_files import CHATML, byte_level_json, tekken_folder, write_json

from mistral_mlx import OptionError, Session, SessionError, encode_chat, load_tokenizer
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.session.saved import load, save

EOS, THINK, END = 2, 34, 35


@pytest.fixture(params=["v11", "v13", "v15"])
def session(request, tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, request.param))
    return Session(tiny_model(vocab_size=1300, sliding_window=None)[0], tokenizer)


def thinking(session, reasoning, *, closed=True):
    """Return the ids of reasoning as the model of this session writes it."""
    encode = session.tokenizer.encode
    if session.tokenizer.version == "v11":
        return encode(f"<think>\n{reasoning}" + ("\n</think>\n" if closed else ""))
    return [THINK, *encode(reasoning), *([END] if closed else [])]


def answer(session, ids, question="a", **options):
    stream = session.ask(question, AnswerOptions(sampler=Scripted(ids), **options))
    return list(stream)


def test_reasoning_is_beside_the_content_and_stays_in_the_history_as_ids(session):
    ids = [*thinking(session, "so"), *session.tokenizer.encode("yes")]
    responses = answer(session, [*ids, EOS])
    assert session.messages[-1] == {"role": "assistant", "content": "yes", "reasoning": "so", "ids": ids}
    assert "".join(r.text for r in responses) == "yes"
    answer(session, [EOS], "b")
    whole = encode_chat(session.tokenizer, session.messages)
    assert ",".join(map(str, ids)) in ",".join(map(str, whole))


def test_an_answer_goes_on_where_its_reasoning_was_interrupted(session):
    answer(session, thinking(session, "so", closed=False), max_tokens=len(thinking(session, "so", closed=False)))
    assert (session.messages[-1]["content"], session.messages[-1]["reasoning"]) == ("", "so")
    rest = [*session.tokenizer.encode(" it"), *thinking(session, "", closed=True)[-1:]]
    if session.tokenizer.version == "v11":
        rest = session.tokenizer.encode(" it\n</think>\n")
    options = AnswerOptions(sampler=Scripted([*rest, *session.tokenizer.encode("yes"), EOS]))
    responses = list(session.continue_answer(options))
    assert "".join(r.text for r in responses) == "yes"
    assert (session.messages[-1]["content"], session.messages[-1]["reasoning"]) == ("yes", "so it")


OPENS = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")


def chatml_session(path, template):
    write_json(path, "tokenizer.json", json.loads(byte_level_json()))
    write_json(path, "tokenizer_config.json", {"chat_template": template, "eos_token": "<|im_end|>"})
    tokenizer = load_tokenizer(path)
    model, _ = tiny_model(vocab_size=tokenizer.rows_needed(), sliding_window=None, eos_token_id=tokenizer.eos_id)
    return Session(model, tokenizer)


@pytest.mark.parametrize(("template", "begins"), [(CHATML, "<think>\n"), (OPENS, "")])
def test_an_answer_of_chatml_goes_on_inside_its_reasoning(tmp_path, template, begins):
    """The header of the answer hid its <think>, and one that the template writes was not seen at all."""
    session = chatml_session(tmp_path, template)
    encode, eos = session.tokenizer.encode, session.tokenizer.eos_id
    first, rest = encode(f"{begins}so"), [*encode(" it\n</think>\n\nyes"), eos]
    said = answer(session, first, max_tokens=len(first))
    assert ("".join(r.text for r in said), "".join(r.reasoning for r in said)) == ("", "so")
    said = list(session.continue_answer(AnswerOptions(sampler=Scripted(rest))))
    assert ("".join(r.text for r in said), "".join(r.reasoning for r in said)) == ("yes", " it")
    message = session.messages[-1]
    assert (message["content"], message["reasoning"]) == ("yes", "so it")
    written = session.ids
    answer(session, [eos], "b")
    assert session.ids[: len(written)] == written  # the history has what the model read and wrote
    assert session.tokenizer.decode(message["ids"]) == "<think>\nso it\n</think>\n\nyes"


def test_a_template_that_ends_the_reasoning_itself_is_followed_by_text(tmp_path):
    session = chatml_session(tmp_path, OPENS.replace("<think>\n", "<think>\n\n</think>\n\n"))
    said = answer(session, [*session.tokenizer.encode("yes <think>"), session.tokenizer.eos_id])
    assert ("".join(r.text for r in said), session.messages[-1].get("reasoning")) == ("yes <think>", None)


def test_reasoning_before_a_stop_string_is_a_chunk_in_the_history(session):
    """Then the ids say more than what was shown, and are not kept."""
    answer(session, [*thinking(session, "so"), *session.tokenizer.encode("yes. No"), EOS], stop=["."])
    assert session.messages[-1] == {"role": "assistant", "content": "yes", "reasoning": "so"}
    answer(session, [EOS], "b")
    assert (THINK in session.ids) == (session.tokenizer.version != "v11")


def test_a_saved_session_has_its_reasoning(session, tmp_path):
    answer(session, [*thinking(session, "so"), *session.tokenizer.encode("yes"), EOS])
    path = tmp_path / "talk.json"
    save(session, path, {})
    loaded, *_ = load(path, session.model, session.tokenizer)
    assert loaded.messages == session.messages and loaded.ids == session.ids
    document = json.loads(path.read_text())
    for reasoning in ("no", "", 7):
        document["messages"][-1]["reasoning"] = reasoning
        path.write_text(json.dumps(document))
        with pytest.raises(SessionError, match="is damaged"):
            load(path, session.model, session.tokenizer)


def test_a_session_saved_with_reasoning_in_its_content_can_be_read(session, tmp_path):
    """As earlier versions did."""
    ids = [*thinking(session, "so"), *session.tokenizer.encode("yes")]
    answer(session, [*ids, EOS])
    path = tmp_path / "talk.json"
    save(session, path, {})
    document = json.loads(path.read_text())
    document["messages"][-1] = {"role": "assistant", "content": session.tokenizer.decode(ids), "ids": ids}
    path.write_text(json.dumps(document))
    loaded, *_ = load(path, session.model, session.tokenizer)
    assert loaded.messages[-1]["ids"] == ids


def test_the_effort_holds_for_all_further_answers(session):
    if session.tokenizer.version != "v15":
        with pytest.raises(OptionError, match="this model has no such setting"):
            session.set_effort("high")
        return
    answer(session, [EOS])
    session.set_effort("high")
    answer(session, [EOS], "b")
    assert (
        session.ids
        == encode_chat(session.tokenizer, session.messages[:-1], reasoning_effort="high")[: len(session.ids)]
    )
    with pytest.raises(OptionError, match="this model knows none, high"):
        session.set_effort("low")
    assert session.reasoning_effort == "high"


def test_a_system_prompt_of_chunks_is_saved(session, tmp_path):
    chunks = [{"type": "text", "text": "Think: "}, {"type": "thinking", "thinking": "so", "closed": True}]
    if session.tokenizer.version != "v13":
        return
    session.set_system(chunks)
    answer(session, [EOS])
    path = tmp_path / "talk.json"
    save(session, path, {})
    assert load(path, session.model, session.tokenizer)[0].system == chunks
    document = json.loads(path.read_text()) | {"system": [{"type": "image"}]}
    path.write_text(json.dumps(document))
    with pytest.raises(SessionError, match="is damaged: the content of the system prompt"):
        load(path, session.model, session.tokenizer)
