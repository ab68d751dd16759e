"""Damaged kept prompts, full disks, killed processes, two at once: the answer is that of a cold run all the same."""

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
from helpers.kept_prompts import answer, files_of, long_ids
from helpers.models import tiny_model

from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.session.kept import KeptPrompts
from mistral_mlx.session.kept_entry import read_entry
from mistral_mlx.session.saved_cache import _crc32, _with_ids

IDS = long_ids(200)


@pytest.fixture(scope="module")
def model():
    return tiny_model(sliding_window=24)[0]


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, model, said):
    """A store with one kept prompt of 150 tokens."""
    store = KeptPrompts(tmp_path / "kept", 10**9, said.append)
    assert answer(store, model, IDS, keep=150) == (0, True)
    return store


def assert_said_once(said, what):
    assert len(said) == 1 and what in said[0] and "\n" not in said[0] and len(said[0]) < 300, said


HEADERS = {
    "nested": b'{"__metadata__":' + b"[" * 100_000,
    "a list": b"[1]",
    "no metadata": b"{}",
    "numbers": b'{"__metadata__":{"ids":1}}',
    "metadata of a number": b'{"__metadata__":7}',
    "other texts": b'{"__metadata__":{"ids":"!","fingerprint":"","made_by":"","name":""}}',
    "half an id": b'{"__metadata__":{"ids":"AAAA","fingerprint":"","made_by":"","name":""}}',
    "a text with half a character": b'{"__metadata__":{"ids":"\\ud800"}}',
    "no UTF-8": b"\xff" * 9,
    "large": b'{"__metadata__":{"x":"' + b"x" * 5_000_000 + b'"}}',
}


@pytest.mark.parametrize("what", ["cut", "longer", "flipped", "empty", *HEADERS])
def test_a_damaged_file_is_removed_and_said_in_one_line(store, model, said, what):
    (path,) = files_of(store)
    raw = path.read_bytes()
    middle = len(raw) // 2
    flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
    damaged = {"cut": raw[:-1], "longer": raw + b"x", "flipped": flipped, "empty": b""}
    if what in HEADERS:
        damaged[what] = len(HEADERS[what]).to_bytes(8, "little") + HEADERS[what]
    path.write_bytes(damaged[what])
    assert answer(store, model, IDS) == (0, False)
    assert_said_once(said, "is removed; the prompt is read again")
    assert files_of(store) == []
    assert answer(store, model, IDS, keep=150) == (0, True)
    assert answer(store, model, IDS)[0] == 150


def test_no_flipped_bit_gives_another_answer(store, model, said):
    """The checksum is over all of the file, its header too."""
    (path,) = files_of(store)
    raw, rng = path.read_bytes(), random.Random(5)
    length = int.from_bytes(raw[:8], "little")
    for _ in range(200):
        at = rng.randrange(rng.choice([8 + length, len(raw)]))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :])
        assert answer(store, model, IDS)[0] == 0
        assert all("\n" not in remark for remark in said)
    path.write_bytes(raw)
    assert answer(store, model, IDS)[0] == 150


@pytest.mark.parametrize(
    "reserved", ["[]", "[1, 1]", "[150, 9000]", "[" * 100_000, "9" * 9999, "null", "[150.0, 150.0]"]
)
def test_a_file_with_the_right_checksum_and_impossible_rings_is_removed(store, model, said, reserved):
    (path,) = files_of(store)
    arrays, metadata = mx.load(str(path), return_metadata=True)
    rewritten(path, arrays, {**metadata, "reserved": reserved})
    assert answer(store, model, IDS)[0] == 0
    assert_said_once(said, "is removed")


@pytest.mark.parametrize("dtype", [mx.int32, mx.bfloat16, mx.float32])
def test_a_file_of_another_dtype_does_no_harm(store, model, dtype):
    (path,) = files_of(store)
    arrays, metadata = mx.load(str(path), return_metadata=True)
    rewritten(path, {name: array.astype(dtype) for name, array in arrays.items()}, metadata)
    timeline = Timeline(model)
    store.take_up(timeline, IDS)
    timeline.extend(IDS[len(timeline.ids) :])
    timeline.step(7)


def test_a_file_of_other_tensors_is_removed(store, model, said):
    (path,) = files_of(store)
    arrays, metadata = mx.load(str(path), return_metadata=True)
    rewritten(path, {name: array[:, :1] for name, array in arrays.items()}, metadata)
    assert answer(store, model, IDS)[0] == 0
    assert_said_once(said, "is removed")


def rewritten(path, arrays, metadata):
    """Replace the file by one of `arrays` and `metadata` whose checksum is right."""
    ids = read_entry(path).ids
    path.unlink()
    mx.save_safetensors(str(path), arrays, metadata)
    path.rename(path.with_name(f"{path.name[:-20]}{_with_ids(ids, _crc32(path)):08x}.safetensors"))


