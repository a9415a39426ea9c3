"""Coverage-guided fuzzing of everything that is read from outside. Nothing of the program is imported here: the fuzzer
has to be there first."""

from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
NAMES = ("envelope", "notice", "xml", "fps_form", "fps_answer", "amazon_answer", "subscriber_answer")
