"""A run of the command line is one that the watch over dead runs can watch."""

import json
import subprocess
import sys
import textwrap

RUN = textwrap.dedent(
    """
    import json, sys, types
    from flows import launch

    def distill(config):
        from prefect.context import TagsContext
        from prefect.settings import get_current_settings
        seconds = get_current_settings().flows.heartbeat_frequency
        return {"seconds": seconds, "tags": list(TagsContext.get().current_tags)}

    sys.modules["flows.distill"] = types.SimpleNamespace(distill=distill)
    launch.connect = lambda: None
    print(json.dumps(launch.run_here(None)))
    """
)


def test_its_heartbeats_and_its_tag_are_those_of_a_deployment() -> None:
    from flows.deployments import deployments
    from flows.server import HEARTBEAT_S

    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    listed = deployments("store", "ENQUEUE")
    assert {d.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for d in listed} == {str(HEARTBEAT_S)}
    assert found == {"seconds": HEARTBEAT_S, "tags": ["advdistill"]}
    assert all("advdistill" in d.tags for d in listed)
