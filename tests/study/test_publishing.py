"""What the repository's own history says of its studies: planned, then recorded."""

import subprocess
from dataclasses import asdict

import pytest
from click.testing import CliRunner

from sgv_lab.cli import main
from sgv_lab.errors import LabError
from sgv_lab.files import write_jsonl
from sgv_lab.study import plans, publishing
from sgv_lab.study.runner import Record

TEXT = """title: t
family: llava-1.5-7b
arms: [before, after]
seeds: 1
primary: [after, MME-P]
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """(commit, record): the first commits all there is, the second writes a study's records."""
    monkeypatch.setattr(publishing, "folder", lambda: tmp_path)

    def git(*words):
        me = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        done = subprocess.run(["git", *me, *words], cwd=tmp_path, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def commit():
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", "next")
        return git("rev-parse", "HEAD")

    def record(name, revision, text=TEXT):
        plan = plans.parse(text, name)
        made = {"device": "cpu", "revision": revision}
        run = Record(name, plan.digest, plan.family, "after", "mini", plan.seeds[0], {}, {}, {},
                     "key", made, 1.0, 1)  # fmt: skip
        write_jsonl(tmp_path / "studies" / name / "records.jsonl", [asdict(run)])

    git("init", "-q")
    (tmp_path / "plans").mkdir()
    return commit, record


def test_a_plan_is_shown_to_be_older_than_its_records(repository, tmp_path):
    commit, record = repository
    empty = commit()
    for name in ("good", "later", "together", "edited"):
        (tmp_path / "plans" / f"{name}.yaml").write_text(TEXT)
    (tmp_path / "plans" / "later.yaml").unlink()
    (tmp_path / "plans" / "together.yaml").unlink()
    planned = commit()
    for name in ("good", "together", "edited"):
        record(name, planned)
    record("later", empty)
    (tmp_path / "plans" / "together.yaml").write_text(TEXT)
    recorded = commit()
    (tmp_path / "plans" / "later.yaml").write_text(TEXT)
    (tmp_path / "plans" / "edited.yaml").write_text(TEXT + "images: 3\n")
    commit()
    found = publishing.commits()
    assert found.loc["good", "wrong"] == "" and found.loc["good", "runs"] == 1
    assert planned.startswith(found.loc["good", "plan"].split()[0])
    assert recorded.startswith(found.loc["good", "records"].split()[0])
    for name in ("later", "together"):
        wrong = found.loc[name, "wrong"]
        assert "the plan was not committed before the records" in wrong
        assert "which does not hold the plan" in wrong
    assert "1 records are of another text of the plan" in found.loc["edited", "wrong"]
    told = CliRunner().invoke(main, ["studies"])
    assert told.exit_code == 1
    assert "edited, later, together: not planned before they were recorded" in told.output


def test_a_plan_that_is_not_committed_and_a_folder_without_history(repository, tmp_path):
    commit, record = repository
    (tmp_path / "plans" / "new.yaml").write_text(TEXT)
    record("new", "unknown")
    assert "this text of the plan is not committed" in publishing.commits().loc["new", "wrong"]
    commit()
    (tmp_path / ".git").rename(tmp_path / "away")
    with pytest.raises(LabError, match="has no history"):
        publishing.commits()


def test_every_recorded_study_was_planned_first():
    found = publishing.commits()
    recorded = {path.name for path in (publishing.folder() / "studies").iterdir()}
    assert set(found.index) == recorded and (found["wrong"] == "").all(), found["wrong"].to_dict()
    assert CliRunner().invoke(main, ["studies"]).exit_code == 0
