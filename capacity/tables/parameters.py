"""Fitted parameters with their intervals."""

import numpy as np

from capacity.calibration.fit import Posterior
from capacity.tables.markdown import number, table
from client.results.comparison_repeats import student_t


def render_parameters(posterior: Posterior) -> list[str]:
    """A table of those that were free, and the noise."""
    reach = student_t(max(posterior.freedom, 1.0))
    deviations = np.sqrt(np.diag(posterior.covariance))
    rows = []
    for name, deviation in zip(posterior.free, deviations, strict=True):
        value, factor = posterior.values[name], float(np.exp(reach * deviation))
        low, high = value / factor, value * factor
        rows.append(
            [name, parameter(name, value), f"{parameter(name, low)} - {parameter(name, high)}"]
        )
    return [
        *table(["Parameter", "Fitted", "95% interval"], rows),
        "",
        f"A measurement scatters by {posterior.noise:.1%} around its prediction (standard "
        f"deviation of the logarithm, {posterior.freedom:.1f} degrees of freedom).",
    ]


def parameter(name: str, value: float) -> str:
    """Seconds in ms or us, shares in percent."""
    plain = name.partition("@")[0]
    if plain.endswith("_s"):
        return f"{number(value * 1e3)} ms" if value >= 1e-4 else f"{number(value * 1e6)} us"
    if plain in ("overlap", "ridge", "effect"):
        return number(value)
    return f"{value:.0%}"
