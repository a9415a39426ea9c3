"""Keeps bytecode. `PYTHONDONTWRITEBYTECODE` would make each process of the tests spend ten seconds on rewriting the
assertions of all test modules, and each command one second on compiling what it imports. Imported before all others."""

from __future__ import annotations

import os
import sys

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
