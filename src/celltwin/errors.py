"""One error for everything a user can put right, always in the same four parts."""


class CelltwinError(ValueError):
    """Bad input: what is wrong, what was got, what was expected and how to fix it, in one line."""

    def __init__(self, what: str, *, got: object = None, expected: object = None, fix: str | None = None):
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        parts = [what]
        parts += [
            f"{name}: {value}"
            for name, value in [("got", got), ("expected", expected), ("fix", fix)]
            if value is not None
        ]
        super().__init__("; ".join(parts))
