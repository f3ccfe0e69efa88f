"""The one kind of error a user can cause and mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class LabError(ValueError):
    """Bad input. The message says what was wrong, where, and what to do.

    >>> print(LabError("is not a JSON array", where="captions.json", fix="download it again"))
    captions.json: is not a JSON array. Download it again.

    ``what`` and ``fix`` are kept apart, too.
    """

    def __init__(self, what: str, *, where: object = None, fix: str = "") -> None:
        self.what, self.fix = what, fix
        message = f"{where}: {what}" if where is not None else what
        if fix:
            message = f"{message.rstrip('.')}. {fix[0].upper()}{fix[1:].rstrip('.')}."
        super().__init__(message)


def unknown(kind: str, name: str, known: Iterable[str], where: object = None) -> LabError:
    """The error for a name that is not among the ``known`` ones, naming one that is near.

    >>> print(unknown("profile", "min", ["smoke", "mini", "paper"]))
    unknown profile 'min'. Did you mean 'mini'? (known: smoke, mini, paper).
    """
    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    listed = f"(known: {', '.join(known) or 'none'})"
    fix = f"did you mean {near[0]!r}? {listed}" if near else listed
    return LabError(f"unknown {kind} {name!r}", where=where, fix=fix)
