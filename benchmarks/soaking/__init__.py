"""The parts of benchmarks/soak.py: events and the ways to publish them, ledgers and their oracle, rounds."""
