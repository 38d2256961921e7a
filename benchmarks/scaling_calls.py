"""What one call of each kind costs the process that answers it: `python -m benchmarks.scaling_calls --help`.

From these costs `docs/scaling.md` derives how many actors a driver, a learner and a shard can serve. The processes that
answer are the real ones; the callers are one process that sends calls at a fixed rate. The driver's own cost is that
of its real loop over calls, with as many in flight as there would be actors, each answered after about a second.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from benchmarks.machine import describe_machine
from benchmarks.options import at_least, result_file
from common.files import write_atomically
from driver.provenance import describe_commit
from driver.ray_address import prepare_environment


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling_calls", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--seconds", type=at_least(0.5, float), default=6.0, help="measured for each kind of call (default 6)"
    )
    parser.add_argument("--out", type=result_file, help="JSON file")
    options = parser.parse_args(argv)
    prepare_environment(None)
    # Imported only now: Ray reads its environment at import.
    from benchmarks.scaling_call_costs import call_costs
    from driver.ray_session import ray_session

    costs = []
    print("| call | answering, µs | calls/s that fill one core | calling, µs |\n|---|---|---|---|", flush=True)
    with ray_session(None, private_cpus=4, object_store_mb=200):
        for cost in call_costs(options.seconds):
            costs.append(cost)
            calling = "" if cost.calling_us is None else f"{cost.calling_us:.0f}"
            print(f"| {cost.name} | {cost.answering_us:.0f} | {1e6 / cost.answering_us:,.0f} | {calling} |", flush=True)
    if options.out is not None:
        content = {
            "benchmark": "scaling_calls",
            "machine": describe_machine(),
            **describe_commit(),
            "rows": [row for cost in costs for row in cost.rows()],
        }
        write_atomically(options.out, (json.dumps(content, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
