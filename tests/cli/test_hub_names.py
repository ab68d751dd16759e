"""The names of models on the hub, and the settings of Hugging Face's tools."""

from pathlib import Path

import pytest

from mistral_mlx.cli.models.hub import settings
from mistral_mlx.cli.models.hub.repo_id import RepoId, parse_repo_id
from mistral_mlx.errors import OptionError

VARIABLES = "HF_ENDPOINT HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH HF_HOME HF_HUB_CACHE HUGGINGFACE_HUB_CACHE \
HF_HUB_OFFLINE TRANSFORMERS_OFFLINE XDG_CACHE_HOME".split()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mistralai/Mistral-7B-v0.1", RepoId("mistralai", "Mistral-7B-v0.1")),
        ("a/b@main", RepoId("a", "b", "main")),
        ("a/b@refs/pr/1", RepoId("a", "b", "refs/pr/1")),
        ("_a/b_1", RepoId("_a", "b_1")),
    ],
)
def test_an_organisation_and_a_repository_are_a_name(text, expected):
    assert parse_repo_id(text) == expected


@pytest.mark.parametrize(
    "text",
    ["demo", "./a/b", "/a/b", "../b", "a/..", "a/b/c", "a/", "/b", "~/b", "a/-b", "a/b--c", "a/b..c", "a/b.git", "a/b.",
     "a/b@", "a/b@../x", "a/b@-x", "a/b@x/", "a b/c", "a/b\n", "é/b", "a/" + "b" * 96],
)  # fmt: skip
def test_a_path_or_a_damaged_name_is_none(text):
    assert parse_repo_id(text) is None


def test_the_endpoint_is_that_of_the_hub_or_of_the_variable(monkeypatch):
    assert settings.endpoint() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:8090/")
    assert settings.endpoint() == "http://localhost:8090"
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    with pytest.raises(OptionError, match="HF_ENDPOINT is file:///etc; it must be an address"):
        settings.endpoint()


@pytest.mark.parametrize("url", ["http://[x", "http://h:99999", "http://", "hub", "http://h?x", "https://me:secret@h"])
def test_an_endpoint_that_is_no_address_is_refused(monkeypatch, url):
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(OptionError, match=r"HF_ENDPOINT .* an address such as") as caught:
        settings.endpoint()
    assert "secret" not in str(caught.value)


def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch, tmp_path):
    assert settings.cache() == tmp_path / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert settings.cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "~/hf")
    assert settings.cache() == tmp_path / "hf/hub"
    monkeypatch.setenv("HF_HUB_CACHE", "$HOME/hub")
    assert settings.cache() == tmp_path / "hub"


def test_the_token_is_that_of_the_variable_or_of_the_login(monkeypatch, tmp_path):
    assert settings.token() is None
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    (tmp_path / ".cache/huggingface/token").write_text("hf_file\n")
    assert settings.token() == "hf_file"
    monkeypatch.setenv("HF_TOKEN", " hf_variable\r\n")
    assert settings.token() == "hf_variable"
    monkeypatch.setenv("HF_TOKEN", "")
    assert settings.token() == "hf_file"


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_the_network_can_be_forbidden(monkeypatch, value, expected):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert settings.is_offline() is expected
