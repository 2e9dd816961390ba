"""How JAX is set up for every test that uses it; tests of the other rooms never import it."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.quick import QUICK

if TYPE_CHECKING:
    from tests.models.tiny import Tensors

# How long an example takes is the machine's business: no test fails for it. A change is tested with
# the same examples each time, and new ones are looked for on purpose: `make explore`.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("same")

REPOSITORY = Path(__file__).parents[1]
DEVICES = 8


def pytest_configure(config: pytest.Config) -> None:
    """A run in the background of a shell ignores interrupts, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Eight virtual CPU devices, no silent promotion, compiled programs kept between runs.

    All test modules are imported by now and no device has been used. Set here and not through the
    environment, which servers started by a test would inherit: they, and the slow tests, compile
    as is done in service.
    """
    if "jax" not in sys.modules:
        return
    import jax

    if session.config.option.markexpr.strip() != "gpu":
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".cache" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    if "not slow" in session.config.option.markexpr:
        _compile_quickly()


def _compile_quickly() -> None:
    """XLA reads its flags once, with the first program; then they leave the environment again."""
    import jax

    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{before or ''} {QUICK}"
    jax.jit(lambda: 0).lower().compile()
    if before is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = before


@pytest.fixture(scope="session")
def smollm2_tensors() -> "Tensors":
    """The default model, dequantized once for all tests that need it (0.6 GB)."""
    from server.weights.gguf import GGUFSource
    from tests.models.tiny import Tensors
    from tokenization import default_model_path

    source = GGUFSource(default_model_path())
    return Tensors(source.spec, {name: source.tensor(name) for name in source.names()})
