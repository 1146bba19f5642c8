"""One rank of a toy run: `python -m toy_rank FOLDER DEVICE`; settings and faults are in `plan.json`."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from toy import RowsMethod, ToyMethod, make_config, run

from effrec_cli import worker
from effrec_cli.errors import NonFiniteError


class Dry(ToyMethod):
    dropout = 0.0


class Breaking(ToyMethod):
    """Does what the plan says at a step, on one rank."""

    def training_step(self, batch, engine):
        plan = self.plan
        if batch.step == plan.get("step") and engine.world.rank == plan.get("rank"):
            if plan["does"] == "raise":
                raise NonFiniteError("rank 1 met a bad number")
            if plan["does"] == "crash":
                raise ZeroDivisionError("a bug on rank 1")
            if plan["does"] == "nan":
                batch.tensors["x"].fill_(float("nan"))
            if plan["does"] in ("SIGKILL", "SIGTERM"):
                os.kill(os.getpid(), getattr(signal, plan["does"]))
            if plan["does"] == "wait":
                (Path(plan["flag"])).write_text(str(os.getppid()))
                for _ in range(plan["steps"]):
                    time.sleep(0.05)
        return super().training_step(batch, engine)


def work(folder, world):
    torch.set_num_threads(1)
    plan = json.loads((folder / ".plan.json").read_text())
    settings = plan.get("settings", {})
    kind = RowsMethod if plan.get("rows") else Breaking if "does" in plan else Dry
    method = kind(make_config(**settings))
    method.plan = plan
    method.dropout = plan.get("dropout", 0.0)
    run(folder, world=world, method=method, **settings)


def tell_threads(folder):
    """Writes down the threads that this process has when it is about to end."""
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    (folder / f"threads{os.environ['RANK']}.json").write_text(json.dumps(names))


if __name__ == "__main__":
    code = worker.main(sys.argv[1:], work)
    tell_threads(Path(sys.argv[1]))
    sys.exit(code)
