"""The one exception that means "the user can fix this", and how other libraries' exceptions are worded."""


class UserError(Exception):
    """A user's mistake: bad config, path, file or weights.

    The message is one line that says which file or key, what was expected and what was found.
    The scripts print it without a traceback and exit with code 2.
    """


def reason_of(error: BaseException, limit: int = 200) -> str:
    """An exception's message as one line of at most `limit` characters; its type where it has none."""
    return (" ".join(str(error).split()) or type(error).__name__)[:limit]
