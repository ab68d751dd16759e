"""Kept prompts: whatever is on the disk, an answer is that of a cold run."""

import os
import random
import stat

import pytest
from helpers.kept_prompts import answer, files_of, long_ids
from helpers.models import tiny_model

from mistral_mlx import kernels
from mistral_mlx.errors import ContextError, OptionError
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.cache_options import CacheOptions
from mistral_mlx.session import kept_entry
from mistral_mlx.session.kept import KeptPrompts

WINDOWS = {"full": None, "tiny window": 4, "windowed": 24, "interleaved": [8, None]}
IDS = long_ids(200)


@pytest.fixture(params=WINDOWS.values(), ids=WINDOWS)
def model(request):
    return tiny_model(sliding_window=request.param, max_position_embeddings=4096)[0]


@pytest.fixture(scope="module")
def full():
    return tiny_model(sliding_window=None)[0]


@pytest.fixture
def store(tmp_path):
    return KeptPrompts(tmp_path / "kept", 10**9)


def test_the_second_run_takes_up_what_the_first_one_kept(store, model):
    assert answer(store, model, IDS, keep=150) == (0, True)
    assert answer(store, model, IDS) == (150, False)
    assert answer(store, model, [*IDS[:150], 7, 7, 7]) == (150, False)


def test_a_prompt_that_was_kept_as_a_whole_leaves_one_id_to_evaluate(store, model):
    answer(store, model, IDS, keep=200)
    assert answer(store, model, IDS) == (199, False)


def test_thousands_of_prompts_have_the_answers_of_cold_runs(store, model):
    """Prompts share beginnings of any length; some wrap their ring, which can go back a few tokens only."""
    rng, n_taken = random.Random(3), 0
    known = [long_ids(n, seed=n) for n in (80, 200, 300)]
    for _ in range(600):
        start = rng.choice(known)
        start = start[: rng.choice([len(start), rng.randrange(1, len(start))])]
        ids = start + long_ids(rng.randrange(1, 40), rng.random())
        known = [*known[-5:], ids] if rng.random() < 0.2 else known
        n_taken += answer(store, model, ids, keep=rng.choice([0, len(ids), rng.randrange(len(ids))]), n=4)[0] > 0
    assert n_taken > 100


def test_a_ring_goes_back_as_far_as_it_can_and_no_further(store):
    """It has 64 slots more than its window of 64."""
    model = tiny_model(sliding_window=64)[0]
    ids = long_ids(400)
    answer(store, model, ids, keep=300)
    assert answer(store, model, [*ids[:235], 7, 8]) == (235, False)
    assert answer(store, model, [*ids[:234], 7, 8]) == (0, False)


def test_a_beginning_that_the_ring_has_overwritten_is_kept_from_a_snapshot(store):
    model = tiny_model(sliding_window=8)[0]
    ids = long_ids(500)
    timeline = Timeline(model)
    timeline.extend(ids)
    assert not store.keep(timeline, 100)
    assert answer(store, model, ids, keep=100) == (0, True)
    assert answer(store, model, ids) == (100, False)


def test_the_longest_beginning_is_taken(store, full):
    for n in (100, 150, 80):
        answer(store, full, [*IDS[:n], *long_ids(70, n)], keep=n + 60)
    assert answer(store, full, IDS) == (150, False)


def test_fewer_tokens_than_are_worth_a_file_are_neither_kept_nor_taken(store, full):
    assert answer(store, full, IDS, keep=63) == (0, False)
    assert answer(store, full, IDS, keep=64) == (0, True)
    assert answer(store, full, [*IDS[:63], 7, 7]) == (0, False)
    assert answer(store, full, IDS[:64]) == (0, False)
    assert answer(store, full, IDS[:65]) == (64, False)


def test_a_timeline_that_holds_as_much_is_left_alone(store, full):
    answer(store, full, IDS, keep=150)
    timeline = Timeline(full)
    timeline.extend(IDS[:140])
    assert store.take_up(timeline, IDS) == 0
    assert timeline.ids == IDS[:140]
    with pytest.raises(ContextError):
        store.take_up(timeline, IDS * 3)
    with pytest.raises(OptionError):
        store.take_up(timeline, [*IDS, -1])


def test_files_are_for_their_owner_only(store, full):
    answer(store, full, IDS, keep=150)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()] == [0o600]


# What goes and what stays


