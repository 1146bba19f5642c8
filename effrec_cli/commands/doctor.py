"""`effrec doctor`: what this machine has, lacks and should mend."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from effrec_cli.arguments import Parser
from effrec_cli.diagnose import ABSENT, BROKEN, OK, WARN, Finding, findings
from effrec_cli.errors import EnvironmentFault
from effrec_cli.screen import table


def main(argv: list[str]) -> int:
    """Prints the findings; returns 6 if something that every run needs is broken, else 0."""
    parser = Parser(prog="effrec doctor", description="Checks this machine.")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--data-root", metavar="DIR", type=Path, help="where data live, if not $EFFREC_DATA")
    options = parser.parse_args(argv)
    found = findings(options.data_root)
    broken = any(each.state == BROKEN for each in found)
    if options.json:
        print(json.dumps({"ok": not broken, "findings": [asdict(each) for each in found]}, indent=1))
    else:
        print(_text(found))
    return EnvironmentFault.exit_code if broken else 0


def _text(found: list[Finding]) -> str:
    marks = {OK: "", ABSENT: "optional", WARN: "warn", BROKEN: "BROKEN"}
    listed = table(("", "what", "found"), [(marks[each.state], each.name, each.value) for each in found])
    fixes = [f"  {each.name}: {each.fix}" for each in found if each.state != OK and each.fix]
    troubled = any(each.state in (WARN, BROKEN) for each in found)
    verdict = [] if troubled else ["", "All that a run needs is well."]
    return "\n".join([listed, *verdict, *(["", "to mend or add:", *fixes] if fixes else [])])
