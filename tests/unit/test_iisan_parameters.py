"""`effrec validate` counts trainable parameters as published, without weights and before there are data."""

import json

import pytest
from iisan_helpers import MODES

from effrec_cli.app import main

# papers/iisan section 1.9.
PUBLISHED = {
    "iisan": 4_113_877,
    "fft": 194_897_216,
    "adapter": 4_965_440,
    "lora": 796_736,
    "bitfit": 412_736,
    "frozen": 206_912,
}
VARIANTS = {
    "13 taps": (["method.num_taps=12"], 5_898_343),
    "4 taps": (["method.num_taps=3"], 3_221_644),
    "intra": (["method.towers=intra"], 2_776_014),
    "inter": (["method.towers=inter"], 1_438_151),
    "sums": (["method.fusion=sum"], 4_113_877 - 21),
    "heads of the follow-up": (["method.head=narrow"], 2_941_013),
}
# Sections 1.10 and 8, by width of the texts beside ViT-base; the sheet rounds the second one.
WIDE = {8192: 54_165_589, 4096: 28_184_661}

pytest.importorskip("transformers")


@pytest.fixture
def counted(tmp_path, monkeypatch, capsys):
    """Returns a function: settings to what `effrec validate --json` counts, here in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("EFFREC_DATA", str(tmp_path / "data"))

    def of(*words):
        capsys.readouterr()
        assert main(["validate", "--json", *words]) == 2, "the data are not here"
        report = json.loads(capsys.readouterr().out)
        assert report["error"]["where"].startswith("dataset.")
        return report["parameters"]["trainable"]

    return of


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("data", ["scientific", "instruments", "office"])
def test_trainable_parameters_of_the_papers_experiments(counted, data, mode):
    assert counted(f"experiment=paper_iisan_{data}", f"method.mode={mode}") == PUBLISHED[mode]


@pytest.mark.parametrize("name", VARIANTS)
def test_trainable_parameters_of_other_towers(counted, name):
    words, expected = VARIANTS[name]
    assert counted("experiment=paper_iisan_scientific", *words) == expected


@pytest.mark.parametrize("width", WIDE)
def test_trainable_parameters_beside_a_wide_language_model(counted, width, tmp_path):
    shape = {
        "hidden_size": width,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 64,
    }
    (tmp_path / "llama").mkdir()
    config = {"model_type": "llama", "vocab_size": 100, "architectures": ["LlamaModel"], **shape}
    (tmp_path / "llama/config.json").write_text(json.dumps(config))
    text = ["method.text.name=llama", "method.text.weights=random", "method.text.tokenizer=dataset"]
    assert counted("experiment=paper_iisan_scientific", *text) == WIDE[width]
