"""The pages of the documentation hang together: links lead somewhere, the index lists all pages, messages exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]

NOT_OURS = ("command not found",)  # messages of a shell


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if link.startswith("https://"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_lists_every_page_once():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    names = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert {name: index.count(f"]({name})") for name in names} == dict.fromkeys(names, 1)


def test_the_messages_that_troubleshooting_explains_exist():
    said = messages()
    for heading in re.findall(r"^### (`.*`)$", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), re.MULTILINE):
        for part in re.split(r"`|…|: ", heading):
            if part.strip() and part not in NOT_OURS:
                assert any(part.strip() in text for text in said), heading


def test_the_readme_fits_a_terminal_of_80_columns():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert len(lines) <= 110


def anchors(page):
    """Return the anchors of the headings of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def messages():
    """Return every string of the program, with what is filled in left out."""
    found = []
    for folder in ("mistral_mlx", "cli", "convert"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found
