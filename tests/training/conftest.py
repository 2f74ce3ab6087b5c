import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def quick_compilation(tmp_path_factory):
    """Equal steps of different tests are compiled once, and none is optimised hard."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
    jax.config.update("jax_disable_most_optimizations", False)
