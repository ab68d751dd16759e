"""A network with faults, tokens, and processes that end early: what `pull` does about them."""

import hashlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from urllib.request import Request

import pytest
from helpers.fake_hub import fake_hub
from helpers.invoke import invoke

from mistral_mlx.cli.models.hub import opener, web
from mistral_mlx.cli.models.registry import registered
from mistral_mlx.errors import ConversionError, OptionError

NAME = "org/tiny"
BIG = "model.safetensors"


def folder_of(name=NAME):
    return registered()[name]


def partial(home):
    return home / "home/models/.org--tiny.partial"


def part(home, name, data):
    """The path of a file that has arrived in part: as the program calls it."""
    return partial(home) / f"{name}.{hashlib.sha256(data).hexdigest()[:16]}.part"


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_cut_download_goes_on(hub, hub_files, has_ranges):
    hub.has_ranges, hub.cuts = has_ranges, [30_000, 0, 40_000]
    invoke("pull", NAME)
    assert (folder_of() / BIG).read_bytes() == hub_files[BIG]
    ranges = [asked.range for asked in hub.asked if BIG in asked.path]
    assert ranges[:2] == [None, "bytes=30000-"]


def test_a_download_that_is_always_cut_ends_and_keeps_what_is_here(hub, hub_files, tmp_path):
    hub.cuts = [50_000] + [0] * 20
    with pytest.raises(
        ConversionError, match=r"cannot be reached \(the connection was cut\).*; 0\.\d MB of 0\.\d MB are"
    ):
        invoke("pull", NAME)
    assert part(tmp_path, BIG, hub_files[BIG]).stat().st_size == 50_000
    hub.cuts.clear()
    hub.asked.clear()
    said = invoke("pull", NAME).stderr
    assert "of it here already" in said
    assert [asked.range for asked in hub.asked if "resolve" in asked.path] == ["bytes=50000-"]
    assert (folder_of() / BIG).read_bytes() == hub_files[BIG]


@pytest.mark.parametrize("begun", [b"", b"x" * 100, b"x" * 10_000_000])
def test_a_damaged_beginning_is_fetched_again(hub, hub_files, tmp_path, begun):
    partial(tmp_path).mkdir(parents=True)
    part(tmp_path, BIG, hub_files[BIG]).write_bytes(begun)
    (partial(tmp_path) / "of-another-commit.safetensors").write_bytes(b"x")
    invoke("pull", NAME)
    assert (folder_of() / BIG).read_bytes() == hub_files[BIG]
    assert not (folder_of() / "of-another-commit.safetensors").exists()


@pytest.mark.parametrize("name", [BIG, "config.json"])
def test_a_file_with_a_wrong_hash_is_refused(hub, tmp_path, name):
    hub.damaged = {name}
    with pytest.raises(ConversionError, match=rf"{name} arrived damaged: its hash is \w+…, not \w+…"):
        invoke("pull", NAME)
    assert not list(partial(tmp_path).glob(f"{name}*"))
    assert registered() == {}


