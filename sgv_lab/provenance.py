"""Where a result comes from: code revision, versions, device. No paths, hosts or users."""

import os
import platform
import re
import subprocess
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"


def provenance() -> dict[str, Any]:
    """What a manifest or record says about the code and machine that made a result.

    Keys: revision and clean (of the git tree that holds this package, "unknown" outside one;
    clean counts untracked files), python, packages (name -> version), device, threads, platform.
    """
    import torch  # takes seconds, and most commands need no provenance

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return {
        **_git(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {"sgv-lab": version("sgv-lab")} | {name: version(name) for name in _direct()},
        "device": device,
        "threads": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _direct() -> list[str]:
    """The direct dependencies' names, without the optional ones."""
    lines = [line for line in requires("sgv-lab") or [] if "extra ==" not in line]
    return sorted(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines)


def _git(package: Path) -> dict[str, Any]:
    """Revision and cleanness of the tree that tracks ``package``, not of one around it."""
    try:
        _ask(package, "ls-files", "--error-unmatch", "__init__.py")
        revision = _ask(package, "rev-parse", "HEAD")
        return {"revision": revision, "clean": not _ask(package, "status", "--porcelain", ":/")}
    except (OSError, subprocess.CalledProcessError):  # no git, or no tree of ours
        return {"revision": UNKNOWN, "clean": UNKNOWN}


def _ask(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
