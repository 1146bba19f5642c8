"""`effrec ls`: the methods, datasets, models and experiments that a run can name."""

from __future__ import annotations

import json
from typing import Any

from effrec_cli.arguments import Parser
from effrec_cli.catalogue import GROUPS, entries
from effrec_cli.errors import unknown_name
from effrec_cli.screen import table


def main(argv: list[str]) -> int:
    """Prints what `argv` asks for.

    Raises:
        ConfigError: there is no such list, or no such folder of configs.
    """
    parser = Parser(prog="effrec ls", description="Lists what a run can name.")
    parser.add_argument("kind", metavar="|".join(GROUPS))
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="with YAML groups of your own")
    options = parser.parse_args(argv)
    if options.kind not in GROUPS:
        raise unknown_name("list", options.kind, GROUPS)
    found = entries(options.kind, options.config_dir)
    print(json.dumps(found, indent=1) if options.json else _text(options.kind, found))
    return 0


def _text(kind: str, found: list[dict[str, Any]]) -> str:
    if not found:
        return f"There are no {kind}."
    headers = max((list(entry) for entry in found), key=len)
    rows = [[entry.get(header) for header in headers] for entry in found]
    return f"{table(headers, rows)}\n\nuse: effrec train {GROUPS[kind]}=NAME"
