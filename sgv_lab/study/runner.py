"""Run a plan: every arm with every seed, over cores, GPUs or a cluster, each once, resumable."""

import importlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.utils import patch_environment
from tqdm.auto import tqdm

from sgv_lab import store
from sgv_lab.errors import LabError
from sgv_lab.files import Journal, sha256, write_json
from sgv_lab.models import checkpoints, families, shipped
from sgv_lab.study import run_arm
from sgv_lab.study.plans import FIRST_BASES, Plan
from sgv_lab.study.run_arm import POINTS, STAGES, Job, evaluate_cached, execute
from sgv_lab.training.survey import MAX_DROPPED
from sgv_lab.world import benchmarks as world
from sgv_lab.world.scene import MINIATURE

RECORDS = "records.jsonl"
UNTUNED = "untuned.json"  # what each base answers to the same questions, before any arm
_ONE = threading.Lock()  # a cluster's worker may have several threads, a training needs its process
_QUIET = {  # workers: one thread each, so that sums, and so answers, are the same anywhere
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TQDM_DISABLE"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Record:
    """One run. ``replaced``: how many record ids the arm replaced, and the hash of their list."""

    plan: str
    digest: str
    family: str
    arm: str
    profile: str
    seed: int
    metrics: Mapping[str, float]  # by the paper's names; MME in points, all else in percent
    config: Mapping[str, Any]  # the resolved `RunConfig`, base, questions
    replaced: Mapping[str, Any]
    key: str  # of the run in the store
    provenance: Mapping[str, Any]  # revision, clean, versions, device
    seconds: float
    peak_bytes: int  # of the process (on a GPU: of its memory)
    pretrain: Mapping[str, Any] = field(default_factory=dict)  # see `run_arm`
    records: int = 0  # of the mix, trained on
    dropped: int = 0  # of the mix, left out: their images are gone, mostly
    parameters: int = 0  # of the model
    code: str = ""  # hash of the code that the run rests on: see `run_arm.code`
    origins: Mapping[str, str] = field(default_factory=dict)  # of the config's values
    base: str = ""  # the name of its base's folder; the config has its hash

    def left_out(self) -> dict[str, tuple[int, int]]:
        """Stage -> how many of its records were left out, of how many, where any were."""
        found = {STAGES[1]: (self.dropped, self.records + self.dropped)}
        if self.pretrain:
            found[STAGES[0]] = (self.pretrain.get("dropped", 0), self.pretrain.get("captions", 0))
        return {stage: counts for stage, counts in found.items() if counts[0]}


def bases(plan: Plan, models_root: str | Path = "") -> dict[int, Path]:
    """Seed -> the checkpoint folder that all arms start from: the plan's bases in turn.

    LabError if fewer are there than the plan names; one that names none takes up to FIRST_BASES.
    """
    found = shipped.bases(plan.family, models_root, plan.models)
    if plan.bases and plan.bases > len(found):
        what = f"{plan.bases} bases are planned, {len(found)} of {plan.family} are there"
        raise LabError(what, where=found[0].parent, fix="make the others, or plan fewer")
    return dict(zip(plan.seeds, cycle(found[: plan.bases or FIRST_BASES])))


def questions(plan: Plan) -> Path:
    """The store's folder of the plan's question sets, one benchmark a subfolder."""
    settings = {"benchmarks": plan.benchmarks, "images": plan.images, "seed": plan.questions,
                "size": families.family(plan.family).image_size}  # fmt: skip
    write = partial(world.write, **settings, difficulty=MINIATURE)
    return store.artifact("questions", settings, [], write)


def jobs(
    plan: Plan,
    models_root: str | Path = "",
    data_root: str | Path = "",
    max_dropped: float = MAX_DROPPED,
) -> list[Job]:
    """All runs of a plan, seed by seed; its questions are written here, once for all of them.

    ``data_root``: the official files (see `official`), which a plan of profile "paper" needs;
    ``max_dropped``: the share of a stage's records that may be left out there.
    """
    if plan.profile == "paper" and not (models_root and data_root):
        fix = "give --models-root and --data-root"
        raise LabError("at full size a study needs both models and data", where=plan.name, fix=fix)
    start = bases(plan, models_root)
    root = Path(data_root) if data_root else None
    asked = root / "benchmarks" if root else questions(plan)
    for name in plan.benchmarks if root else ():
        if not (asked / name).is_dir():
            what, fix = f"lacks the folder {name}", "unpack the benchmark's official release there"
            raise LabError(what, where=asked, fix=fix)
    folders = {name: (asked / name, sha256(asked / name)) for name in plan.benchmarks}
    hashes, designs = {b: checkpoints.fingerprint(b) for b in start.values()}, plan.configs()
    given = (folders, root, max_dropped)
    return [
        Job(arm, seed, designs[arm], plan.family, start[seed], hashes[start[seed]], *given)
        for arm, seed in plan.runs()
    ]


def run(
    plan: Plan,
    out: str | Path,
    models_root: str | Path = "",
    data_root: str | Path = "",
    workers: int | None = None,
    progress: bool = True,
    max_dropped: float = MAX_DROPPED,
    keep_models: bool = False,
    cluster: str = "",
    report_to: str = "",
) -> list[Record]:
    """Do what is missing of ``plan`` and return its records, which ``out`` holds as JSON lines.

    ``workers``: processes at once (None: one a GPU, else one a core); ``cluster``: the address of
    a dask scheduler whose workers do the runs instead; ``max_dropped`` as in `jobs`, ``report_to``
    as in `Machine`. The store keeps answers and loss curves, and with ``keep_models`` weights. The
    same call goes on after a kill; points by image, and the scores of each base itself, are written
    last. Refuses an ``out`` that holds what would be another run today.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    todo = jobs(plan, models_root, data_root, max_dropped)
    journal, done = Journal(out / RECORDS), done_before(plan, todo, out)
    left = [job for job in todo if (job.arm, job.seed) not in done]
    left = [replace(job, keep_model=keep_models, report_to=report_to) for job in left]
    bar = tqdm(total=len(todo), initial=len(done), unit="run", desc=plan.name, disable=not progress)
    with bar:
        for job, found in _all(left, workers, cluster):
            record = _record(plan, job, found)
            done[job.arm, job.seed] = record
            journal.append([asdict(record)])
            bar.update()
    records = [done[pair] for pair in plan.runs()]
    _gather(records, out)
    if left or not (out / UNTUNED).is_file():
        starts = {job.base: job for job in todo}
        with _workers(1, cluster) as pool:  # as the arms are asked
            scored = pool.map(partial(*_in_worker(), evaluate_cached), starts, starts.values())
            names = [base.name for base in starts]
            write_json(out / UNTUNED, dict(zip(names, (one for one, _ in scored), strict=True)))
    return records


def done_before(plan: Plan, todo: Iterable[Job], out: Path) -> dict[tuple[str, int], Record]:
    """(arm, seed) -> its record in ``out``. LabError for one of what would be another run today."""
    done, kept = {(r.arm, r.seed): r for r in read(out) if r.digest == plan.digest}, {}
    for job in (one for one in todo if (one.arm, one.seed) in done):
        record = done[job.arm, job.seed]
        before = {**record.config, "code": record.code} if record.code else record.config
        today = _config(plan, job, run_arm.left_out(job, kept)) | {"code": run_arm.code()}
        if other := differences(before, json.loads(json.dumps(today))):
            what = f"holds {job.arm}, seed {job.seed}, of another experiment: {', '.join(other)}"
            fix = "choose another --out, or go back to the revision in its records"
            raise LabError(what, where=out, fix=fix)
    return done


def differences(before: Mapping[str, Any], now: Mapping[str, Any], part: str = "") -> list[str]:
    """The fields in which a recorded config is not today's, each with both values."""
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name, "not recorded"), now.get(name, "nothing")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{part}{name}.")
        elif old != new:
            found.append(f"{part}{name} ({str(old)[:60]}, now {str(new)[:60]})")
    return found


