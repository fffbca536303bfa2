"""entropy-lab: where did my policy's entropy go, and was it the useful kind."""

__version__ = "0.1.0"
