"""How JAX is set up for every test that uses it; tests of the other rooms never import it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.models.tiny import Tensors

# How long an example takes is the machine's business: no test fails for it.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

REPOSITORY = Path(__file__).parents[1]
DEVICES = 8
# The fast tests compile thousands of programs that run once: XLA takes a quarter of the processor
# time without LLVM's passes, and most of that by its older way to emit a fusion. The slow tests,
# and the servers that a test starts, are compiled as they are served.
QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Eight virtual CPU devices, no silent promotion, compiled programs kept between runs.

    All test modules are imported by now and no device has been used. Set here and not through the
    environment, which servers started by a test would inherit.
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
    """XLA reads its flags once, here; then they are taken back from the environment."""
    from jax._src.lib import xla_client

    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = " ".join((before or "", *QUICK))
    xla_client.CompileOptions()
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
