"""`receiver` for tests, without its second of start: a process that has imported everything forks for each command.

    python -P fork.py serve SOCKET            imports the command line, says so, and listens until its input ends
    python -I -S fork.py run SOCKET [ARGS]    what `receiver [ARGS]` does, with this one's streams, variables, folder

The real command line runs in the child. Its caller sends the arguments and three streams, and gets the child's process
id and in the end its exit code. The child ends with its caller.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys

LENGTH, NUMBER = struct.Struct("!I"), struct.Struct("!i")


def serve(path: str) -> None:
    """Until the input ends."""
    import gc
    from pathlib import Path

    import typer.main

    import receiver.commands.cli
    import receiver.commands.demo.demo
    import receiver.commands.doctor.doctor
    import receiver.commands.serve.serve
    import receiver.service
    import receiver.simulator.app
    from tests.kit.shared import read_trust, share_commands, share_trust, stop_servers_at_once

    share_trust()
    share_commands()
    stop_servers_at_once()
    read_trust()
    typer.main.get_command(receiver.commands.cli.app)
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(100)
        print("listening", flush=True)  # noqa: T201 - its caller waits for it
        while 0 not in select.select([listener.fileno(), 0], [], [])[0]:
            line, _ = listener.accept()
            if not os.fork():
                listener.close()
                look_after(line)
            line.close()
            reap()
    Path(path).unlink()
    reap()


def reap() -> None:
    """Forget the children that have ended; what they used counts as used by this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def look_after(line: socket.socket) -> None:
    """Read a request, fork for it, and send process id and exit code to the caller. Does not return."""
    head, streams, _, _ = socket.recv_fds(line, LENGTH.size, 3)
    wanted = json.loads(line.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL))
    child = os.fork()
    if not child:
        line.close()
        command(wanted, streams)
    for each in (*streams, 0, 1, 2):
        os.close(each)
    handle = os.pidfd_open(child)
    line.sendall(NUMBER.pack(child))
    if handle not in select.select([line.fileno(), handle], [], [])[0]:
        os.kill(child, signal.SIGKILL)  # its caller is gone
        os._exit(0)
    line.sendall(NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os._exit(0)


def command(wanted: dict[str, object], streams: list[int]) -> None:
    """Run as `receiver …`, or as another module that wraps it, in a new session if requested. Does not return."""
    main = importlib.import_module(str(wanted["module"])).main
    if wanted["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(wanted["env"])  # type: ignore[call-overload]
    os.chdir(str(wanted["cwd"]))
    sys.argv = ["receiver", *wanted["argv"]]  # type: ignore[misc]
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
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


def ask(line: socket.socket, wanted: dict[str, object], streams: list[int]) -> int:
    """Have a command run on a new connection to the server. The process id."""
    text = json.dumps(wanted).encode()
    socket.send_fds(line, [LENGTH.pack(len(text))], streams)
    line.sendall(text)
    return int(NUMBER.unpack(line.recv(NUMBER.size, socket.MSG_WAITALL))[0])


def run(path: str, argv: list[str]) -> int:
    """The exit code. If a signal ended the command, the same signal ends this process."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        here = {"env": dict(os.environ), "cwd": os.getcwd()}
        wanted = {"module": "receiver.commands.cli", "argv": argv, "session": False, **here}
        child = ask(line, wanted, [0, 1, 2])

        def pass_on(number: int, _: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        code = int(NUMBER.unpack(line.recv(NUMBER.size, socket.MSG_WAITALL))[0])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
