"""Every mutant, by what it takes away. If one survives, a test is missing: write it, and keep the mutant."""

from typing import Final

from tests.mutants import absence, books, doubt, sending, wire
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *sending.MUTANTS, *wire.MUTANTS, *doubt.MUTANTS, *absence.MUTANTS, *books.MUTANTS,
)  # fmt: skip