@pytest.mark.parametrize(
    ("part", "code", "headers", "said"),
    [
        ("revision", 401, {}, "there is no such model at {}/org/tiny, or it is private (401 Unauthorized); check the "
         "name, or set HF_TOKEN"),
        ("revision", 404, {"X-Error-Code": "RepoNotFound"}, "there is no such model"),
        ("revision", 404, {"X-Error-Code": "RevisionNotFound"}, "the model has no such revision; {}/org/tiny lists"),
        ("resolve", 403, {"X-Error-Code": "GatedRepo"}, "is gated; accept its terms at {}/org/tiny, then set"),
        ("resolve", 401, {"X-Error-Code": "GatedRepo"}, "the model is gated"),
        ("resolve", 403, {"X-Error-Message": "no\x1b[31m"}, "may not be read (403 no\\x1b[31m); set HF_TOKEN"),
        ("resolve", 404, {"X-Error-Code": "EntryNotFound"}, "a file has gone from {}/org/tiny"),
        ("revision", 429, {"Retry-After": "4000"}, "the hub asks to wait 4000 s (429 Too Many Requests); try again"),
        ("revision", 429, {"RateLimit": '"api";r=0;t=999'}, "the hub asks to wait 999 s"),
        ("revision", 410, {}, "the hub answers 410 Gone; look at {}/org/tiny, or try again later"),
        ("revision", 302, {"Location": "file:///x"}, "the hub redirects to file:///x, which is not safe"),
        ("resolve", 302, {"Location": "ftp://h/x"}, "the hub redirects to ftp://h/x, which is not safe"),
        ("revision", 302, {"Location": "http://[x"}, "the hub names what is no address"),
    ],
)  # fmt: skip
def test_each_refusal_says_what_to_do(hub, part, code, headers, said):
    hub.refusals = [(part, code, headers)]
    with pytest.raises(ConversionError) as caught:
        invoke("pull", NAME)
    assert said.replace("{}", hub.address) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_redirect_leaves_encryption():
    redirects, body, head = opener._Redirects("https://hub", "hf_secret"), io.BytesIO(), {"location": "http://cdn/x"}
    with pytest.raises(ConversionError, match="the hub redirects to http://cdn/x, which is not safe"):
        redirects.http_error_302(Request("https://hub/x"), body, 302, "Found", head)
    followed = redirects.redirect_request(Request("https://hub/x"), body, 302, "Found", head, "https://cdn/x")
    assert followed.full_url == "https://cdn/x" and not followed.has_header("Authorization")


def test_a_circle_of_redirects_ends(hub):
    hub.elsewhere = hub.address
    with pytest.raises(ConversionError, match=r"the hub answers 302 .*infinite loop"):
        invoke("pull", NAME)


def test_a_busy_hub_is_asked_again(hub):
    hub.refusals = [("revision", 503, {}), ("revision", 429, {"Retry-After": "0"}), ("resolve", 502, {})]
    invoke("pull", NAME)
    assert NAME in registered()


def test_a_hub_that_stays_busy_is_given_up(hub):
    hub.refusals = [("revision", 503, {})] * web.N_TRIES
    with pytest.raises(
        ConversionError, match=r"the hub answers 503 Service Unavailable; look at .*, or try again later"
    ):
        invoke("pull", NAME)


def test_a_hub_that_is_not_there_is_named(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConversionError, match=r"127\.0\.0\.1:9 cannot be reached \(.*refused\); check the connection"):
        invoke("pull", NAME)