def test_what_was_used_longest_ago_makes_room(tmp_path, full):
    prompts = [long_ids(100, seed) for seed in range(4)]
    folder = tmp_path / "kept"
    answer(KeptPrompts(folder, 10**9), full, prompts[0], keep=90)
    (first,) = files_of(KeptPrompts(folder, 0))
    nbytes = first.stat().st_size
    os.utime(first, (1, 1))
    store = KeptPrompts(folder, 3 * nbytes)
    for seed in (1, 2):
        answer(store, full, prompts[seed], keep=90)
    assert answer(store, full, prompts[0])[0] == 90  # used just now
    answer(store, full, prompts[3], keep=90)
    assert [answer(store, full, ids)[0] for ids in prompts] == [90, 0, 90, 90]
    assert sum(path.stat().st_size for path in files_of(store)) <= store.limit


def test_what_takes_more_than_half_of_the_limit_is_not_kept(tmp_path, full):
    answer(KeptPrompts(tmp_path, 10**9), full, IDS, keep=100)
    nbytes = files_of(KeptPrompts(tmp_path, 0))[0].stat().st_size
    assert answer(KeptPrompts(tmp_path, nbytes), full, long_ids(200, 1), keep=100) == (0, False)
    assert len(files_of(KeptPrompts(tmp_path, 0))) == 1


def test_a_longer_beginning_takes_the_place_of_those_that_it_serves(store, full):
    answer(store, full, IDS, keep=100)
    answer(store, full, IDS, keep=180)
    answer(store, full, [*IDS[:120], *long_ids(80, 1)], keep=190)
    assert sorted(info.tokens for info in store.found()) == [180, 190]
    ring = tiny_model(sliding_window=64)[0]
    for n in (100, 180, 199):
        answer(store, ring, IDS, keep=n)
    assert sorted(info.tokens for info in store.found()) == [100, 180, 190, 199]  # from 199 it goes back to 134


def test_a_list_shows_the_last_used_first_and_clear_removes_all(store, full):
    for seed in (1, 2):
        answer(store, full, long_ids(100, seed), keep=64 + seed, name=f"model {seed}\n")
        os.utime(files_of(store)[0], (seed, seed)) if seed == 1 else None
    found = store.found()
    assert [(info.model, info.tokens) for info in found] == [("model 2\\x0a", 66), ("model 1\\x0a", 65)]
    assert [(info.nbytes, info.used_at) for info in found] == [
        (info.path.stat().st_size, info.path.stat().st_mtime) for info in found
    ]
    other = store.folder / "notes.txt"
    other.write_text("mine")
    assert store.clear() == (2, sum(info.nbytes for info in found))
    assert list(store.folder.iterdir()) == [other]
    assert (store.found(), store.clear()) == ([], (0, 0))


def test_half_a_file_of_a_killed_process_goes_when_it_is_old(store, full):
    answer(store, full, IDS, keep=100)
    left, new = (store.folder / f".{'a' * 16}-{'b' * 16}.{digit * 16}.partial" for digit in "01")
    left.touch()
    new.touch()
    os.utime(left, (1, 1))
    answer(store, full, IDS, keep=200)
    assert (left.exists(), new.exists()) == (False, True)


# Others' files


def test_another_model_of_the_same_shapes_takes_nothing(store, full):
    answer(store, full, IDS, keep=150)
    other = tiny_model(sliding_window=None, seed=1)[0]
    assert answer(store, other, IDS, keep=150) == (0, True)
    assert [answer(store, model, IDS)[0] for model in (full, other)] == [150, 150]


def test_other_kernels_or_an_exact_run_take_nothing(store, full, monkeypatch):
    answer(store, full, IDS, keep=150)
    with kernels.exactly():
        assert answer(store, full, IDS, keep=150) == (0, True)
        assert answer(store, full, IDS)[0] == 150
    for name in ("__version__", "computed_by", "LAYOUT"):
        with monkeypatch.context() as patch:
            patch.setattr(kept_entry, name, (lambda: "others") if name == "computed_by" else "others")
            assert answer(store, full, IDS)[0] == 0
    assert answer(store, full, IDS)[0] == 150


def test_each_choice_of_the_cache_has_prompts_of_its_own(store, full):
    answer(store, full, IDS, keep=150)
    choices = [CacheOptions(kv_bits=8), CacheOptions(24), CacheOptions(24, 4), CacheOptions(24, 4, 8)]
    models = [tiny_model(choice=choice, sliding_window=None)[0] for choice in choices]
    assert [answer(store, model, IDS, keep=150) for model in models] == [(0, True)] * 4
    assert [answer(store, model, IDS)[0] for model in (full, *models)] == [150] * 5
