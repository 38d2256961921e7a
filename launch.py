"""Trains Mario: `python launch.py --help`."""

import os
import sys
from collections.abc import Sequence

from common.errors import UserError
from common.interrupts import ending_at_ctrl_c
from common.streams import prepare_streams

_INTERRUPTED = "launch.py: interrupted before the run began\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    prepare_streams()
    with ending_at_ctrl_c(_INTERRUPTED):
        from driver.options import parse_options
        from driver.ray_address import find_address, prepare_environment

    options = None
    try:
        options = parse_options(sys.argv[1:] if argv is None else argv)
        address = find_address(options.config.ray.address)
        prepare_environment(address)
        # Imported only now: Ray reads its environment at import, and a mistake above is answered at once.
        with ending_at_ctrl_c(_INTERRUPTED):
            from driver.train import train

        return train(options, address)
    except KeyboardInterrupt:
        if options is not None:
            options.abandon()
        sys.stderr.write(_INTERRUPTED)
        return 130
    except BrokenPipeError:  # the reader of `launch.py --help | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        if options is not None:
            options.abandon()
        print(f"launch.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
