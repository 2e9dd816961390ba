"""The command line of a command: a mistake is one line and status 2."""

import argparse
from typing import NoReturn

BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """argparse's, but for the usage that it prints before an error."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(BAD_INPUT, f"{self.prog}: error: {message} (--help lists the options)\n")
