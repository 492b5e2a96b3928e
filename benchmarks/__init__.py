"""How fast rfjax is, against every peer that is installed: `python -m benchmarks --help`."""
