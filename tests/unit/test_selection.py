"""What a run may be selected by, once a validation has told which metrics the data give."""

import pytest

from effrec_cli.errors import ConfigError
from effrec_cli.loop.selection import Selection


def test_a_metric_that_the_data_do_not_give_is_told_with_those_that_would_do():
    with pytest.raises(ConfigError, match="'auc_cold'") as raised:
        Selection("auc_cold", None).score({"auc": 0.7, "accuracy": 0.6, "log_loss": 0.5})
    assert raised.value.fix == "choose one of: accuracy, auc"
