"""The one exception for what a user can mend; the command line prints it without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something outside the program is wrong: an argument, a file, the environment.

    `message` says where and what, with both numbers where two disagree; `hint` says how to mend it, as a command where
    one exists. `exit_code` is 2 for usage and environment, 1 when the answer to the user's question is no.
    """

    def __init__(self, message: str, hint: str | None = None, exit_code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
