"""`receiver` for shells of tests, without its second of start: a process that has imported everything forks for each.

    python fork.py serve SOCKET               imports the command line, and listens
    python -I -S fork.py run SOCKET [ARGS]    what `receiver [ARGS]` does, with this shell's streams, variables, folder

The real command line runs in the child, with the same exit code; signals are passed on, and it ends with its caller.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
from types import FrameType

LENGTH = struct.Struct("!I")


def serve(path: str) -> None:
    """For ever."""
    import receiver.commands.cli  # noqa: F401 - so that children have it

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            line, _ = listener.accept()
            if not os.fork():
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                look_after(line)
            line.close()


def look_after(line: socket.socket) -> None:
    """Read what is wanted, fork for it, pass signals on, and tell the exit code. Does not return."""
    head, streams, _, _ = socket.recv_fds(line, LENGTH.size, 3)
    wanted = json.loads(line.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL))
    child = os.fork()
    if not child:
        line.close()
        command(wanted, streams)
    for each in streams:
        os.close(each)
    handle = os.pidfd_open(child)
    while handle not in select.select([line.fileno(), handle], [], [])[0]:
        told = line.recv(1)
        os.kill(child, told[0] if told else signal.SIGKILL)
        if not told:
            os._exit(0)
    line.sendall(bytes([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF]))
    os._exit(0)


def command(wanted: dict[str, object], streams: list[int]) -> None:
    """Be `receiver …`. Does not return."""
    from receiver.commands.cli import main

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(wanted["env"])  # type: ignore[call-overload]
    os.chdir(str(wanted["cwd"]))
    sys.argv = ["receiver", *wanted["argv"]]  # type: ignore[misc]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def run(path: str, argv: list[str]) -> int:
    """The exit code."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)

        def pass_on(number: int, _: FrameType | None) -> None:
            line.sendall(bytes([number]))

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, pass_on)
        text = json.dumps({"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}).encode()
        socket.send_fds(line, [LENGTH.pack(len(text))], [0, 1, 2])
        line.sendall(text)
        told = line.recv(1)
        return told[0] if told else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(run(sys.argv[2], sys.argv[3:]))