def read(out: str | Path) -> list[Record]:
    """The records in a study's folder; none if there is no file."""
    return [Record(**row) for row in Journal(Path(out) / RECORDS).read()]


def untuned(out: str | Path) -> dict[str, dict[str, float]]:
    """Base ("" in earlier studies, which had one) -> its scores on a study's questions."""
    path = Path(out) / UNTUNED
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if all(isinstance(one, dict) for one in found.values()) else {"": found}


def _config(plan: Plan, job: Job, left_out: Mapping[str, str]) -> dict[str, Any]:
    config = run_arm.config(job) | {"questions": plan.questions, "images": plan.images}
    return config | ({"left_out": left_out} if left_out else {})


def _record(plan: Plan, job: Job, found: Mapping[str, Any]) -> Record:
    return Record(
        plan=plan.name,
        digest=plan.digest,
        family=plan.family,
        arm=job.arm,
        profile=plan.profile,
        seed=job.seed,
        config=_config(plan, job, found.get("left_out", {})),
        code=run_arm.code(),
        origins={name: origin for name, _, origin in job.config.rows()},
        base=job.base.name,
        **{one.name: found[one.name] for one in fields(Record) if one.name in found},
    )


def _gather(records: Iterable[Record], out: Path) -> None:
    """Points by image of all runs that are still in the store, in one table."""
    tables = []
    for record in records:
        path = store.root() / "arms" / record.key / POINTS
        if path.is_file():
            tables.append(pd.read_parquet(path).assign(arm=record.arm, seed=record.seed))
    if tables:
        table = pd.concat(tables, ignore_index=True)
        words = ["score", "stratum", "image", "arm"]
        table.astype(dict.fromkeys(words, "category")).to_parquet(out / POINTS, index=False)


