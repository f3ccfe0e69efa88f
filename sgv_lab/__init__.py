"""sgv-lab: a study that can check what ShareGPT4V (arXiv 2311.12793) claims."""

__version__ = "0.1.0"
