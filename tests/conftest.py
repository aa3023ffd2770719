"""Every test runs on 8 virtual CPU devices, with silent broadcasting refused and warnings as errors."""

import os
import time
from pathlib import Path

import jax
import pytest

from tests.support import written

# Before the backend starts. A GPU or TPU, where there is one, is chosen with JAX_PLATFORMS and ignores this.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Else a GPU or TPU rounds the inputs of matrix products, and no number would agree.
jax.config.update("jax_default_matmul_precision", "highest")
# Most of the time goes into compiling the same networks: workers and later runs share what was compiled.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

STARTED = time.monotonic()
DEFAULT = "not long and not survival"  # as in pyproject.toml


def pytest_configure(config):
    # The default run compiles in two thirds of the time. What the long tests and those of parity compile, for
    # which .ci/run asks by name, is optimized as users have it.
    if config.getoption("markexpr") == DEFAULT:
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
        )


def pytest_addoption(parser):
    told = "begin no test later than this; the rest is skipped"
    parser.addoption("--minutes", type=float, default=float("inf"), help=told)


def pytest_runtest_setup(item):
    minutes = item.config.getoption("--minutes")
    if time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"not begun within {minutes:g} minutes")


def pytest_collection_modifyitems(items):
    """Starts with what matters most and takes longest, so that no worker ends long after the others."""
    first = (
        "test_main_job.py",
        "test_mesh.py",
        "test_train.py",
        "test_survival.py",
        "test_processes.py",
    )

    def place(item):
        if item.get_closest_marker("parity") and not item.get_closest_marker("long"):
            return -1  # those that are optimized only here, if .ci/run asks
        return first.index(item.path.name) if item.path.name in first else len(first)

    items.sort(key=place)


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    """The same dataset in each layout, by layout; not to be changed."""
    root = tmp_path_factory.mktemp("layouts")
    return {name: written.written(name, root / name / "data") for name in written.WRITERS}
