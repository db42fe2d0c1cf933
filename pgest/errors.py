"""Errors that a user can mend."""


class InputError(ValueError):
    """A file or a setting that the user gave does not do; the command line says so in one line."""
