"""`--launch ray`: workers placed on a cluster of two nodes, which the tests start on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_workers import CHEAP

from archdsl.cli.main import run
from archdsl.errors import StudyError
from archdsl.runs.search import search
from archdsl.study.workers.ray import ray_workers


def test_another_launcher_is_refused() -> None:
    with pytest.raises(StudyError, match="there is no launcher `slurm`"):
        ray_workers("slurm", [], 1, {})


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(StudyError, match=r"archdsl\[dist\]"):
        ray_workers("ray", [], 1, {})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with one core, and a second node with one core and what Ray takes for a GPU."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'archdsl[dist]')")
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1, num_gpus=1)
    ray.init(address=found.address, log_to_driver=False, logging_level="error")
    yield found
    ray.shutdown()
    found.shutdown()


def look_on(workers: Any) -> None:
    while workers.poll(0):
        time.sleep(0.05)


@pytest.mark.alone
def test_workers_run_on_both_nodes_and_finish_the_study(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import archdsl.study.workers.ray as launch

    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    made: list[Any] = []
    kept = launch.RayWorkers.__init__

    def remember(self: Any, *arguments: Any, **more: Any) -> None:
        made.append(self)
        kept(self, *arguments, **more)

    monkeypatch.setattr(launch.RayWorkers, "__init__", remember)
    (tmp_path / "cheap.yaml").write_text(CHEAP)
    result = search(tmp_path / "cheap.yaml", out=tmp_path / "run", launch="ray", workers=2)
    assert result.reason == "trials"
    assert sum(not record.cheap for record in result.records) == 12
    assert len(set(made[0].nodes)) == 2
    print(f"Ray: {len(result.records)} trials by workers on {len(set(made[0].nodes))} nodes")


@pytest.mark.alone
def test_a_worker_that_needs_a_gpu_goes_where_one_is(cluster: Any) -> None:
    import ray

    with_gpu = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")]
    workers = ray_workers("ray", ["--version"], 1, {}, needs_gpu=True)
    workers.start()
    look_on(workers)
    assert workers.nodes == with_gpu


@pytest.mark.alone
def test_what_a_worker_says_is_wrong_reaches_the_leader(cluster: Any, tmp_path: Path) -> None:
    workers = ray_workers("ray", ["worker", "--json", "--storage", f"sqlite:///{tmp_path}/none.db"], 1, {})
    workers.start()
    with pytest.raises(StudyError, match="no study here that archdsl has begun") as caught:
        look_on(workers)
    assert caught.value.problems[0].rule == "unknown-name", "what it said, not that it died"
    workers.stop()


@pytest.mark.alone
def test_stopping_ends_the_processes(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cheap.yaml").write_text(CHEAP)
    ready = search(tmp_path / "cheap.yaml", out=tmp_path / "run", trials=5000, workers=0)
    arguments = ["worker", "--tied", "--json", "--storage", ready.storage, "--out", str(tmp_path / "there")]
    workers = ray_workers("ray", arguments, 1, {})
    workers.start()
    journal = tmp_path / "run/study.journal"
    before, end = journal.stat().st_size, time.monotonic() + 60
    while journal.stat().st_size == before:
        assert workers.poll(0) and time.monotonic() < end
        time.sleep(0.1)
    begun = time.monotonic()
    workers.stop()
    assert time.monotonic() - begun < 10
    size, end = -1, time.monotonic() + 15
    while size != journal.stat().st_size and time.monotonic() < end:
        size = journal.stat().st_size
        time.sleep(1.0)
    assert journal.stat().st_size == size, "nobody writes any more"


@pytest.mark.alone
def test_a_task_that_does_not_hear_is_ended_by_force(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    import archdsl.study.workers.ray as launch

    cancel = ray.cancel
    monkeypatch.setattr(ray, "cancel", lambda task, force: cancel(task, force=True) if force else None)
    monkeypatch.setattr(launch, "STOP_S", 0.5)
    (tmp_path / "cheap.yaml").write_text(CHEAP)
    ready = search(tmp_path / "cheap.yaml", out=tmp_path / "run", trials=5000, workers=0)
    arguments = ["worker", "--tied", "--json", "--storage", ready.storage, "--out", str(tmp_path / "there")]
    workers = ray_workers("ray", arguments, 1, {})
    workers.start()
    journal = tmp_path / "run/study.journal"
    before, end = journal.stat().st_size, time.monotonic() + 60
    while journal.stat().st_size == before:
        assert workers.poll(0) and time.monotonic() < end
        time.sleep(0.1)
    workers.stop()
    size, end = -1, time.monotonic() + 15
    while size != journal.stat().st_size and time.monotonic() < end:
        size = journal.stat().st_size
        time.sleep(1.0)
    assert journal.stat().st_size == size


def test_the_command_line_takes_the_launcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cheap.yaml").write_text(CHEAP)
    command = ["search", str(tmp_path / "cheap.yaml"), "--out", str(tmp_path / "run"), "--launch", "cloud"]
    assert run(command) == 1
    assert "no launcher `cloud`" in capsys.readouterr().err
