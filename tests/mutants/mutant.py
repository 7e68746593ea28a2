"""A mutant: a protection of the protocol taken away by a few exact replacements of text in the real code."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = (
    "tests/safety/test_protocol_counterexamples.py",
    "tests/safety/test_protocol_verdict.py",
    "tests/safety/test_protocol_protections.py",
)
"""Short scripts against the real code; the tests that most mutants are caught by."""


class StaleMutantError(Exception):
    """The code does not hold the text that a mutant replaces, or holds it twice: the mutant has to be written anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Replace `old`, which stands in `file` once and no more, by `new`."""

    file: str
    old: str
    new: str

    def of(self, text: str) -> str:
        """Return `text` with the replacement made.

        Raises:
            StaleMutantError: `old` does not stand in it once and no more, or nothing would change.
        """
        count = text.count(self.old)
        if count != 1 or self.old == self.new:
            raise StaleMutantError(f"{self.file}: this stands there {count} times, not once:\n{self.old}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One protection taken away.

    Attributes:
        name: For people and the command line.
        breaks: What the code now does.
        harm: Why that is dangerous.
        expected: Those of `tests` that should catch it, as pytest's `-k` takes it; they are run first.
        edits: The replacements, made in this order.
        tests: Files to run as a whole if the expected tests stay green.
    """

    name: str
    breaks: str
    harm: str
    expected: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...] = SCRIPTS
    is_searched: bool = True
    """Whether what it breaks is part of the simulation."""

    def texts(self, root: Path) -> Mapping[str, str]:
        """Return the new text of every file that it changes, read from below `root`.

        Raises:
            StaleMutantError: an edit does not fit the code any more.
        """
        changed: dict[str, str] = {}
        for edit in self.edits:
            text = changed.get(edit.file) or (root / edit.file).read_text(encoding="utf-8")
            changed[edit.file] = edit.of(text)
        return changed

    def apply(self, root: Path) -> None:
        """Change the tree at `root`."""
        for file, text in self.texts(root).items():
            (root / file).write_text(text, encoding="utf-8")


def copied_files(root: Path) -> Iterator[Path]:
    """Return every file of the tree at `root` that tests may need, relative to it.

    Compiled files are among them. They name the time and size of their source, which a copy keeps and a mutant changes.
    """
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _LEFT_OUT]
        for name in files:
            yield Path(folder, name).relative_to(root)


_LEFT_OUT = {"var", "dist", "results", "build"}