def test_a_file_under_the_name_of_another_is_removed(store, model, said):
    others = long_ids(200, 1)
    answer(store, model, others, keep=150)
    first, second = files_of(store)
    first.write_bytes(second.read_bytes())
    assert sorted(answer(store, model, ids)[0] for ids in (IDS, others)) == [0, 150]
    assert_said_once(said, "is removed")


def test_what_is_no_file_is_left_alone(store, model, said):
    (path,) = files_of(store)
    target = path.rename(path.with_name("elsewhere"))
    for make in (lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to(target)):
        make()
        assert answer(store, model, IDS) == (0, False)
        assert (store.found(), said) == ([], [])
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_list_names_a_damaged_file_and_clear_removes_it(store, said):
    files_of(store)[0].write_bytes(b"x")
    assert store.found() == []
    assert_said_once(said, "'mistral-mlx cache clear' removes it")
    assert store.clear() == (1, 1)


# Writing


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(store, model, said, monkeypatch, where):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = {
        "write": "mistral_mlx.session.kept_entry.write_cache", "fsync": "os.fsync", "replace": "pathlib.Path.replace"
    }  # fmt: skip
    before = {path: path.read_bytes() for path in store.folder.iterdir()}
    others = long_ids(200, 1)
    with monkeypatch.context() as patch:
        patch.setattr(place[where], fail)
        assert answer(store, model, others, keep=150) == (0, False)
    assert_said_once(said, "cannot be kept in")
    assert "No space left" in said[0]
    assert {path: path.read_bytes() for path in store.folder.iterdir()} == before
    assert answer(store, model, others, keep=150) == (0, True)


def test_a_kept_prompt_stays_until_the_one_in_its_place_is_there(store, model, monkeypatch):
    """A process that was killed between the two used to lose it."""
    for n in (150, 180):
        timeline = Timeline(model)
        timeline.extend(IDS)
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.replace", lambda path, target: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                store.keep(timeline, n)
        assert answer(store, model, IDS)[0] == 150
    store.keep(timeline, 150)
    assert [info.tokens for info in store.found()] == [150]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path, model, said):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        store = KeptPrompts(folder, 10**9, said.append)
        assert answer(store, model, IDS, keep=150) == (0, False)
        assert_said_once(said, "cannot be kept in")
        said.clear()


def test_an_interrupt_leaves_nothing_half_written(store, model, monkeypatch):
    before = list(store.folder.iterdir())
    timeline = Timeline(model)
    timeline.extend(long_ids(100, 1))

    def interrupt(*args):
        raise KeyboardInterrupt

    for place in ("os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.keep(timeline, 100)
        assert list(store.folder.iterdir()) == before


# Processes

HELPERS = str(Path(__file__).parents[1])
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mlx.core as mx
mx.set_default_device(mx.cpu)
from helpers.kept_prompts import long_ids
from helpers.models import tiny_model
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.session.kept import KeptPrompts
model = tiny_model(sliding_window=24)[0]
store = KeptPrompts(Path(sys.argv[2]), 10**9)
print("keeping", flush=True)
for seed in range(10**6):
    timeline = Timeline(model)
    timeline.extend(long_ids(200, seed))
    store.keep(timeline, 150)
"""


def test_kill_9_in_the_middle_of_writing_leaves_only_whole_prompts(tmp_path, model, said):
    store = KeptPrompts(tmp_path, 10**9, said.append)
    for wait in (0.005, 0.02, 0.05):
        process = subprocess.Popen([sys.executable, "-c", KILLED, HELPERS, str(tmp_path)], stdout=subprocess.PIPE)
        try:
            process.stdout.readline()
            time.sleep(wait)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        n = len(files_of(store))
        assert [answer(store, model, long_ids(200, seed))[0] for seed in range(n + 1)] == [150] * n + [0]
    assert said == []


def work(folder, seed, results):
    """Ask and keep prompts that another process asks for, too, in a store that has room for a few of them."""
    mx.set_default_device(mx.cpu)
    model, said = tiny_model(sliding_window=24)[0], []
    store, rng = KeptPrompts(folder, 250_000, said.append), random.Random(seed)
    n_taken = 0
    for i in range(150):
        n_taken += answer(store, model, long_ids(200, rng.randrange(12)), keep=rng.randrange(64, 200), n=3)[0] > 0
        if i % 40 == seed:
            store.clear()
    results.put((n_taken, said, sum(path.stat().st_size for path in files_of(store))))


def test_two_processes_at_once_have_the_answers_of_cold_runs(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=work, args=(tmp_path, seed, results)) for seed in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert all(n_taken > 10 and said == [] for n_taken, said, _ in found), found
