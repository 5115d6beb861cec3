"""Exact rational numbers: `fractions.Fraction` to every reader, the compiled one of the same behaviour at run time.

A session's price takes some fifty operations on them, and this was a tenth of what a start and stop cost.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction
else:
    from quicktions import Fraction

__all__ = ["Fraction"]