def test_a_silent_hub_is_given_up(hub, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(web, "N_TRIES", 2)
    hub.silence_s = 0.5
    with pytest.raises(ConversionError, match=r"cannot be reached \(.*timed out\)"):
        invoke("pull", NAME)


@pytest.mark.parametrize(
    "page", [{"sha": "main"}, {"sha": None}, {"sha": "../../x"}, {"cardData": [], "tags": {}, "gated": 3, "sha": ["a"]}]
)
def test_a_page_that_makes_no_sense_is_refused(hub, page):
    hub.page = page
    with pytest.raises(ConversionError, match=r"says nothing of org/tiny; check HF_ENDPOINT"):
        invoke("pull", NAME)


def test_a_page_that_ends_too_early_is_refused(hub):
    hub.refusals = [("tree", 200, {"Transfer-Encoding": "chunked"})] * web.N_TRIES
    with pytest.raises(ConversionError, match=r"cannot be reached \(.*\); check the connection"):
        invoke("pull", NAME)


@pytest.mark.parametrize(
    "entry",
    [None, 3, {}, {"type": "file", "path": 1}, {"type": "file", "path": "config.json", "size": -1, "oid": "0" * 40},
     {"type": "file", "path": "config.json", "size": 1e400, "oid": "0" * 40},
     {"type": "file", "path": "x.json", "size": 1},
     {"type": "file", "path": "x.safetensors", "size": 1, "lfs": {"oid": "../x", "size": 1}},
     {"type": "file", "path": "x.safetensors", "size": 1, "lfs": []}],
)  # fmt: skip
def test_entries_that_make_no_sense_are_left_out(hub, hub_files, entry):
    hub.more_entries = [entry]
    invoke("pull", NAME)
    assert {path.name for path in folder_of().iterdir()} == {*hub_files, "pulled.json"}


def test_only_plain_names_at_the_top_are_fetched(hub, hub_files):
    hub.models[NAME] |= {"../evil.json": b"{}", "a/config.json": b"{}", ".hidden.json": b"{}", "-x.jinja": b""}
    invoke("pull", NAME)
    assert {path.name for path in folder_of().iterdir()} == {*hub_files, "pulled.json"}


def test_more_than_the_hub_promised_is_refused(hub):
    hub.more[BIG] = b"x"
    with pytest.raises(ConversionError, match=rf"the hub sends more of {BIG} than it says"):
        invoke("pull", NAME)


def test_another_part_than_was_asked_for_is_refused(hub, tmp_path, hub_files):
    partial(tmp_path).mkdir(parents=True)
    part(tmp_path, BIG, hub_files[BIG]).write_bytes(hub_files[BIG][:1000])
    hub.off_by = 1
    with pytest.raises(ConversionError, match="the hub sends another part of a file than it was asked for"):
        invoke("pull", NAME)


def test_a_link_in_the_place_of_a_file_is_not_written_through(hub, tmp_path, hub_files):
    partial(tmp_path).mkdir(parents=True)
    mine = tmp_path / "mine"
    mine.write_text("my only copy")
    part(tmp_path, BIG, hub_files[BIG]).symlink_to(mine)
    (partial(tmp_path) / "config.json").symlink_to(mine)
    invoke("pull", NAME)
    assert mine.read_text() == "my only copy" and not (folder_of() / BIG).is_symlink()


def test_a_disk_that_takes_a_piece_of_a_write_gets_the_rest(hub, hub_files, monkeypatch):
    opened = io.open

    class Slow(io.FileIO):
        def write(self, data):
            return super().write(data[: min(len(data), 1000)])

    def open_slowly(path, mode="r", *args, **options):
        return Slow(path, mode) if mode == "ab" else opened(path, mode, *args, **options)

    monkeypatch.setattr("pathlib.io.open", open_slowly)
    invoke("pull", NAME)
    assert (folder_of() / BIG).read_bytes() == hub_files[BIG]


def test_too_little_space_is_said_before_the_weights(hub, monkeypatch):
    monkeypatch.setattr("mistral_mlx.cli.models.pull.shutil.disk_usage", lambda path: SimpleNamespace(free=50_000_000))
    with pytest.raises(
        ConversionError, match=r"are needed, 100\.0 MB of them to spare, and 50\.0 MB are free on the disk; make room"
    ):
        invoke("pull", NAME)
    assert not any(BIG in asked.path for asked in hub.asked)


def test_pages_are_bounded(hub, monkeypatch):
    monkeypatch.setattr(web, "MAX_PAGES", 1)
    hub.more_entries = [{"type": "directory", "path": "d", "oid": "0" * 40}] * 10
    with pytest.raises(ConversionError, match="has more pages than is plausible"):
        invoke("pull", NAME)
    monkeypatch.setattr(web, "MAX_PAGES_BYTES", 100)
    with pytest.raises(ConversionError, match="sends more than is plausible; it is no model's page"):
        invoke("pull", NAME)


def test_small_files_are_bounded(hub, monkeypatch):
    hub.models[NAME] |= {f"README{i}": b"x" for i in range(80)}
    with pytest.raises(ConversionError, match=r"has \d+ files beside its weights, which is not plausible"):
        invoke("pull", NAME)


@pytest.mark.parametrize("form", ["{path}?cursor={n}", "?cursor={n}", "http://127.0.0.1:9{path}?cursor={n}"])
def test_the_pages_of_a_mirror_lead_on_at_the_mirror(hub, hub_files, form, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.next_page = form
    hub.more_entries = [{"type": "directory", "path": "d", "oid": "0" * 40}] * 10
    invoke("pull", NAME)
    assert {path.name for path in folder_of().iterdir()} == {*hub_files, "pulled.json"}


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_the_token_never_reaches_another_host(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.token = "hf_secret"
    with fake_hub(models=hub.models) as other:
        hub.elsewhere = other.address.replace("127.0.0.1", "localhost")
        invoke("pull", NAME)
        assert other.asked and {asked.token for asked in other.asked} == {None}
    assert {asked.token for asked in hub.asked} == {"Bearer hf_secret"}


def test_a_redirect_within_the_hub_takes_the_token_along(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.token = "hf_secret"
    hub.refusals = [("revision", 307, {"Location": f"/api/models/{NAME}/revision/main"})]
    invoke("pull", NAME)
    assert {asked.token for asked in hub.asked} == {"Bearer hf_secret"}


def test_without_a_token_a_gated_model_says_where_to_ask(hub):
    hub.token, hub.page["gated"] = "hf_secret", "manual"
    with pytest.raises(
        ConversionError, match=r"the model is gated; accept its terms at http.*/org/tiny, then set HF_TOKEN"
    ):
        invoke("pull", NAME)


def test_a_token_that_is_not_accepted_is_named(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.refusals = [("revision", 401, {"X-Error-Message": "Invalid credentials in Authorization header"})]
    with pytest.raises(ConversionError, match=r"the access token is not valid .*; renew it, or unset HF_TOKEN"):
        invoke("pull", NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_…")
    with pytest.raises(OptionError, match=r"the access token in HF_TOKEN, .* has characters that none has"):
        invoke("pull", NAME)


def test_the_network_can_be_forbidden(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        OptionError, match="HF_HUB_OFFLINE is set, and org/tiny is not in Hugging Face's cache; unset it"
    ):
        invoke("pull", NAME)
    assert hub.asked == []


# -- the end of a process ---------------------------------------------------------------------------------------------


def begin():
    program = "from mistral_mlx.cli.main import main; main()"
    return subprocess.Popen([sys.executable, "-c", program, "pull", NAME], stderr=subprocess.PIPE, text=True)


def until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("nothing happens")


def test_an_interrupt_says_what_stays(hub, hub_files, tmp_path):
    hub.pause_s = 0.05
    process = begin()
    path = part(tmp_path, BIG, hub_files[BIG])
    until(lambda: path.exists() and path.stat().st_size > 20_000)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=10)[1]
    assert process.returncode == 130
    assert re.search(r"interrupted; 0\.\d MB of 0\.\d MB are here, and the same command goes on from there\n$", said)
    hub.pause_s = 0
    invoke("pull", NAME)
    assert (folder_of() / BIG).read_bytes() == hub_files[BIG]


def test_a_process_that_is_killed_loses_nothing(hub, hub_files, tmp_path):
    n_kills = int(os.environ.get("PULL_KILLS", "3"))
    chance = random.Random(1)
    hub.pause_s = 0.02
    for _ in range(n_kills):
        n_asked = len(hub.asked)
        process = begin()
        until(lambda: len(hub.asked) > n_asked)  # noqa: B023
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
    hub.pause_s = 0
    invoke("pull", NAME)
    found = {path.name: path.read_bytes() for path in folder_of().iterdir() if path.name != "pulled.json"}
    assert found == hub_files and not list(folder_of().parent.glob(".*"))


def test_two_processes_fetch_a_model_once(hub, hub_files):
    hub.gate.clear()
    first = begin()
    until(lambda: any(BIG in asked.path for asked in hub.asked))
    second = begin()
    assert second.stderr.readline().startswith("mistral-mlx: asking http")
    assert second.stderr.readline() == "mistral-mlx: another process fetches this model; waiting for it\n"
    hub.gate.set()
    said = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0] and "is up to date" in said[1]
    assert sum(BIG in asked.path for asked in hub.asked) == 1
    assert (folder_of() / BIG).read_bytes() == hub_files[BIG]


@pytest.mark.parametrize("has_new", [False, True])
def test_a_process_that_ended_between_two_renames_loses_nothing(hub, has_new):
    invoke("pull", NAME)
    place = folder_of()
    place.rename(place.with_name(f".{place.name}.old"))
    if has_new:
        shutil.copytree(place.with_name(f".{place.name}.old"), place)
    hub.asked.clear()
    assert "is up to date" in invoke("pull", NAME).stderr
    assert not any("resolve" in asked.path for asked in hub.asked)
    assert [path.name for path in place.parent.iterdir()] == [place.name]
