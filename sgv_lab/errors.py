"""The one kind of error a user can cause and mend."""


class LabError(ValueError):
    """Bad input. The message says what was wrong, where, and what to do.

    >>> print(LabError("is not a JSON array", where="captions.json", fix="download it again"))
    captions.json: is not a JSON array. Download it again.
    """

    def __init__(self, what: str, *, where: object = None, fix: str = "") -> None:
        message = f"{where}: {what}" if where is not None else what
        if fix:
            message = f"{message.rstrip('.')}. {fix[0].upper()}{fix[1:].rstrip('.')}."
        super().__init__(message)
