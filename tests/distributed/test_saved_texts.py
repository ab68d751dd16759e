"""Sessions go from one process to several and back; caches, of which each has a part, stay off the disk."""

import pytest
from helpers.models import LetterTokenizer
from helpers.ranks import Job, drive
from helpers.shared_models import write_model
from helpers.shared_texts import keeps, last_of

from mistral_mlx.model.loading import load_model
from mistral_mlx.session.saved import load, save
from mistral_mlx.session.session import Session

pytestmark = pytest.mark.cpu

WAYS = {"tensor": False, "pipeline": True}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return the folder of each way with its model and files, and the outcomes."""
    folders, jobs = {}, {}
    for way, pipeline in WAYS.items():
        folders[way] = folder = tmp_path_factory.mktemp("files")
        (folder / "kept").mkdir()
        path = write_model(folder / "model", "float32")
        session = Session(load_model(path), LetterTokenizer())
        last_of(session, "hello there")
        save(session, folder / "before.json", {})
        keeps(session.model, folder / "kept")
        wanted = {"pipeline": pipeline}
        jobs[way, "keeps"] = Job(path, "keeps", {"folder": str(folder / "kept")}, wanted)
        jobs[way, "sessions"] = Job(path, "sessions", {"folder": str(folder)}, wanted)
    return folders, drive(2, jobs)


@pytest.mark.distributed
@pytest.mark.parametrize("way", WAYS)
def test_a_session_of_one_process_goes_on_with_several_and_back(found, way):
    folders, outcomes = found
    shared, alone, _ = outcomes[way, "sessions"]
    assert (shared, alone) == ((alone[0], False, False), (alone[0], True, True))
    model = load_model(folders[way] / "model")
    sessions = [load(folders[way] / f"{name}.json", model, LetterTokenizer()).session for name in ("shared", "alone")]
    assert sessions[0].messages == sessions[1].messages
    assert len(sessions[0].messages) == 6


@pytest.mark.distributed
@pytest.mark.parametrize("way", WAYS)
def test_prompts_are_not_kept_and_those_of_one_process_stay_as_they_are(found, way):
    shared, alone, _ = found[1][way, "keeps"]
    assert [(n_taken, is_kept, len(files)) for n_taken, is_kept, files in shared] == [(0, False, 1)] * 2
    assert [(n_taken, is_kept, len(files)) for n_taken, is_kept, files in alone] == [(100, True, 1)] * 2
