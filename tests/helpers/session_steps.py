"""Steps of a conversation, each compared with a cold run over its messages."""

from helpers.models import LetterTokenizer, tiny_model

from mistral_mlx import Session, encode_chat, generate_step
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.model.cache_options import DEFAULT
from mistral_mlx.sampling.sampler import Sampler

TEXTS = ["hello there", "and then", "why", "tell me more of it", "go on", "so"]
WINDOWS = {"windowed": 24, "tiny window": 8, "two windows": [8, 24], "full": None, "interleaved": [24, None]}
GREEDY = Sampler(temperature=0)


def new_session(sliding_window, *, max_position_embeddings=4096, choice=DEFAULT, **options):
    """Return an empty session; `choice` is that of the model's cache."""
    config = {"sliding_window": sliding_window, "max_position_embeddings": max_position_embeddings}
    model = tiny_model(choice=choice, **config)[0]
    return Session(model, LetterTokenizer(), **options)


def cold(session, messages, n):
    """Return the greedy ids after `messages`, from an empty cache."""
    system = [{"role": "system", "content": session.system}] if session.system else []
    ids = encode_chat(session.tokenizer, [*system, *messages])
    return list(generate_step(ids, session.model, sampler=GREEDY, max_tokens=n))


def transcript_of(session, name, *args):
    """Return the messages that an operation answers, without asking the session."""
    messages = list(session.messages)
    if name == "continue_answer":
        return messages
    if name == "ask":
        return [*messages, {"role": "user", "content": args[0]}]
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    n, text = args if name == "edit" else (1, messages[users[-1]]["content"])
    return [*messages[: users[-n]], {"role": "user", "content": text}]


def perform(session, name, *args, pieces=None, max_tokens=7, **options):
    """Run an operation to its end, or stop it after some `pieces`; return its ids."""
    asked = AnswerOptions(sampler=GREEDY, max_tokens=max_tokens, **options)
    stream = getattr(session, name)(*args, asked)
    found = []
    for response in stream:
        found.append(response)
        if len(found) == pieces:
            break
    stream.close()
    return [response.token for response in found]


def check(session, name, *args, **options):
    """Perform an operation; compare its ids with a cold run, and the messages with its ids."""
    asked = transcript_of(session, name, *args)
    ids = perform(session, name, *args, **options)
    assert ids == cold(session, asked, len(ids))
    text = session.tokenizer.decode([i for i in ids if i != 2])
    if name == "continue_answer":
        before = asked.pop()["content"]
        text = before + text if before else text
    assert [(m["role"], m["content"]) for m in session.messages[:-1]] == [(m["role"], m["content"]) for m in asked]
    assert (session.messages[-1]["role"], session.messages[-1]["content"].strip()) == ("assistant", text.strip())
    return ids


def random_step(session, rng):
    """Return the name and arguments of an operation that is possible now."""
    names = ["ask", "ask"]
    if session.messages:
        names += ["retry", "edit", "undo"] + ["continue_answer"] * (session.messages[-1]["role"] == "assistant")
    name = rng.choice(names)
    n_turns = sum(message["role"] == "user" for message in session.messages)
    n = rng.randint(1, min(3, n_turns or 1))
    text = rng.choice(TEXTS)
    return name, {"ask": (text,), "edit": (n, text), "undo": (n,)}.get(name, ())
