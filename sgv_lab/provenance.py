"""Where a result comes from: code revision, versions, device. No paths, hosts or users."""

import os
import platform
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import sgv_lab


def provenance() -> dict[str, Any]:
    """What a manifest or record says about the code and machine that made a result.

    Keys: revision and clean (of the git tree that holds this package; outside one, what
    SGV_REVISION says and "unknown"; clean counts untracked files), python, packages (name ->
    version, None where it is not installed), device, threads, platform.
    """
    import torch  # takes seconds, and most commands need no provenance

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return {
        **_git(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {"sgv-lab": sgv_lab.__version__, **{n: installed(n) for n in _direct()}},
        "device": device,
        "threads": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def installed(package: str) -> str | None:
    """The version of a package, or None: a GPU's image need not hold all of them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _direct() -> list[str]:
    """The direct dependencies' names, without the optional ones."""
    try:
        listed = requires("sgv-lab") or []
    except PackageNotFoundError:  # a working tree on the path, not installed
        with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)
        listed = project["project"]["dependencies"]
    lines = [line for line in listed if "extra ==" not in line]
    return sorted(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines)


def _git(package: Path) -> dict[str, Any]:
    """Revision and cleanness of the tree that tracks ``package``, not of one around it."""
    try:
        git(package, "ls-files", "--error-unmatch", "__init__.py")
        revision = git(package, "rev-parse", "HEAD")
        return {"revision": revision, "clean": not git(package, "status", "--porcelain", ":/")}
    except (OSError, subprocess.CalledProcessError):  # no git, or no tree of ours
        return {"revision": os.environ.get("SGV_REVISION", "unknown"), "clean": "unknown"}


def git(folder: Path, *command: str) -> str:
    """What git says in ``folder``. OSError or subprocess.CalledProcessError if it says nothing."""
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
