"""What can go wrong: one exception for input that cannot be right, one warning for a solver that stopped early."""


class InputError(ValueError):
    """The input cannot be right; the message names the value, what was expected, and the remedy.

    Everything that the project raises on purpose is an `InputError`, so that the command line can tell a user's slip
    (one line, exit status 2) from a defect (a traceback).
    """


class ConvergenceWarning(UserWarning):
    """A solver stopped before its tolerance; its partial result is handed back and says so."""
