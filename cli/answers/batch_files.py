"""The files of a batch: prompts in, one JSON value a line, and results out, which an earlier run may have begun."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mistral_mlx.cli.terminal.streams import OutputError, write_text
from mistral_mlx.errors import OptionError, shown

MAX_EXAMPLE = 80  # characters of a line that a message repeats as JSON
BEGINNING = b'{"line": '  # of every result


@dataclass(frozen=True)
class Task:
    """A line of the input."""

    index: int  # among the lines that are not blank
    line: int  # in the file, from 1 on
    data: bytes

    @property
    def digest(self) -> str:
        """What tells this line from another."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def value(self) -> object:
        """Return what the line says. Raises OptionError if it is not JSON."""
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise OptionError(f"the line is not JSON: {error}") from error
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OptionError(f"the line is not JSON: {_how_to_write(text) or error}") from error

    def id(self) -> object:
        """Return the id that the line gives itself, if it does."""
        try:
            value = self.value()
        except OptionError:
            return None
        return value.get("id") if isinstance(value, dict) else None


def read_tasks(data: bytes) -> list[Task]:
    """Return the lines that are not blank. Raises OptionError if there is none."""
    lines = [(number, line.strip()) for number, line in enumerate(data.split(b"\n"), start=1)]
    tasks = [Task(index, *pair) for index, pair in enumerate(pair for pair in lines if pair[1])]
    if not tasks:
        raise OptionError("there are no prompts: the input is empty")
    return tasks


class Results:
    """The lines of the output: kept ones, which are not answered again, and those written now.

    A half-written last line, which a crash leaves, is cut off. Raises OptionError if the file holds anything but
    results of the same input and model or is a device, OutputError while another process writes to it.
    """

    def __init__(self, path: Path | None, tasks: list[Task], model: str) -> None:
        self._path, self._tasks, self._model = path, tasks, model
        self._file = -1
        self.n_kept = self.n_done = self.n_failed = 0

    def __enter__(self) -> "Results":
        if self._path is not None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if not self._path.is_file():  # reading a device may never end
                    name = shown(str(self._path), limit=200)
                    raise OptionError(f"--output is {name}, which is no file; choose one, or leave it out for stdout")
                self._lock(self._path)
                self._keep(self._path, self._path.read_bytes())
            except BaseException:
                os.close(self._file)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def n_tasks(self) -> int:
        """How many lines there are in all."""
        return len(self._tasks)

    @property
    def remaining(self) -> list[Task]:
        """What has no result yet."""
        return self._tasks[self.n_done :]

    def most_tokens(self, max_tokens: int) -> int:
        """Return the most tokens of a line that remains and its answer of `max_tokens`: a token has a byte or more."""
        return max((len(task.data) for task in self.remaining), default=0) + max_tokens

    @property
    def can_resume(self) -> bool:
        """Whether results are kept in a file."""
        return self._path is not None

    def write(self, task: Task, result: Mapping[str, object]) -> None:
        """Append the result of a task, as one line and in one piece."""
        name = {} if task.id() is None else {"id": task.id()}
        record = {"line": task.line, "input": task.digest, **name, "model": self._model, **result}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        if self._file < 0:
            write_text(line)
        else:
            data = line.encode("utf-8", "replace")
            while data:
                data = data[os.write(self._file, data) :]
        self.n_done += 1
        self.n_failed += "error" in result

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another process is writing to {shown(str(path), limit=200)}; wait for it") from None

    def _keep(self, path: Path, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, start=1):
            task = self._tasks[number - 1] if number <= len(self._tasks) else None
            record = _record(line)
            if task is None or (record.get("line"), record.get("input")) != (task.line, task.digest):
                raise _foreign(path, f"line {number} is not the result of this input")
            if record.get("model") != self._model:
                raise _foreign(path, f"line {number} is by the model {shown(record.get('model'))}")
            self.n_failed += "error" in record
        if not (rest.startswith(BEGINNING) or BEGINNING.startswith(rest)):
            raise _foreign(path, "its end is not a result")
        os.ftruncate(self._file, len(data) - len(rest))
        self.n_kept = self.n_done = len(lines)


def _how_to_write(text: str) -> str:
    """Return how to write a line of plain text in JSON; empty for a line that was meant to be JSON."""
    if text.startswith(("{", "[", '"')):
        return ""
    written = json.dumps(text, ensure_ascii=False)
    return f"write it as {shown(written)}" if len(written) <= MAX_EXAMPLE else 'write it as "...", a text of JSON'


def _record(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _foreign(path: Path, why: str) -> OptionError:
    return OptionError(f"{shown(str(path), limit=200)} holds something else ({why}); choose another --output")
