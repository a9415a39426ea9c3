"""Builds and runs the image without a container engine: Debian's buildah, on a base made by Debian's debootstrap.

Everything is in one folder, whose storage of kind vfs needs no kernel module. `--isolation chroot` needs root, and no
more rights than chroot and mounts.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.tools import PROJECT

RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
BASE, IMAGE = "localhost/python-base", "localhost/receiver"
PROGRAMS = ("buildah", "debootstrap")
ROOM = 4 * 2**30
"""Bytes of disk: each layer is a whole copy."""
BASE_BOUND, BOUND = 300.0, 600.0
"""Seconds that the base, and any other step, may take."""
CERTIFICATES = ("cert", "client-cert")
FOR_PIP = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", *CERTIFICATES)
"""The options of pip for where and how packages are fetched. Any other configuration of this machine must not change
the image."""


class Unavailable(Exception):
    """Why the image cannot be built on this machine."""


class Engine:
    """Builds the image in a separate folder, and runs commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._storage = ("--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs")
        self.container = ""

    def base(self) -> None:
        """Make the base image: a minimal Debian with its Python, called `python` and not managed by apt.

        Raises `Unavailable` if its packages cannot be fetched.
        """
        root = self.folder / "root"
        for attempt in (1, 2):
            try:
                run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, root, bound=BASE_BOUND)
                break
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                shutil.rmtree(root, ignore_errors=True)
                if attempt == 2 or isinstance(error, subprocess.TimeoutExpired):
                    raise Unavailable(f"debootstrap cannot make {RELEASE}: {str(error.stdout)[-300:]}") from None
        (root / "usr/bin/python").symlink_to("python3")
        for marker in (root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, root, "/")
        shutil.rmtree(root)
        if self.buildah_run(container, "true", check=False).returncode:
            raise Unavailable("this machine does not let buildah run a command in a container")
        self.buildah("commit", "--quiet", "--rm", container, BASE)

    def build(self, **arguments: str) -> None:
        """Build the project's Dockerfile on the base. `arguments` are its build arguments."""
        given = {"PYTHON_IMAGE": BASE, **arguments}
        self.buildah(
            *("build", "--format", "docker", "--isolation", "chroot", "--network", "host"),
            *("--ulimit", "nofile=4096:4096", "--tag", IMAGE),
            *(word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")),
            *(word for volume in pip_volumes(self.folder) for word in ("--volume", f"{volume}:ro")),
            PROJECT,
        )

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a container of the image, as the image's user."""
        self.container = self.container or self.buildah("from", IMAGE).strip()
        return self.buildah_run(self.container, *command, check=check)

    def buildah_run(self, container: str, *command: str, check: bool) -> subprocess.CompletedProcess[str]:
        words = ("run", "--isolation", "chroot", "--network", "host", container, "--", *command)
        return run("buildah", *self._storage, *words, check=check)

    def buildah(self, *words: str | Path) -> str:
        """The output of buildah."""
        return run("buildah", *self._storage, *words).stdout


def run(*command: str | Path, check: bool = True, bound: float = BOUND) -> subprocess.CompletedProcess[str]:
    """Run a program. If it fails, the error's notes contain its output."""
    try:
        return subprocess.run(
            command,
            cwd=PROJECT,
            env={**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=bound,
            check=check,
        )
    except subprocess.CalledProcessError as error:
        error.add_note(error.stdout[-6000:])
        raise


def pip_volumes(folder: Path) -> Iterator[str]:
    """The configuration of pip on this machine as a volume for the build, and the certificates that it names.

    They are mounted during the build steps only, so the image contains no address of a package index. Folders with
    packages are left out: the index has the pinned packages too.
    """
    found = configparser.ConfigParser(interpolation=None)
    found["global"] = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2].removeprefix("default-")
        words = [word for word in value.strip("'\"").replace("\\n", " ").split() if not word.startswith("file:")]
        if key in FOR_PIP and words:
            found["global"][key] = "\n".join(words)
    with (folder / "pip.conf").open("w") as file:
        found.write(file)
    yield f"{folder / 'pip.conf'}:/etc/pip.conf"
    yield from (f"{found['global'][key]}:{found['global'][key]}" for key in CERTIFICATES if key in found["global"])


def why_not(folder: Path) -> str:
    """Why no image can be built here; empty if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it needs root on Linux"
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"install Debian's {' and '.join(missing)}"
    if (free := shutil.disk_usage(folder).free) < ROOM:
        return f"it needs {ROOM >> 30} GiB of disk, and {free >> 20} MiB are free"
    return ""


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """An engine with a base image. Raises `Unavailable`."""
    if reason := why_not(folder):
        raise Unavailable(reason)
    made = Engine(folder)
    try:
        made.base()
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
