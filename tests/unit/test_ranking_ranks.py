"""Two processes share the cases and get, bit for bit, what one process gets."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from ranking_helpers import TableScorer, make_data, settings

from effrec_cli.distributed import World
from effrec_cli.evaluation.ranking import rank_cases


def world_of_cases(num_users):
    draw = np.random.default_rng(4)
    histories = [draw.integers(0, 60, draw.integers(0, 9)).tolist() for _ in range(num_users)]
    targets = [draw.integers(0, 60, draw.integers(1, 4)).tolist() for _ in range(num_users)]
    return make_data(histories, targets, 60), draw.normal(size=(num_users, 60))


def one_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for num_users in (33, 1):
        data, table = world_of_cases(num_users)
        found.append(rank_cases(TableScorer(table), data, data.test, settings(), world=World(rank, 2)))
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_two_ranks_equal_one_process_also_when_one_has_no_case(tmp_path):
    torch.multiprocessing.spawn(one_rank, (str(tmp_path),), nprocs=2)
    worlds = [world_of_cases(num_users) for num_users in (33, 1)]
    alone = [rank_cases(TableScorer(table), data, data.test, settings()) for data, table in worlds]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
