"""Records docs/session.svg, the picture in the README: python docs/record_session.py

It types into the real program, in a terminal of 80 columns, and draws the screen in the middle of the last answer. Only
the speed in the line at the bottom differs between runs. It needs the demo model and the development tools.
"""

import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import pexpect
import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.terminal_theme import TerminalTheme

from mistral_mlx.cli.models.registry import resolve

PICTURE = Path(__file__).with_name("session.svg")
COLUMNS, ROWS = 80, 24
SHELL = "mistral-mlx chat -m demo --temperature 0 --seed 1"
LINES = [
    "Write a short Python function that reverses a string. Give only the code.",
    "What is the capital of France?",
    "/undo",
]
QUESTION, TYPED = "Tell me a story about a horse.", "make it shorter, please"
N_WORDS = 50  # of its answer, in the picture
# fmt: off
THEME = TerminalTheme(
    (22, 24, 29), (214, 218, 224),
    [(64, 68, 76), (232, 104, 104), (126, 190, 110), (222, 180, 92),
     (104, 156, 232), (190, 130, 214), (94, 186, 190), (214, 218, 224)],
    [(120, 126, 136), (244, 136, 136), (152, 212, 136), (240, 206, 128),
     (140, 182, 246), (212, 160, 232), (126, 210, 214), (244, 246, 250)],
)
# fmt: on
# Without rich's fonts, which a browser would download; the reader's own fonts replace them.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "font-family: Fira Code", "font-family: ui-monospace, Menlo, Consolas, DejaVu Sans Mono"
)
NAMES = {"brown": "yellow", "brightbrown": "bright_yellow", "default": None}


class Typist:
    """The program in a terminal that reports its cursor position, and its screen."""

    def __init__(self, home: str) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        program = ["-c", "from mistral_mlx.cli.main import main; main()", *SHELL.split()[1:]]
        env = {
            **os.environ,
            "MISTRAL_MLX_HOME": home,
            "TERM": "xterm-256color",
            "PROMPT_TOOLKIT_COLOR_DEPTH": "DEPTH_4_BIT",
        }
        env = {name: value for name, value in env.items() if name not in ("NO_COLOR", "COLORFGBG")}
        self.screen.write_process_input = lambda text: self.child.send(text)
        self.stream.feed(f"$ {SHELL}\r\n".encode())
        self.child = pexpect.spawn(sys.executable, program, env=env, dimensions=(ROWS, COLUMNS))

    def settle(self, quiet_s: float = 1.5) -> None:
        """Draw the output until there is none for `quiet_s` seconds."""
        until = time.monotonic() + quiet_s
        while time.monotonic() < until:
            if self.draw(65536):
                until = time.monotonic() + quiet_s

    def draw(self, n_bytes: int) -> bool:
        """Draw so much of the output; return whether there was any."""
        try:
            data = self.child.read_nonblocking(n_bytes, timeout=0.1)
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            sys.exit("the program ended:\n" + "\n".join(self.screen.display))
        self.stream.feed(data.replace(b"\x1b[2m", b"\x1b[90m"))  # pyte knows no dim text
        return True

    def type_during_answer(self, question: str, typed: str, n_words: int) -> None:
        """Ask `question`, type while it is answered, and stop drawing after `n_words`."""
        self.child.send(question)
        self.settle(0.3)
        self.child.send("\r")
        while "Ctrl-C stops" not in self.below():
            self.draw(64)
        self.child.send(typed)
        while len(self.answer(question).split()) < n_words or f" next: {typed}" not in self.below():
            self.draw(64)

    def answer(self, question: str) -> str:
        """Return what is below `question`, but for the line at the bottom."""
        return "\n".join(self.screen.display[: self.screen.cursor.y + 1]).rpartition(question)[2]

    def below(self) -> str:
        """Return the row below the cursor."""
        return ([*self.screen.display, ""])[self.screen.cursor.y + 1]

    def type(self, line: str) -> None:
        for key in line:
            self.child.send(key)
        self.settle(0.3)
        self.child.send("\r")
        self.settle()


def style_of(cell: pyte.screens.Char) -> Style:
    """Return the style of a cell for rich; pyte calls yellow brown, others are in hex."""
    fg, bg = (
        NAMES.get(name, f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else re.sub("^bright", "bright_", name))
        for name in (cell.fg, cell.bg)
    )
    return Style(
        color=fg, bgcolor=bg, bold=cell.bold, italic=cell.italics, underline=cell.underscore, reverse=cell.reverse
    )


def picture(screen: pyte.Screen) -> str:
    """Return the screen as SVG, without the empty rows at its end."""
    n_rows = max(row for row, line in enumerate(screen.display) if line.strip()) + 1
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for row in range(n_rows):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        console.print(Segments([*(Segment(cell.data, style_of(cell)) for cell in cells), Segment.line()]), end="")
    return console.export_svg(title="mistral-mlx", theme=THEME, code_format=FORMAT, unique_id="session")


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models.json").write_text(json.dumps({"demo": str(resolve("demo"))}))
        typist = Typist(home)
        typist.settle(3)
        for line in LINES:
            typist.type(line)
        typist.type_during_answer(QUESTION, TYPED, N_WORDS)
        PICTURE.write_text(picture(typist.screen), "utf-8")
        typist.child.close(force=True)


if __name__ == "__main__":
    main()
