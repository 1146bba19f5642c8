"""A simulated world with planted structure and a known ceiling, in numpy alone (docs/simulator.md)."""

from effrec_cli.data.synthetic.source import SyntheticSource
from effrec_cli.data.synthetic.text import vocabulary
from effrec_cli.data.synthetic.writer import write_csv

__all__ = ["SyntheticSource", "vocabulary", "write_csv"]
