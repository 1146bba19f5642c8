"""`effrec doctor`: healthy here, and honest about machines that are not."""

import json
import sys
from importlib import metadata

import pytest

from effrec_cli import diagnose
from effrec_cli.diagnose import ABSENT, BROKEN, OK, WARN


def found(**arguments):
    """Returns the findings by name."""
    return {each.name: each for each in diagnose.findings(**arguments)}


def test_json_says_what_is_here(effrec):
    done = effrec("doctor", "--json")
    report = json.loads(done.out)
    assert done.code == 0
    assert report["ok"]
    by_name = {each["name"]: each for each in report["findings"]}
    assert by_name["torch"]["value"] == metadata.version("torch")
    for name in ("effrec", "python", "machine", "torch build", "hydra-core", "data_root", "outputs"):
        assert by_name[name]["state"] == OK
    assert set(by_name["torch"]) == {"name", "value", "state", "fix"}


def test_text(effrec):
    done = effrec("doctor")
    assert done.code == 0
    assert "All that a run needs is well." in done.out


def test_without_torch_it_says_so_and_ends_with_6(effrec, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = effrec("doctor")
    assert done.code == 6
    assert "BROKEN" in done.out
    assert "torch import: install torch" in done.out
    assert "All that" not in done.out


def test_without_torch_in_a_process_of_its_own(effrec_process):
    code = "import sys; sys.modules['torch'] = None; from effrec_cli.app import main; sys.exit(main())"
    done = effrec_process("doctor", "--json", code=code)
    assert done.returncode == 6
    assert not json.loads(done.stdout)["ok"]


@pytest.mark.parametrize(
    ("package", "version", "state"),
    [
        ("omegaconf", "2.4.0", WARN),
        ("torch", "2.1.0", WARN),
        ("hydra-core", "1.1.0", WARN),
        ("hydra-core", "1.3.8", OK),
    ],
)
def test_versions_outside_what_is_known_to_work(monkeypatch, package, version, state):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == package else real(name))
    finding = found()[package]
    assert finding.state == state
    assert version in finding.value


def test_missing_packages(monkeypatch):
    real = metadata.version

    def version(name):
        if name in ("rich", "pandas"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    listed = found()
    assert listed["rich"].state == BROKEN
    assert listed["pandas (data)"].state == ABSENT
    assert listed["pandas (data)"].fix == "pip install 'effrec[data]'"


def test_requirements_of_the_wheel_are_those_of_the_source(monkeypatch, tmp_path):
    source = {(each.name, str(each.specifier)) for each in diagnose.requirements()}
    monkeypatch.setattr(diagnose.paths, "PACKAGE", tmp_path / "effrec_cli")
    stated = ["torch>=2", "pandas>=2; extra == 'data'", "effrec[data]; extra == 'all'"]
    monkeypatch.setattr(metadata, "requires", lambda name: stated)
    assert [each.name for each in diagnose.requirements()] == ["torch", "pandas", "effrec"]
    assert ("omegaconf", "<2.4,>=2.3") in source


def test_a_package_called_kernels(monkeypatch, tmp_path):
    (tmp_path / "kernels").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "package `kernels`" not in found(), "a folder without __init__.py shadows nothing"
    (tmp_path / "kernels" / "__init__.py").write_text("")
    finding = found()["package `kernels`"]
    assert finding.state == WARN
    assert str(tmp_path) in finding.value


def test_caches_are_listed_with_their_size(tmp_path):
    for folder, num_bytes in (("prepared/a-1234", 2048), ("raw/a", 10)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x").write_bytes(b"0" * num_bytes)
    listed = found(data_root=tmp_path)
    assert listed["prepared data"].value == "a-1234: 2.0 KiB"
    assert listed["raw data"].value == "a: 10 B"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    finding = found(data_root=tmp_path / "file" / "below")["data_root"]
    assert finding.state == BROKEN
    assert "EFFREC_DATA" in finding.fix


def test_a_full_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(diagnose, "LITTLE_DISK_BYTES", 1 << 60)
    assert found(data_root=tmp_path)["data_root"].state == WARN


def test_gpus_as_torch_tells(monkeypatch):
    import torch

    class About:
        name, major, minor = "H100", 9, 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: About)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (40 << 30, 80 << 30))
    monkeypatch.setattr(diagnose, "_driver", lambda: "580.1")
    listed = found()
    assert listed["GPU 0"].value == "H100, 80.0 GiB (40.0 GiB free), compute capability 9.0"
    assert listed["NVIDIA driver"].value == "580.1"


def test_a_driver_that_torch_does_not_see(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(diagnose, "_driver", lambda: "580.1")
    assert found()["GPU"].state == WARN
