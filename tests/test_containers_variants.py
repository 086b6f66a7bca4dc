"""The variants in a container: what its disk shows after every payload has run."""

from __future__ import annotations

import os
from typing import Any

import pytest

import create_malicious_model as attack

pytestmark = pytest.mark.docker

# one attack after the other, each in a process; resnet18 without its training, whose program is the same
ATTACKS = """
import os, sys
from pathlib import Path
import create_malicious_model as attack
from weights import shapes
for name, variant in attack.VARIANTS.items():
    model, marker = Path(f"/tmp/{name}.model"), Path(f"/tmp/{name}.marker")
    model.write_bytes(attack.malicious_bytes(variant.name, marker, shapes.network()))
    child = os.fork()  # importing PyTorch again would take longer than the attack
    if child == 0:
        try:
            variant.fire(model)
            sys.stdout.flush()
        except BaseException as error:
            print(name, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
    print("fired", name, flush=True)
print(*[pid for pid in map(str, Path("/proc").iterdir()) if pid[6:].isdigit()])
"""


def test_every_payload_leaves_only_its_marker(docker: Any) -> None:
    image = docker.build("demo-malicious", "pickle-demo-test")
    name = f"pickle-demo-variants-{os.getpid()}"
    locked_up = ("--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    try:
        # not --read-only and not --rm: the engine is to say what was written anywhere
        result = docker("run", "--name", name, *locked_up, image, "-c", ATTACKS)
        assert result.returncode == 0, result.stdout + result.stderr
        written = {line[2:] for line in docker("diff", name).stdout.splitlines()}
    finally:
        docker("rm", "-v", name)
    for variant in attack.VARIANTS:
        assert f"fired {variant}" in result.stdout
    assert result.stdout.count(">>> " + attack.MESSAGE) == len(attack.VARIANTS) - 1
    assert result.stdout.splitlines()[-1] == "/proc/1"  # no process was left behind
    cache = {
        path for path in written if path.startswith("/tmp/torchinductor_")
    }  # PyTorch's own, when imported
    expected = {f"/tmp/{variant}.{kind}" for variant in attack.VARIANTS for kind in ("model", "marker")}
    assert written - cache == {"/tmp"} | expected
