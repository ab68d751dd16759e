"""Answers calls of the program from one process that has imported everything, each in a fork of its own.

A call has its own standard streams, folder, environment and exit status, so pipes and redirections of a shell work. It
takes a tenth of the time, most of which is imports. On macOS, where a process that has loaded Metal must not fork, each
call starts the program anew.
"""

import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAIN = "from mistral_mlx.cli.main import main; main()"
START = f"#!{sys.executable}\n{MAIN}\n"
CALL = f"""#!{sys.executable} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(%r)
    call = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    sys.exit(server.recv(1)[0])
"""
MODULES = """
cli.app cli.models.opening cli.models.pull cli.answers.complete cli.answers.batch cli.chat.start cli.terminal.markdown
cli.reports.bench cli.reports.convert cli.reports.evaluate cli.reports.export cli.reports.info cli.reports.models
convert.run convert.export.gguf_export convert.verify.verify convert.rounding.job generation.together
tokenizer.sentencepiece tokenizer.huggingface prompt.template session.saved session.kept measure.evaluation
""".split()


@contextmanager
def warm_program(folder: Path) -> Iterator[Path]:
    """Yield a folder for PATH that holds the program `mistral-mlx`."""
    program, place = folder / "mistral-mlx", str(folder / "socket")
    program.write_text(START if sys.platform == "darwin" else CALL % place)
    program.chmod(0o755)
    if sys.platform == "darwin":
        yield folder
        return
    with subprocess.Popen([sys.executable, __file__, place], env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}) as server:
        while not Path(place).exists() and server.poll() is None:
            time.sleep(0.01)
        try:
            yield folder
        finally:
            server.terminate()


def serve(place: str) -> None:
    """Answer calls for ever."""
    import importlib

    for name in MODULES:
        importlib.import_module(f"mistral_mlx.{name}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        while True:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            connection = server.accept()[0]
            if os.fork() == 0:
                server.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """Run one call in a fork, and send its exit status."""
    size, streams, *_ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as call:
        arguments, folder, environment = json.loads(call.read(int.from_bytes(size, "big")))
    pid = os.fork()
    if pid == 0:
        _run(streams, arguments, folder, environment)
    for stream in streams:
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        connection.sendall(bytes([status % 256]))
    os._exit(0)


def _run(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the program."""
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "w" if n else "r", closefd=False) for n in range(3))  # noqa: SIM115
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = arguments
        from mistral_mlx.cli.main import main

        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
