"""`python -m capacity`: what fits, how fast it will be, and how far off that is."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from capacity.commands import (
    calibrate,
    check,
    chips,
    compile,
    estimate,
    fit,
    forward,
    plan,
    simulate,
    table,
)
from client.errors import UsageError

OK, FOUND, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
COMMANDS = {
    "chips": chips,
    "fit": fit,
    "estimate": estimate,
    "plan": plan,
    "simulate": simulate,
    "forward": forward,
    "compile": compile,
    "calibrate": calibrate,
    "table": table,
    "check": check,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    given = _parser().parse_args(argv)
    try:
        return given.run(given)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        return OK


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit status 2."""
        self.exit(BAD_INPUT, f"error: {message} ({self.prog} --help lists the options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m capacity",
        description="Does this model fit these chips, and how fast will it be?",
        epilog="Status: 0 done, 1 check found something or a service level is missed, "
        "2 bad input. docs/capacity.md explains every number.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, module in COMMANDS.items():
        text = (module.__doc__ or "").strip().splitlines()[0].partition(": ")[2]
        one = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        module.add(one)
        one.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
