"""Damaged sessions and caches are refused in one line."""

import json

import mlx.core as mx
import pytest
from helpers.saved_sessions import SETTINGS, caches, reload, talk
from helpers.session_steps import check, new_session

from mistral_mlx.errors import SessionError
from mistral_mlx.session.saved import save


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


BAD = {
    "format": ["other", None, 3],
    "version": [2, "1", True, None],
    "fingerprints": [None, [], {}],
    "template": [3, "v9"],
    "system": [3, []],
    "settings": [None, []],
    "cache": [3, {}, {"id": "../../etc/passwd", "crc32": 1, "ids": [1]}],
    "messages": [
        None,
        {},
        ["hello"],
        [{"role": "user"}],
        [{"role": "tool", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": "x", "ids": [6]}],
        [{"role": "user", "content": "x", "extra": 1}],
        [{"role": "assistant", "content": "a", "interrupted": 1}],
        [{"role": "assistant", "content": "a", "ids": [7]}],
        [{"role": "assistant", "content": "", "ids": []}],
        *([{"role": "assistant", "content": "a", "ids": [bad]}] for bad in (64, -1, True, 6.0, "6", None, 1 << 80)),
    ],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_damaged_file_is_refused_in_one_line(path, key, value):
    session = talk(new_session(24), 1)
    save(session, path, SETTINGS)
    document = json.loads(path.read_text())
    document[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(SessionError) as error:
        reload(session, path)
    one_line(error)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff", b'{"format": 1, "format": 1}', b"[" * 100_000, b'{"version": NaN}']
)
def test_what_is_no_session_is_refused_in_one_line(path, raw):
    path.write_bytes(raw)
    with pytest.raises(SessionError) as error:
        reload(new_session(8), path)
    one_line(error)


def test_what_is_not_there_is_said(path):
    for missing in (path, path.parent):
        with pytest.raises(SessionError, match="no saved session"):
            reload(new_session(8), missing)


@pytest.mark.parametrize("what", ["cut", "longer", "flipped", "empty", "other layers", "other ids"])
def test_a_damaged_cache_is_refused_and_can_be_removed(path, what):
    session = talk(new_session(24))
    save(session, path, SETTINGS)
    file = caches(path)[0]
    raw = file.read_bytes()
    middle = len(raw) // 2
    if what == "other layers":
        mx.save_safetensors(str(file), {"0.keys": mx.zeros((1, 2, 24, 8))})
    elif what == "other ids":
        document = json.loads(path.read_text())
        document["cache"]["ids"] = document["cache"]["ids"][:10]
        path.write_text(json.dumps(document))
    else:
        flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        file.write_bytes({"cut": raw[:-1], "longer": raw + b"x", "flipped": flipped, "empty": b""}[what])
    with pytest.raises(SessionError, match="delete") as error:
        reload(session, path)
    one_line(error)
    file.unlink()
    check(reload(session, path), "ask", "why")


@pytest.mark.parametrize("change", [lambda ids: ids.pop(), lambda ids: ids.append(5), lambda ids: ids.reverse()])
def test_a_cache_is_that_of_its_own_tokens_or_is_refused(session, path, change):
    save(talk(session), path, SETTINGS)
    document = json.loads(path.read_text())
    change(document["cache"]["ids"])
    path.write_text(json.dumps(document))
    with pytest.raises(SessionError, match=r"delete .*, and the conversation is read again"):
        reload(session, path)
