"""Compiled programs, kept between runs."""

import os
from pathlib import Path

import jax


def default_folder() -> str:
    """Where compiled programs are kept unless told: in the user's cache, under rfjax/xla."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(base) / "rfjax" / "xla")


def use_compilation_cache(folder: str | None = None) -> None:
    """Keeps compiled programs in `folder`; call it before any computation.

    Args:
        folder: None for the one that JAX was configured with, or else the default one.
    """
    chosen = folder or jax.config.jax_compilation_cache_dir or default_folder()
    jax.config.update("jax_compilation_cache_dir", chosen)