def _all(left: list[Job], workers: int | None, cluster: str) -> Iterator[tuple[Job, dict]]:
    """Each job with what came out, as they finish; the first failure ends the others."""
    if not left:
        return
    with _workers(at_once(workers, len(left)), cluster) as pool:
        futures = {pool.submit(*_in_worker(), execute, job): job for job in left}
        for future in as_completed(futures):
            job = futures[future]
            try:
                found = future.result()
            except Exception as error:
                for other in futures:
                    other.cancel()
                what = f"{type(error).__name__}: {error}"[:500]
                fix = "mend it and run the same again: it does only what is missing"
                raise LabError(what, where=f"{job.arm}, seed {job.seed}", fix=fix) from error
            yield job, found


def at_once(workers: int | None, runs: int) -> int:
    """How many of ``runs`` a machine does at once: by default one a GPU, else one a core."""
    return min(workers or torch.cuda.device_count() or os.cpu_count() or 1, runs)


@contextmanager
def _workers(count: int, cluster: str) -> Iterator[Executor]:
    """Processes on this machine, a GPU to each where there are some; or the workers of a cluster.

    A cluster does again elsewhere what a worker that dies was doing.
    """
    if cluster:
        distributed = importlib.import_module("distributed")  # need not be installed
        try:
            client = distributed.Client(cluster)
            client.wait_for_workers(1, timeout=60)
        except (OSError, ValueError) as error:
            fix = "start `dask scheduler` there, and `dask worker ADDRESS --nthreads 1` once a core"
            raise LabError("no cluster answers", where=cluster, fix=fix) from error
        with client, client.get_executor(pure=False) as pool:
            yield pool
        return
    gpus = torch.cuda.device_count()
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    mine = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    for number in range(count):
        devices.put({"CUDA_VISIBLE_DEVICES": mine[number % gpus]} if gpus else {})
    with (
        patch_environment(**_QUIET),
        ProcessPoolExecutor(count, context, _take_device, (devices,)) as pool,
    ):
        yield pool


def _take_device(devices: Any) -> None:
    """A worker's first act: the next device is its own, on a machine with GPUs."""
    os.environ.update(devices.get())


def _in_worker() -> tuple[Callable[..., Any], str, Path]:
    """`_alone`, and what of this process a worker must share."""
    return _alone, run_arm.code(), store.root().absolute()


def _alone(code: str, root: Path, work: Callable[..., Any], *given: Any) -> Any:
    """``work`` by one thread, nothing beside it in this process, by the same code, in one store."""
    if run_arm.code() != code or not root.is_dir():
        fix = "give workers the same revision, and a disk that all see at the same path"
        raise LabError("a worker has other code or another store", where=root, fix=fix)
    with _ONE, patch_environment(SGV_STORE=str(root)):
        torch.set_num_threads(1)
        return work(*given)
