"""What is said of memory and disks that a limit of the process, not the machine, makes small."""

import errno
import resource

import pytest
import torch

from effrec_cli.durable import DATA_ADVICE, RUN_ADVICE, writing
from effrec_cli.errors import EnvironmentFault, OutOfMemoryError
from effrec_cli.loop.outofmemory import explained
from effrec_cli.methods.base import Method
from effrec_cli.schema import Config

CPU = torch.device("cpu")


def said(text):
    with pytest.raises(OutOfMemoryError) as caught, explained(Method(Config()), CPU):
        raise RuntimeError(text)
    return caught.value.what


def test_bare_bytes_become_a_size():
    what = said(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 2097152000 bytes. Error 12"
    )
    assert " 2.0 GiB was asked for" in what


def test_a_limit_of_the_process_is_what_counts(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (3 << 30, resource.RLIM_INFINITY))
    what = said("not enough memory: you tried to allocate 2097152000 bytes.")
    assert "this process may have 3.00 GiB in all (ulimit -v)" in what
    assert "free" not in what


@pytest.mark.parametrize("advice", [RUN_ADVICE, DATA_ADVICE])
def test_no_space_has_to_be_freed_for_a_file_that_may_not_grow(tmp_path, advice):
    with pytest.raises(EnvironmentFault) as caught, writing(tmp_path, advice):
        raise OSError(errno.EFBIG, "File too large")
    assert "ulimit -f" in caught.value.fix
    assert "free" not in caught.value.fix
