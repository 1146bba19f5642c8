"""A compiled step of method iisan: the side network is one graph, model and loss another, of any size."""

import pytest
import torch
from iisan_helpers import Course, built, whole_batch
from torch._dynamo.backends.common import aot_autograd
from torch.profiler import ProfilerActivity, profile, record_function

from effrec_cli.methods.multimodal import side_encoder

GRAPH = "a whole graph"
PADDED = "model.packed=false"


class Graphs:
    """A backend that runs graphs as they are, each under one name in a profile; how many it was `made`."""

    def __init__(self):
        self.made = 0

    def __call__(self, graph, inputs):
        self.made += 1
        return aot_autograd(fw_compiler=self._named)(graph, inputs)

    def _named(self, graph, inputs):
        def run(given):
            with record_function(GRAPH):
                return graph(*given)

        run._boxed_call = True
        return run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("iisan")


@pytest.fixture
def graphs(monkeypatch):
    torch._dynamo.reset()
    backend, plain = Graphs(), torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda it, **options: plain(it, backend=backend, fullgraph=True, **options)
    )
    yield backend
    torch._dynamo.reset()


def compiled(root, *words):
    """Returns the method as `method.compile=true run.compile=true` makes it."""
    method = built(root, "method.compile=true", PADDED, *words)
    method.model.compile()
    return method


@pytest.mark.parametrize("words", [[], ["method.next_item.correction=none", "run.precision=bf16"]], ids=str)
def test_a_compiled_step_is_the_plain_one_in_two_graphs(root, graphs, words):
    plain, other = Course(built(root, PADDED, *words)), Course(compiled(root, *words))
    exact = "run.precision=bf16" not in words
    close = {"rtol": 1e-5, "atol": 1e-6} if exact else {"rtol": 0.05, "atol": 1e-3}
    for number in range(2):
        assert other.step(number) == pytest.approx(plain.step(number), rel=1e-5 if exact else 1e-2)
    assert graphs.made == 2
    for found, true in zip(other.gradients, plain.gradients, strict=True):
        assert found.keys() == true.keys()
        for name in true:
            torch.testing.assert_close(found[name], true[name], msg=name, **close)


def test_steps_and_parts_of_other_sizes_make_no_new_graph(root, graphs, monkeypatch):
    monkeypatch.setattr(side_encoder, "BUCKET", 2)
    course = Course(compiled(root, "method.batch_size=6", "method.next_item.window=slide"))
    sizes, step = set(), course.method.training_step

    def watched(batch, engine):
        sizes.add(tuple(tuple(each.shape) for each in batch.tensors.values()))
        return step(batch, engine)

    course.method.training_step = watched
    for number in range(20):
        course.step(number % course.batches.steps_per_epoch, micros=1 + number % 2)
    assert len(sizes) > 10
    assert len({size[-1] for size in sizes}) > 3, "items of a step"
    assert graphs.made == 2


def pieces(method):
    """Returns the names of the operators and graphs of a step that no other one of them has called."""
    course = Course(method)
    del course.engine.check  # which copies gradients
    batches = [whole_batch(method, number) for number in range(3)]
    for batch in batches[:2]:
        method.training_step(batch, course.engine)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        method.training_step(batches[2], course.engine)
    return [
        each.name for each in watched.events() if _is_piece(each) and not any(map(_is_piece, _above(each)))
    ]


def _is_piece(event):
    return event.name.startswith(("aten::", GRAPH))


def _above(event):
    while event.cpu_parent is not None:
        event = event.cpu_parent
        yield event


def test_few_operators_are_left_beside_the_graphs_however_many_windows(root, graphs):
    sizes = [f"method.batch_size={size}" for size in (3, 10, 29)]
    plain, found = pieces(built(root, PADDED)), [pieces(compiled(root, size)) for size in sizes]
    assert len({len(each) for each in found}) == 1
    assert found[0].count(GRAPH) == 4, "each forward and backward"
    assert len(found[0]) < len(plain) / 3
