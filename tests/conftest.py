"""Eight fake CPU devices, quick compilation, and no silent broadcasting between ranks."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: machine code is worth no optimisation here, the older
# emitters of XLA take half the time, and the workers keep all cores busy. Runs that tests start as
# processes (training/runs.py) are compiled as those of users are. XLA does not start with a flag
# that it does not know, so the last two are for the versions that were seen to have them.
flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
os.environ.setdefault("MPLBACKEND", "agg")
# What a machine has built is not what others run: tests/test_native.py builds kernels of its own.
os.environ["RFJAX_NATIVE"] = "0"
# Equal programs are compiled once in a session: workers and processes inherit this folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rfjax-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module")
def few_sums():
    """Full covariances are summed up to half size 2 and transformed beyond.

    The forms and the choice among them stay, with half of the sizes to compile.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rfjax._engine.tuning.DENSE_GRID", 2)
        yield


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Frees the compiled programs of each file: thousands of them would fill the memory."""
    yield
    jax.clear_caches()
