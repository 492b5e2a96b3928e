"""Compiled programs, kept between runs."""

import jax

from rfjax._caches import user_cache


def default_folder() -> str:
    """Where compiled programs are kept unless told: in the user's cache, under rfjax/xla."""
    return str(user_cache("xla"))


def use_compilation_cache(folder: str | None = None) -> None:
    """Keeps compiled programs in `folder`; call it before any computation.

    Args:
        folder: None for the one that JAX was configured with, or else the default one.
    """
    chosen = folder or jax.config.jax_compilation_cache_dir or default_folder()
    jax.config.update("jax_compilation_cache_dir", chosen)
