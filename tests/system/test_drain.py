"""A drained node makes no VMs, over a kill -9 too, and what it has goes on."""

import json

from harness.wait import until

REFUSED = 4


def test_a_drained_node_takes_no_new_vms_until_that_is_ended(agent, vms, remote):
    vms.create("before")
    done = agent.ghostctl("agent", "drain", "--reason", "kernel update")
    assert done.returncode == 0 and done.stdout == "agent takes no new VMs\n", done
    agent.kill()
    agent.start(ready=False)
    until(lambda: agent.answers("/health"), "the hypervisor is connected", 30)

    assert "kernel update" in agent.ghostctl("status").stdout
    assert remote.get("/ready").status == 503
    vms.expect("after")
    refused = agent.ghostctl("vm", "create", "--name", "after", "--template", "tiny")
    assert refused.returncode == REFUSED and "kernel update" in refused.stderr, refused
    assert "ghostctl agent undrain" in refused.stderr
    for verb in ("stop", "start"):
        stopped = agent.ghostctl("vm", verb, "before", *(["--force"] if verb == "stop" else []))
        assert stopped.returncode == 0, stopped

    undrained = json.loads(agent.ghostctl("agent", "undrain", "-o", "json").stdout)
    assert undrained["drain"] is None
    assert remote.get("/ready").status == 200
    vms.create("after")
