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
ALIASES = {  # a name above -> what else it is called, besides its title
    "mmbench": ("mmb",),
    "mmbench-cn": ("mmbcn",),
    "seed": ("seedbench", "seedi", "seedimage"),
    "llava-w": ("llavabench",),
    "qbench": ("qbencha1dev", "llvisionqa"),
    "scienceqa": ("sqa", "sqai"),
    "vqav2": ("vqa",),
    "captions": ("coco", "cider", "cococaptions"),
}


def canonical(name: str) -> str:
    """The benchmark's name in ``MODULES``; case, "-", "_" and blanks do not matter."""
    for key, (_, title) in MODULES.items():
        if _plain(name) in (_plain(key), _plain(title), *ALIASES.get(key, ())):
            return key
    raise unknown("benchmark", name, MODULES)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def module(name: str) -> ModuleType:
    """The module of benchmark ``name`` (any spelling ``canonical`` knows)."""
    return importlib.import_module(f"sgv_lab.benchmarks.{MODULES[canonical(name)][0]}")
