"""A session of each kind of window, and a file for it."""

import pytest
from helpers.session_steps import WINDOWS, new_session


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.json"


@pytest.fixture(params=WINDOWS.values(), ids=WINDOWS)
def session(request):
    return new_session(request.param, system="be kind")
