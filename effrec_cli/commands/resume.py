"""`effrec resume RUN`: goes on with an interrupted run from its last checkpoint."""

from __future__ import annotations

from pathlib import Path

from effrec_cli.arguments import Parser
from effrec_cli.errors import ConfigError
from effrec_cli.loop.interrupt import held


def main(argv: list[str]) -> int:
    """Resumes the run in the folder that `argv` names.

    Raises:
        ConfigError: it is not a run's folder.
        EffrecError: what stopped the run this time.
    """
    parser = Parser(prog="effrec resume", description="Goes on with an interrupted run.")
    parser.add_argument("run", metavar="RUN", help="the run's folder, such as outputs/NAME")
    folder = Path(parser.parse_args(argv).run)
    if not (folder / "config.yaml").is_file():
        what = "This folder holds no run." if folder.is_dir() else "There is no such folder."
        raise ConfigError(what, where=str(folder), fix="effrec compare outputs/ lists the finished runs")

    with held():
        from effrec_cli.run import resume

    resume(folder)
    return 0
