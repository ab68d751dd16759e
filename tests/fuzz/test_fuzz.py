"""Runs a fixed part of the fuzzer's cases; fuzz/run.py runs as many as you like."""

import pytest
from fuzz import run as fuzz
from fuzz.readers import READERS

N_CASES = {"safetensors": 150, "index": 100, "config": 200, "gguf": 100, "template": 100, "kernels": 200}
SLOW = 30  # cases of the others


@pytest.mark.parametrize("name", READERS)
def test_a_slice_of_the_cases_finds_nothing(tmp_path, name):
    found = list(fuzz.findings(name, 0, range(N_CASES.get(name, SLOW)), tmp_path))
    assert found[:-1] == []
    assert int(found[-1].removeprefix(fuzz.ACCEPTED)) > 0  # a reader that refuses everything tests little


def test_what_a_reader_does_not_promise_is_a_finding(tmp_path, monkeypatch):
    def broken(self, rng):
        raise IndexError(rng.random() < 2)

    monkeypatch.setattr(READERS["config"], "__call__", broken)
    found = list(fuzz.findings("config", 0, range(2), tmp_path))
    assert [line.split(" in ")[0] for line in found] == ["case 0: IndexError", "case 1: IndexError", "accepted: 0"]
