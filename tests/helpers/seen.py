"""The screen of a terminal that a program has: what a person would see."""

import os
import shlex
import time

import pexpect
import pyte
from helpers.cli import PROGRAM

SLOWLY = """
import time, mistral_mlx.session.session as s
stream = s.stream
s.stream = lambda *a, **k: (time.sleep(0.01) or r for r in stream(*a, **k))
"""  # a setup in which a chat takes 10 ms for each token


class Screen(pyte.Screen):
    """A screen that remembers the rows that have left it at the top."""

    def __init__(self, columns, rows):
        self.scrolled = []
        super().__init__(columns, rows)

    def index(self):
        if self.cursor.y == (self.margins.bottom if self.margins else self.lines - 1):
            self.scrolled.append(self.display[0].rstrip())
        super().index()


class Seen:
    """A program in a terminal of `columns` x `rows`, which answers where its cursor is as terminals do."""

    def __init__(self, *args, columns=80, rows=24, setup="", shell="", **variables):
        """`shell` starts the program through a shell with job control, by a line with its command in place of {}."""
        self.screen = Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b""
        env = {**os.environ, "TERM": "xterm-256color", **variables}
        for name in ("NO_COLOR", "COLUMNS"):
            env.pop(name, None)
        command = [PROGRAM[0], "-c", setup + PROGRAM[2], *map(str, args)]
        if shell:
            command = ["bash", "--norc", "-ic", shell.format(shlex.join(command))]
        self.child = pexpect.spawn(command[0], command[1:], dimensions=(rows, columns), timeout=60, env=env)
        self.screen.write_process_input = lambda data: self.child.send(data)

    def read(self, seconds=0.0):
        """Show what the program writes, for `seconds` at least."""
        end = time.monotonic() + seconds
        while True:
            try:
                data = self.child.read_nonblocking(65_536, timeout=max(0.02, end - time.monotonic()))
            except pexpect.TIMEOUT:
                data = b""
            except pexpect.EOF:
                return
            self.written += data
            self.stream.feed(data)
            if time.monotonic() >= end:
                return

    def until(self, text, timeout=30):
        """Wait until `text` is on the screen; a list waits for all."""
        texts = [text] if isinstance(text, str) else text
        end = time.monotonic() + timeout
        while not all(t in self.text for t in texts):
            assert time.monotonic() < end, f"{text!r} did not appear in:\n{self.text}"
            assert self.child.isalive() or any(t in self.text for t in texts), f"the program ended:\n{self.text}"
            self.read(0.02)

    def until_gone(self, text, timeout=30):
        """Wait until `text` is on the screen no more."""
        end = time.monotonic() + timeout
        while text in self.text:
            assert time.monotonic() < end, f"{text!r} stays in:\n{self.text}"
            self.read(0.02)

    def until_true(self, condition, timeout=30):
        """Wait until `condition()` is true."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"this stays:\n{self.text}"
            self.read(0.02)

    def clear(self):
        """Empty the prompt, where a Ctrl-C at once would be taken for a late one."""
        self.read(0.4)
        self.type("\x03")

    def until_end(self):
        """Wait until the program has ended, and show all that it wrote."""
        end = time.monotonic() + 60
        while self.child.isalive():
            assert time.monotonic() < end, f"the program goes on:\n{self.text}"
            self.read(0.05)
        self.read(0.2)

    def type(self, keys):
        self.child.send(keys)

    @property
    def rows(self):
        return [row.rstrip() for row in self.screen.display]

    @property
    def text(self):
        return "\n".join(self.rows)

    @property
    def scrolled(self):
        """The rows above the screen."""
        return self.screen.scrolled

    def leave(self):
        self.type("\x04")
        self.child.expect(pexpect.EOF)
        assert self.child.wait() == 0
