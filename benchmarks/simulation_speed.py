"""How long a simulation takes, and what jumping over steps saves.

    python -m benchmarks.simulation_speed [--requests 1000000] [--replicas 1,100,2000]

Llama-2-7B in int8 on slices of v5e-8 at 80% of what they can take; ShareGPT-like lengths, Poisson
arrivals. The second column counts every token that the fleet made.
"""

import argparse
import resource
import time

from benchmarks.machine import describe_machine
from capacity.calibration.fit import fit
from capacity.hardware.chips import known_chips
from capacity.hardware.slice import find_slice
from capacity.planning.curve import steady_curve
from capacity.serving.lengths import parse_lengths
from capacity.simulation.fleet import Fleet, simulate
from capacity.simulation.router import ROUTERS
from capacity.simulation.step_model import step_model
from capacity.simulation.traffic import at_rate
from capacity.timing.profiles import LOADSTONE, NOISE
from capacity.work.setting import Setting
from client.load.arrivals import Arrivals
from server.models.catalogue import catalogue


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--replicas", default="1,100,2000", help="several with commas")
    parser.add_argument("--load", type=float, default=0.8, help="share of what they can take")
    options = parser.parse_args()
    setting = Setting(
        catalogue()["llama2-7b"],
        find_slice("v5e-8", known_chips()),
        weights="int8",
        cache="int8",
        slots=64,
    )
    model = step_model(setting, fit([], LOADSTONE, NOISE["loadstone"]).values)
    lengths = parse_lengths("sample")
    most = steady_curve(model, lengths).most
    print(f"{describe_machine()}\n")
    print("| replicas | router | requests | tokens | processor s | us a request | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    for replicas in map(int, options.replicas.split(",")):
        for router in ROUTERS if replicas > 1 else ROUTERS[:1]:
            arrivals = Arrivals("poisson", options.load * most * replicas)
            traffic = at_rate(lengths, arrivals, options.requests, 0)
            started = time.process_time()
            outcome = simulate(Fleet(replicas, router), model, traffic)
            seconds = time.process_time() - started
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"| {replicas:,} | {router} | {len(traffic):,} | {outcome.tokens:,} | "
                f"{seconds:.1f} | {seconds / len(traffic) * 1e6:.1f} | {peak:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
