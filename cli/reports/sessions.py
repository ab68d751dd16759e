"""The report of ``sessions`` on saved chats: a table or JSON, the text of one, and the lines that hold a text."""

from pathlib import Path

from mistral_mlx.cli.chat.transcript import SPEAKERS, written
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import gigabytes, print_json, table
from mistral_mlx.errors import SessionError, shown
from mistral_mlx.prompt.official import spelled
from mistral_mlx.session.saved_document import (
    DamagedSession,
    FoundSessions,
    SavedInfo,
    find_sessions,
    read_info,
    read_texts,
)

TITLES = ("NAME", "SAVED", "TURNS", "TEXT", "CACHE", "MODEL")
MAX_LINE = 200  # characters of a line that is found


def show(found: FoundSessions, *, as_json: bool) -> None:
    """Write what is saved to stdout, the newest first, and what is damaged; say so if there is nothing."""
    if as_json:
        print_json([*map(_record, found.whole), *({"name": bad.name, "error": bad.reason} for bad in found.damaged)])
    elif any(found):
        write_text(table([TITLES, *map(_row, found.whole), *map(_damaged_row, found.damaged)]))
    else:
        Notes().always("no session is saved; 'mistral-mlx chat' saves each conversation")


def text_of(path: Path, *, n_turns: int | None = None) -> str:
    """Return the session in the file `path`, or its last `n_turns`, as Markdown.

    Raises SessionError if it is damaged, OptionError if it has not as many turns.
    """
    info, (system, messages) = read_info(path), read_texts(path)
    return written(info.model, spelled(system), messages, n_turns=n_turns)


def search(folder: Path, text: str) -> bool:
    """Write the lines of the sessions in `folder` that hold `text`; return whether there is one."""
    is_found, wanted, found = False, text.casefold(), find_sessions(folder)
    for info in found.whole:
        try:
            messages = read_texts(info.path)[1]
        except SessionError as error:
            Notes().error(str(error))
            continue
        turn = 0
        for message in messages:
            turn += message["role"] == "user"
            for line in str(message["content"]).splitlines():
                if wanted in line.casefold():
                    is_found = True
                    where = f"{shown(info.name)}:{turn}:{SPEAKERS[str(message['role'])]}"
                    write_text(f"{where}: {_around(line, wanted)}\n")
    for bad in found.damaged:
        Notes().error(bad.reason)
    return is_found


def _around(line: str, wanted: str) -> str:
    """Return the part of a long line that holds what is wanted."""
    if len(line) <= MAX_LINE:
        return line
    start = max(0, line.casefold().index(wanted) - MAX_LINE // 4)
    return "…" * (start > 0) + line[start : start + MAX_LINE] + "…" * (start + MAX_LINE < len(line))


def _record(info: SavedInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "saved_at": info.saved_at.isoformat(timespec="seconds"),
        "turns": info.turns,
        "model": info.model,
        "model_path": info.folder,
        "text_bytes": info.nbytes,
        "cache_bytes": info.cache_nbytes,
        "cache_bytes_not_kept": info.unkept_nbytes,
        "path": str(info.path),
    }


def _row(info: SavedInfo) -> tuple[str, ...]:
    saved_at = info.saved_at.astimezone().strftime("%Y-%m-%d %H:%M")
    kept = gigabytes(info.cache_nbytes) if info.cache_nbytes else "-"
    cache = f"not kept: {gigabytes(info.unkept_nbytes)}" if info.unkept_nbytes else kept
    return (
        shown(info.name),
        saved_at,
        f"{info.turns:,}",
        gigabytes(info.nbytes),
        cache,
        shown(info.model, limit=200),
    )


def _damaged_row(bad: DamagedSession) -> tuple[str, ...]:
    return shown(bad.name), "damaged", "-", "-", "-", bad.reason
