"""One run: from settings to a checked, resumable, costed result, as a short list of stages."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml

from effrec_cli import artifacts, checkpoint, compose, distributed, env, launch, registry, result
from effrec_cli.backbone import task_of_run
from effrec_cli.data.batches import Batches, Share, refuse_empty_shares
from effrec_cli.data.load import load
from effrec_cli.data.source import Say
from effrec_cli.data.types import RecData
from effrec_cli.distributed import World
from effrec_cli.durable import write_bytes
from effrec_cli.engine import Engine
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.cost import CostMeter, flops_per_sample
from effrec_cli.evaluation.held import optimizer_bytes
from effrec_cli.kept_settings import refuse_other_settings
from effrec_cli.loop import interrupt, outofmemory
from effrec_cli.methods.base import Method
from effrec_cli.precision import refuse_precision, resolve_precision
from effrec_cli.report.progress import Progress
from effrec_cli.report.tables import print_result
from effrec_cli.rundir import new_run_dir
from effrec_cli.runfolder import RunFolder
from effrec_cli.schema import Config

OVERRIDES = "overrides.yaml"
_LEFT_ALONE = "{} holds a finished run; it is left as it is."


def run(config: Config, overrides: list[str], *, keep_failed: bool = False) -> result.Result:
    """Trains, evaluates and writes one run, and prints its table.

    A process that a launcher started as one rank of many joins the others; `run.devices` above 1 starts
    ranks here.

    Args:
        config: checked settings.
        overrides: what the user typed, kept with the run.
        keep_failed: keep the folder also of a run that bad input stopped before it reached anything.

    Raises:
        EffrecError: what stopped the run; its folder keeps what was reached.
    """
    with interrupt.listening():
        # Before anything is fetched, prepared or written.
        _task(config)
        if distributed.is_one_of_many():
            return _run_among_others(config, overrides)
        return _run_here(config, overrides, keep_failed)


def resume(path: Path) -> result.Result:
    """Goes on with the run in `path`; one without a checkpoint starts over.

    A finished run is left alone, but for what it has lost of its files: that is written anew.

    Raises:
        EffrecError: `path` holds no run, another process works on it, or what stopped it this time.
    """
    config = compose.from_yaml(path / "config.yaml")
    config.run = dataclasses.replace(config.run, dir=str(path), resume="auto")
    kept = path / OVERRIDES
    return run(config, yaml.safe_load(kept.read_text()) if kept.is_file() else [])


def run_rank(path: Path, world: World) -> None:
    """Runs one rank's part of the run whose settings lie in `path`; called in each process of `launch`."""
    folder = RunFolder(path)
    if world.is_main:
        folder.open(resume="auto")
    _train_rank(compose.from_yaml(path / "config.yaml"), folder, world)


def _train_rank(config: Config, folder: RunFolder, world: World) -> None:
    """Trains as one of the world's ranks; rank 0, which holds the folder, records how it ends."""
    if not world.is_main:
        train(config, folder, world)
        return
    try:
        with folder.recording():
            train(config, folder, world)
    finally:
        folder.close()


def train(config: Config, folder: RunFolder, world: World) -> None:
    """Runs the stages of one process: data, model, training, evaluation, result."""
    tell, meter = _teller(folder, world), CostMeter(world.device)
    with meter.beside("data"):
        data = load(config.dataset, Path(config.data_root), tell)
    with meter.beside("build"):  # less the loop, which the meter counts for itself
        engine, data = _ready(config, folder, data, meter, tell, world)
        valid = _fit(engine.method, engine, tell)
    with meter.beside("test"):
        metrics = {"valid": valid, "test": engine.method.judge("test")}
    _leave_results(config, folder, engine, data, metrics)


def _ready(
    config: Config, folder: RunFolder, data: RecData, meter: CostMeter, tell: Say, world: World
) -> tuple[Engine, RecData]:
    """Returns what trains, all of it built, and the data as the method prepared them."""
    method: Method = registry.implementation("methods", config.method.name)(config, world)
    method.stages = meter.stages
    with outofmemory.explained(method, world.device):
        batches, data = _build(method, data, folder)
    tell(_what_is_trained(config, data, method, world))
    if getattr(config.dataset, "label", None) is not None and method.task != "ctr":
        tell(_passed_by(config, method))
    if data.train_weights is not None and not method.reads_weights:
        tell(f"{config.method.name} leaves the importance weights of the sample unread: all rows count alike")
    return Engine(
        method=method,
        batches=batches,
        optimizers=method.optimizers(method.model) if batches is not None else [],
        config=config,
        folder=folder,
        world=world,
        meter=meter,
        validate=lambda: method.judge("valid"),
        progress=Progress(0, world.is_main),
    ), data


