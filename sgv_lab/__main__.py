"""``python -m sgv_lab``: the ``sgv-lab`` command."""

from sgv_lab.cli import main

main()
