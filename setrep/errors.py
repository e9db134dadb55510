"""The one exception that a caller's mistake raises."""


class InputError(ValueError):
    """Say what was asked, what was found and what to do; the command line exits with status 2.

    The message is one line, whatever names from files it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Return ` Did you mean 'x'?` for the known name closest to `name`, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