def _leave_results(
    config: Config, folder: RunFolder, engine: Engine, data: RecData, metrics: dict[str, dict[str, float]]
) -> None:
    """Writes the weights, the maps to raw ids and result.json."""
    method, world = engine.method, engine.world
    with engine.meter.beside("save"):
        kept = method.keepsakes()
        if world.is_main:
            artifacts.save(folder, method, data, kept)
        world.wait()
        flops = _flops(method, engine.batches, world)
    cost = engine.meter.costs(
        method.model,
        training_rows=method.training_rows,
        model_path=folder.model_path,
        flops_per_sample=flops,
        seconds_cache=method.seconds_cache,
        cache_id=method.cache_id,
        factor_bytes=method.factor_bytes,
        weights_most=engine.weights_bytes,
        gradient_bytes=engine.gradient_bytes if engine.batches is not None else None,
        optimizer_bytes=_most_remembered(engine),
    )
    if world.is_main:
        described = _described(config, data, method, world)
        kept_step = engine.selection.step
        result.write(folder.path, result.Result(metrics=metrics, cost=cost, best_step=kept_step, **described))


def _most_remembered(engine: Engine) -> int | None:
    """Returns the most that optimizers have remembered; None without a loop."""
    if engine.batches is None:
        return None
    return max(engine.optimizer_bytes, optimizer_bytes(engine.optimizers))


def _fit(method: Method, engine: Engine, tell: Say) -> dict[str, float]:
    """Trains to the end, from the newest checkpoint where there is one, and keeps the best weights.

    Returns:
        their validation metrics. To validate is a part of the cost of every method, with a loop or without.
    """
    if engine.batches is None:
        engine.meter.start()
        method.fit(engine)
        with engine.meter.validating():
            metrics = engine.validate()
        engine.meter.stop()
        return metrics
    engine.resume_latest()
    for setting, choice in method.choices().items():
        tell(f"{setting}: {choice}")
    method.fit(engine)
    engine.restore_best()
    return engine.best_metrics


def say(text: str) -> None:
    """Tells the user one line, beside the progress on stderr."""
    print(text, file=sys.stderr)


def _teller(folder: RunFolder, world: World) -> Say:
    """Returns what tells the user and log.txt one line; ranks above 0 are silent."""

    def tell(text: str) -> None:
        if world.is_main:
            say(text)
            folder.log(text)

    return tell


def _settled(config: Config) -> Path:
    """Returns the run's folder, which from here on stands in the settings."""
    if config.run.dir is None:
        config.run.dir = str(new_run_dir(config))
    return Path(config.run.dir)


def _run_here(config: Config, overrides: list[str], keep_failed: bool) -> result.Result:
    refuse_precision(config.run.precision, env.resolve_device(config.run.device))
    folder = _opened(config)
    try:
        if _left_alone(folder, config, overrides):
            say(_LEFT_ALONE.format(folder.path))
        else:
            with nullcontext() if keep_failed else folder.tidied():
                _keep_settings(folder, config, overrides)
                _train_here_or_launch(folder, config)
        found = result.read(folder.path)
    finally:
        folder.close()
    print_result(found, folder.path)
    return found


def _opened(config: Config) -> RunFolder:
    """Returns the run's folder, opened as `run.resume` says; a run of other settings in it is refused."""
    unnamed = config.run.dir is None
    folder = RunFolder(_settled(config))
    folder.made = unnamed
    if config.run.resume == "auto":
        refuse_other_settings(folder.path, config)
    return folder.open(resume=config.run.resume)


def _left_alone(folder: RunFolder, config: Config, overrides: list[str]) -> bool:
    """Returns whether the folder holds a finished run with nothing lost.

    Raises:
        ConfigError: something is lost, and there is no checkpoint to write it from.
    """
    lost = artifacts.lost(folder.path) if folder.finished else []
    if not lost:
        return folder.finished
    if _task(config) != "none" and not checkpoint.any_sound(folder.checkpoints):
        scores = f"effrec evaluate {folder.path} for its metrics, or " if lost == [result.FILE_NAME] else ""
        same = [word for word in overrides if not word.startswith(("run.dir=", "run.resume="))]
        raise ConfigError(
            f"The finished run has lost {', '.join(lost)}, and no sound checkpoint is left to write it from.",
            where=str(folder.path),
            fix=f"{scores}train it again: {' '.join(['effrec train', *same, 'run.dir=PATH'])}",
        )
    say(f"{folder.path} holds a finished run that has lost {', '.join(lost)}: writing it anew.")
    return False


