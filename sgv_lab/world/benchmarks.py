"""The benchmarks of the paper in miniature, in their official formats, and the exam, on disk.

Each benchmark has scenes of its own from the split "eval", so that no image is in
two benchmarks or in training. MMBench-CN speaks Chinese, which the world's captions never do:
a model trained on them can only guess there. MME has neither posters, translations nor code.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sgv_lab.world import benchmarks_choice as choice
from sgv_lab.world import benchmarks_open as free
from sgv_lab.world.benchmark_files import BenchmarkFolder
from sgv_lab.world.benchmarks_exam import exam
from sgv_lab.world.scene import FULL, Difficulty

WRITERS: dict[str, Callable[[BenchmarkFolder, int], None]] = {
    "mme": choice.mme,
    "mmbench": choice.mmbench,
    "mmbench-cn": partial(choice.mmbench, name="mmbench_dev_cn_20231003.tsv", chinese=True),
    "seed": choice.seed,
    "mmvet": free.mmvet,
    "llava-w": free.llava_w,
    "qbench": choice.qbench,
    "scienceqa": choice.scienceqa,
    "vqav2": free.vqav2,
    "vizwiz": free.vizwiz,
    "pope": free.pope,
    "captions": free.captions,
    "chair": free.captions,
    "exam": exam,
}


def write(
    folder: str | Path,
    benchmarks: Sequence[str] = tuple(WRITERS),
    *,
    images: int = 60,
    seed: int = 0,
    size: int = 64,
    difficulty: Difficulty = FULL,
    split: str = "eval",
) -> list[Path]:
    """Write ``folder/<benchmark>/…`` with about ``images`` images each (MME: each subtask).

    The same arguments give the same bytes. ``seed``: another one gives another set of scenes;
    ``split``: "novel" for scenes with pairs of kind and color that training never holds.
    Raises ValueError for an unknown benchmark.
    """
    folders = []
    for name in benchmarks:
        if name not in WRITERS:
            raise ValueError(f"unknown benchmark {name!r}: one of {', '.join(WRITERS)}")
        first = 10**8 + seed * 10**7 + list(WRITERS).index(name) * 10**5
        of_its_own = BenchmarkFolder(Path(folder) / name, first, difficulty, size, split)
        WRITERS[name](of_its_own, images)
        folders.append(of_its_own.folder)
    return folders
