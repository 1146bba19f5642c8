"""Method iisan on a GPU: a CPU's gradients, launches of any batch, no waiting, no backbone beside a cache."""

from pathlib import Path

import pytest
import torch

from effrec_cli import compose
from effrec_cli.data.batches import Share
from effrec_cli.data.load import load
from effrec_cli.distributed import World
from effrec_cli.loop.primitives import Primitives
from effrec_cli.methods.iisan import IISAN

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
MODES = ("iisan", "fft", "adapter", "lora", "bitfit", "frozen")
SMALL = [
    "method=iisan",
    "model.num_layers=1",
    "model.max_length=8",
    "model.dropout=0.0",
    "method.dim=16",
    "method.batch_size=16",
    "method.text.dropout=0.0",
    "method.image.dropout=0.0",
    "dataset.num_users=200",
    "dataset.num_items=80",
    "dataset.interactions_per_user=12",
    "dataset.side=[text,images]",
    "run.precision=fp32",
]
LARGE = [
    f"method.{name}.{size}"
    for name in ("text", "image")
    for size in ("dim=512", "num_layers=8", "num_heads=8")
]


class Training:
    """Steps of a method on a device."""

    def __init__(self, root, device, *words, mode="iisan"):
        given = [*SMALL, f"method.mode={mode}", f"data_root={root}", f"run.device={device.type}", *words]
        self.method = method = IISAN(compose.compose(given), World(device=device))
        method.data = method.prepare(load(method.config.dataset, Path(root), lambda line: None))
        method.model = method.build(method.data).to(device)
        self.batches = method.batches(method.data)
        precision = method.config.run.precision
        self.engine = Primitives(method.optimizers(method.model), method.world, precision, None)
        self.engine.batches = self.batches
        self.engine.steps_per_epoch, self.engine.total_steps = self.batches.steps_per_epoch, 10**6
        method.settle_memory(self.batches)
        method.mode.begin(self.engine)
        method.model.train()

    def batch(self, number=0):
        return self.batches.batch(0, number, Share(), number).to(self.method.world.device)

    def step(self, batch):
        return self.method.training_step(batch, self.engine)["loss"]

    def gradients(self):
        """Returns the loss of a step and its gradients as one vector, on the CPU."""
        loss = self.method.loss(self.batch())
        trains = [each for each in self.method.model.parameters() if each.requires_grad]
        found = torch.autograd.grad(loss, trains, allow_unused=True, materialize_grads=True)
        return loss.item(), torch.cat([each.flatten() for each in found]).double().cpu()


class Compiled(Training):
    """Steps of which all is compiled that may be, as `method.compile=true run.compile=true` does it."""

    def __init__(self, root, device, *words, mode="iisan"):
        super().__init__(root, device, "method.compile=true", *words, mode=mode)
        self.method.model.compile()


@pytest.fixture
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("iisan")


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_every_mode_are_those_of_a_cpu(gpu, root, mode, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if mode == "lora":
        pytest.importorskip("peft")
    words = ["method.cache.dtype=fp32"] if mode in ("iisan", "frozen") else []
    (loss, there), (true, here) = (Training(root, each, *words, mode=mode).gradients() for each in (gpu, CPU))
    assert loss == pytest.approx(true, rel=1e-4)
    assert (there - here).norm() <= 2e-3 * here.norm()


@pytest.mark.parametrize("residence", ["device", "ram", "disk"])
@pytest.mark.parametrize("dtype", ["bf16", "int8", "fp8"])
def test_where_a_cache_lies_changes_no_vector(gpu, root, residence, dtype):
    words = [f"method.cache.dtype={dtype}"]
    plain = Training(root, gpu, *words, "method.cache.residence=device").method.table()
    found = Training(root, gpu, *words, f"method.cache.residence={residence}").method.table()
    assert torch.equal(found, plain)


def launched(training, number):
    """Returns how many kernels a step launches once all of its kind were met."""
    batch = training.batch(number)
    for _ in range(2):
        training.step(batch)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        training.step(batch)
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if "LaunchKernel" in event.key)


KINDS = {"iisan": (Training, "iisan"), "compiled": (Compiled, "iisan"), "frozen": (Training, "frozen")}


@pytest.mark.parametrize("kind", KINDS)
def test_no_user_of_a_step_adds_a_launch(gpu, root, kind):
    make, mode = KINDS[kind]
    counts = [
        launched(make(root, gpu, f"method.batch_size={size}", "model.packed=false", mode=mode), 0)
        for size in (8, 32, 128)
    ]
    assert 0 < max(counts) <= 1.1 * min(counts), "a library may part a larger product"


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_on_a_resident_cache_waits_for_the_device(gpu, root, kind):
    make, mode = KINDS[kind]
    training = make(root, gpu, "method.cache.residence=device", mode=mode)
    batches = [training.batch(number) for number in range(3)]
    for batch in batches:
        training.step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            training.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mode", ["iisan", "frozen"])
def test_no_backbone_is_on_the_device_beside_a_cache(gpu, root, mode):
    """Neither when the cache is there, nor once the run that has filled it trains."""
    filled = Training(root, gpu, *LARGE, "method.cache.residence=ram", mode=mode)
    assert torch.cuda.memory_allocated() < 80 << 20
    assert torch.cuda.max_memory_allocated() > 90 << 20, "or no backbone of that size has run"
    del filled
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    training = Training(root, gpu, *LARGE, "method.cache.residence=ram", mode=mode)
    training.step(training.batch())
    assert torch.cuda.max_memory_allocated() - before < 80 << 20


def test_memory_of_a_step_is_far_below_full_fine_tuning(gpu, root):
    peaks = {}
    for mode in ("fft", "iisan"):
        Training(root, gpu, *LARGE, mode=mode)  # a cache is filled apart
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        training = Training(root, gpu, *LARGE, mode=mode)
        training.step(training.batch())
        peaks[mode] = torch.cuda.max_memory_allocated() - before
        del training
    assert peaks["fft"] > 5 * peaks["iisan"]


def test_bf16_training_stays_finite_and_keeps_vectors_in_float32(gpu, root):
    training = Training(root, gpu, "run.precision=bf16")
    losses = [training.step(training.batch(number)).item() for number in range(5)]
    assert training.engine.precision == "bf16"
    assert training.engine.guard.failure() is None
    assert all(loss == loss for loss in losses)
    assert training.method.table().dtype == torch.float32
    assert {each.dtype for each in training.method.model.parameters()} == {torch.float32}


def test_a_compiled_step_gives_the_plain_ones_losses_and_gradients(gpu, root):
    plain, compiled = (make(root, gpu) for make in (Training, Compiled))
    (true, there), (loss, here) = plain.gradients(), compiled.gradients()
    assert loss == pytest.approx(true, rel=1e-4)
    assert (here - there).norm() <= 2e-3 * there.norm()
    for number in range(3):
        one, other = (each.step(each.batch(number)).item() for each in (plain, compiled))
        assert other == pytest.approx(one, rel=1e-3)
