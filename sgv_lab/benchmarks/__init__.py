"""The paper's eleven benchmarks, POPE, caption metrics, CHAIR, and the drawn world's exam: scores.

One module a benchmark. Every scorer has the same call, ``score(predictions, annotations=None,
questions=None, variant=OFFICIAL) -> dict``, and prints what the official tool prints.
"""

import importlib
from types import ModuleType

from sgv_lab.errors import unknown

OFFICIAL = "official"
MODULES = {  # the name in the command -> (module, title)
    "mme": ("mme", "MME"),
    "mmbench": ("mmbench", "MMBench"),
    "mmbench-cn": ("mmbench", "MMBench-CN"),
    "seed": ("seed_bench", "SEED-Bench image"),
    "mmvet": ("mmvet", "MM-Vet"),
    "llava-w": ("llava_w", "LLaVA-Bench in the Wild"),
    "qbench": ("qbench", "Q-Bench A1"),
    "scienceqa": ("scienceqa", "ScienceQA"),
    "vqav2": ("vqa", "VQAv2"),
    "vizwiz": ("vqa", "VizWiz"),
    "pope": ("pope", "POPE"),
    "captions": ("captions", "COCO caption metrics"),
    "chair": ("chair", "CHAIR"),
    "exam": ("exam", "Exam of the drawn world"),
}
ALIASES = {  # besides the names and titles above
    "mmb": "mmbench",
    "mmbcn": "mmbench-cn",
    "seedbench": "seed",
    "seedi": "seed",
    "seedimage": "seed",
    "llavabench": "llava-w",
    "qbencha1dev": "qbench",
    "llvisionqa": "qbench",
    "sqa": "scienceqa",
    "sqai": "scienceqa",
    "vqa": "vqav2",
    "coco": "captions",
    "cider": "captions",
    "cococaptions": "captions",
}


def canonical(name: str) -> str:
    """The benchmark's name in ``MODULES``; case, "-", "_" and blanks do not matter."""
    names = {_plain(known): key for key, (_, title) in MODULES.items() for known in (key, title)}
    names |= ALIASES
    if _plain(name) not in names:
        raise unknown("benchmark", name, MODULES)
    return names[_plain(name)]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def module(name: str) -> ModuleType:
    """The module of benchmark ``name`` (any spelling ``canonical`` knows)."""
    return importlib.import_module(f"sgv_lab.benchmarks.{MODULES[canonical(name)][0]}")
