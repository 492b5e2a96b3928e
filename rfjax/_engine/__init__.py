"""The engine: how a map is filtered and read; one file an algorithm."""
