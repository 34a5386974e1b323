"""The one exception a user is meant to read."""


class AmcError(Exception):
    """A mistake the user can mend: its message is the whole story."""
