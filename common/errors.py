"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """A user's mistake: bad config, path, file or weights.

    The message is one line that says which file or key, what was expected and what was found.
    The scripts print it without a traceback and exit with code 2.
    """
