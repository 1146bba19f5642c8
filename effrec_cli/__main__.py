"""`python -m effrec_cli` is `effrec`."""

import sys

from effrec_cli.app import main

sys.exit(main())
