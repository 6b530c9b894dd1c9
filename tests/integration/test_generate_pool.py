"""One generation on several workers of the GPU pool, each with an endpoint of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from counting_endpoint import CountingEndpoint
from pool_stack import Stack, Worker, ask

from advdistill_core.store import Store

pytestmark = [pytest.mark.server, pytest.mark.slow]

NUM, K = 80, 2


@pytest.fixture
def gpus(stack: Stack) -> Iterator[list[Worker]]:
    """Two GPU workers and a slot for each; they end with the test."""
    ask("PATCH", f"{stack.api}/work_pools/gpu", json={"concurrency_limit": 2})
    yield [stack.worker("gpu", f"gpu-{number}") for number in range(2)]
    stack.stop_gpu_workers()
    ask("PATCH", f"{stack.api}/work_pools/gpu", json={"concurrency_limit": 1})


def settings(urls: list[str], workers: int) -> list[str]:
    more = ", ".join(f'"{url}"' for url in urls[1:])
    return [
        f"prompts.num_train={NUM}", "teacher.backend=openai", "teacher.model=m",
        f"teacher.base_url={urls[0]}",
        f"teacher.more_base_urls=[{more}]", f"teacher.workers={workers}", f"teacher.k={K}",
        "teacher.shard_size=2", "teacher.concurrency=4",
    ]  # fmt: skip


def rows_of(root: Path) -> list[dict[str, object]]:
    """The responses of the only generation, each there once."""
    store = Store(str(root))
    (path,) = root.glob("generate/*/manifest.json")
    found = store.find("generate", path.parent.name)
    assert found is not None
    rows: list[dict[str, object]] = store.open(found).table().to_pylist()
    assert len({(row["prompt_id"], row["sample_id"]) for row in rows}) == len(rows) == NUM * K
    return rows


def seconds_of(*servers: CountingEndpoint) -> float:
    """From the first request to the last answer."""
    times = [time for server in servers for time in server.times]
    return max(times) - min(times)


def test_two_workers_share_one_generation(stack: Stack, gpus: list[Worker], tmp_path: Path) -> None:
    with CountingEndpoint(1.0, at_once=4) as one:
        run = stack.trigger("generate/default", tmp_path / "alone", *settings([one.url], 1))
        assert stack.wait(run)["type"] == "COMPLETED", stack.state(run)
        alone_s = seconds_of(one)
    with CountingEndpoint(1.0, at_once=4) as one, CountingEndpoint(1.0, at_once=4) as two:
        run = stack.trigger("generate/default", tmp_path / "both", *settings([one.url, two.url], 2))
        assert stack.wait(run)["type"] == "COMPLETED", stack.state(run)
        assert set((one.asked + two.asked).values()) == {K}  # each response asked once
        # The part in which both were at work: workers pick up their runs seconds apart.
        start = max(min(one.times), min(two.times))
        end = min(max(one.times), max(two.times))
        both = [t for t in (*one.times, *two.times) if start <= t <= end]
        speed = (len(both) / (end - start)) / (2 * NUM / alone_s)
        print(
            f"one worker {alone_s:.1f} s; two {seconds_of(one, two):.1f} s, {end - start:.1f} s of it "
            f"at once, {speed:.2f} times the speed there; {one.num_asked} + {two.num_asked} samples"
        )
    rows_of(tmp_path / "both")
    assert len(stack.children(run)) == 2
    stack.until(lambda: stack.pool_slots_in_use("gpu") == 0, 60, "the slots to come back")
    assert speed > 1.7


def test_the_other_finishes_when_a_machine_dies(stack: Stack, gpus: list[Worker], tmp_path: Path) -> None:
    with CountingEndpoint(1.0, at_once=4) as one, CountingEndpoint(1.0, at_once=4) as two:
        run = stack.trigger("generate/default", tmp_path, *settings([one.url, two.url], 2))
        stack.until(lambda: min(one.num_asked, two.num_asked) >= 8 * K, 120, "both to be at work")
        assert not list(tmp_path.glob("generate/*/manifest.json"))
        family = gpus[0].kill_machine()
        assert stack.wait(run)["type"] == "COMPLETED", stack.state(run)
        asked = one.num_asked + two.num_asked
        print(f"{asked} samples asked, {NUM * K} in the table")
        assert NUM * K <= asked <= NUM * K + 2 * 4 * K
    rows_of(tmp_path)
    assert not any(process.is_running() for process in family)
