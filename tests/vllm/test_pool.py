"""A run on a work pool that is cancelled while vLLM answers: nothing of it stays."""

import sys
from pathlib import Path

import pytest
from server_fixture import Cli
from vllm_fixture import END_S, LONG, START_S, Descendants, is_at_work, wait

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from pool_stack import running_stack

pytestmark = [pytest.mark.real_model, pytest.mark.server, pytest.mark.slow]


@pytest.mark.timeout(900)
def test_cancelling_a_run_ends_its_server(
    cli: Cli, descendants: Descendants, tmp_path: Path, vllm_python: str
) -> None:
    root = tmp_path / "store"
    with running_stack(cli, root) as stack:
        stack.worker("gpu", "gpu-0")
        run = stack.trigger("generate/default", root, *LONG, f"teacher.vllm.python={vllm_python}")
        wait(lambda: is_at_work(root), "responses", START_S)
        assert descendants.engine() is not None
        stack.set_state(run, "CANCELLING")
        wait(lambda: not descendants.of_vllm(), "vLLM to be gone", END_S)
        assert stack.wait(run, 60)["type"] == "CANCELLED"
        stack.until(lambda: stack.pool_slots_in_use("gpu") == 0, 30, "the GPU's slot to come back")
