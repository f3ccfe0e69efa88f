"""The paper's eleven benchmarks, POPE, caption metrics, CHAIR, and the drawn world's exam: scores.

One module a benchmark. Every scorer has the same call, ``score(predictions, annotations=None,
questions=None, variant=OFFICIAL) -> dict``, and prints what the official tool prints.
"""

import importlib
from types import ModuleType

from sgv_lab.errors import unknown

OFFICIAL = "official"
MODULES = {  # the name in the command -> (module, title, what else it is called)
    "mme": ("mme", "MME"),
    "mmbench": ("mmbench", "MMBench", "mmb"),
    "mmbench-cn": ("mmbench", "MMBench-CN", "mmbcn"),
    "seed": ("seed_bench", "SEED-Bench image", "seedbench", "seedi", "seedimage"),
    "mmvet": ("mmvet", "MM-Vet"),
    "llava-w": ("llava_w", "LLaVA-Bench in the Wild", "llavabench"),
    "qbench": ("qbench", "Q-Bench A1", "qbencha1dev", "llvisionqa"),
    "scienceqa": ("scienceqa", "ScienceQA", "sqa", "sqai"),
    "vqav2": ("vqa", "VQAv2", "vqa"),
    "vizwiz": ("vqa", "VizWiz"),
    "pope": ("pope", "POPE"),
    "captions": ("captions", "COCO caption metrics", "coco", "cider", "cococaptions"),
    "chair": ("chair", "CHAIR"),
    "exam": ("exam", "Exam of the drawn world"),
}

HEADLINES = {  # benchmark -> (key of its scorer, name as in the paper's tables, factor)
    "mme": (("perception", "MME-P", 1), ("cognition", "MME-C", 1)),
    "mmbench": (("accuracy", "MMB", 1),),
    "seed": (("image_accuracy", "SEED-I", 1),),
    "qbench": (("accuracy", "QBench", 100),),
    "vqav2": (("accuracy", "VQAv2", 1),),
    "vizwiz": (("accuracy", "VizWiz", 1),),
    "exam": (
        ("yesno", "Yes/no", 1),
        ("ranking", "Ranking", 1),
        ("open", "Open", 1),
        ("choice", "Choice", 1),
        ("recall", "Recall", 1),
        ("precision", "Precision", 1),
    ),
}


def canonical(name: str) -> str:
    """The benchmark's name in ``MODULES``; case, "-", "_" and blanks do not matter."""
    for key, (_, *names) in MODULES.items():
        if _plain(name) in map(_plain, (key, *names)):
            return key
    raise unknown("benchmark", name, MODULES)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def module(name: str) -> ModuleType:
    """The module of benchmark ``name`` (any spelling ``canonical`` knows)."""
    return importlib.import_module(f"sgv_lab.benchmarks.{MODULES[canonical(name)][0]}")
