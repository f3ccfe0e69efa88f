"""sgv-lab: a study that can check what ShareGPT4V (arXiv 2311.12793) claims."""

import os

__version__ = "0.1.0"

if os.path.expanduser("~") == "~":  # noqa: PTH111  (Path.home would raise)
    # imported by a user without a home, nltk looks for a place for data, which nothing here needs
    os.environ.setdefault("NLTK_DATA", os.devnull)