def _task(config: Config) -> str:
    """Returns how the model will be fed, or raises ConfigError where method and model do not fit."""
    return task_of_run(config)


def _keep_settings(folder: RunFolder, config: Config, overrides: list[str]) -> None:
    write_bytes(folder.path / "config.yaml", compose.to_yaml(config).encode())
    write_bytes(folder.path / OVERRIDES, yaml.safe_dump(overrides).encode())
    folder.write_json("env.json", env.describe(env.resolve_device(config.run.device)))


def _train_here_or_launch(folder: RunFolder, config: Config) -> None:
    if config.run.devices > 1:
        folder.hand_over()
        launch.launch(folder.path, config.run.devices, config.run.device)
        return
    with folder.recording():
        train(config, folder, World(device=env.resolve_device(config.run.device)))


def _run_among_others(config: Config, overrides: list[str]) -> result.Result:
    """Runs this rank's part under an outside launcher; rank 0 keeps the folder and prints."""
    world = distributed.join(config.run.device)
    opened = _opened(config) if world.is_main else None
    config.run.dir = world.from_main(config.run.dir or "")
    folder = opened or RunFolder(Path(config.run.dir))
    finished = world.from_main(world.is_main and _left_alone(folder, config, overrides))
    if world.is_main:
        if finished:
            say(_LEFT_ALONE.format(folder.path))
            folder.close()
        else:
            _keep_settings(folder, config, overrides)
    if not finished:
        with folder.tidied():
            _train_rank(config, folder, world)
    world.wait()
    found = result.read(folder.path)
    if world.is_main:
        print_result(found, folder.path)
    world.leave()
    return found


def _build(method: Method, data: RecData, folder: RunFolder) -> tuple[Batches | None, RecData]:
    """Gives a method its model, on the device; returns its batches, and the data as it prepared them."""
    config, world = method.config, method.world
    method.recall(checkpoint.method_state(folder.checkpoints))
    data = method.prepare(data)
    # Ranks on unlike devices might choose otherwise.
    config.method, config.optimizer = world.from_main((config.method, config.optimizer))
    method.data = data
    torch.manual_seed(config.seed)
    method.model = method.build(data).to(world.device)
    batches = None if method.task == "none" else method.batches(data)
    if batches is not None:
        refuse_empty_shares(batches, config.run.accumulate, world.size)
    return batches, data


def _what_is_trained(config: Config, data: RecData, method: Method, world: World) -> str:
    model = "" if config.model.name == "none" else f" ({config.model.name})"
    ranks = f" x {world.size}" if world.size > 1 else ""
    return (
        f"{config.method.name}{model} on {data.name}: {data.num_users:,} users, {data.num_items:,} items, "
        f"{method.training_rows:,} training rows; {env.device_name(world.device)}{ranks}"
    )


def _passed_by(config: Config, method: Method) -> str:
    """Returns that labels are not what is trained on, and with what they would be."""
    dropped = f"rows with {config.dataset.label}=0 and the columns beside them are passed by"
    return f"task {method.task} trains on interactions: {dropped} (model=dlrm method=cadc foretells labels)"


def _flops(method: Method, batches: Batches | None, world: World) -> float | None:
    """Returns the floating-point operations of one sample's forward pass and loss; None without a loop."""
    if batches is None:
        return None
    batch = batches.batch(0, 0, Share(), 0).to(world.device)
    return flops_per_sample(lambda: method.loss(batch), samples=batch.size)


def _described(config: Config, data: RecData, method: Method, world: World) -> dict[str, Any]:
    """Returns what result.json says besides metrics and cost."""
    surroundings = env.describe(world.device)
    return {
        "protocol": method.protocol(),
        "dataset": {
            "name": data.name,
            "hash": data.content_hash,
            "users": data.num_users,
            "items": data.num_items,
            "interactions": data.num_interactions,
            "stats": data.stats,
            **({} if data.sample is None else {"sample": data.sample}),
        },
        "method": config.method.name,
        "model": config.model.name,
        "kernel": getattr(method, "kernel", None),
        "seed": config.seed,
        "commit": surroundings["commit"],
        "versions": surroundings["versions"],
        "device": {"kind": surroundings["device_kind"], "name": surroundings["device"], "count": world.size},
        "config": compose.resolved(config),
        "precision": resolve_precision(config.run.precision, world.device),
        "ceiling": method.ceiling,
        "by_frequency": method.by_frequency,
        "choices": method.choices(),
        "sparsity": method.sparsity(),
    }
