"""Tiny backbones, what their taps are by another way, and readers of items over them."""

import numpy as np
import pytest
import torch
from encoder_helpers import contents

from effrec_cli.models.encoders.hub import HubImage, HubText
from effrec_cli.models.encoders.reader import RowPooling, TapReader
from effrec_cli.models.encoders.rows import ImageRows, TokenRows
from effrec_cli.models.encoders.small import PatchEmbedding, SmallNetwork, WordEmbedding
from effrec_cli.models.encoders.sources import ItemReader

LAYERS, DIM = 3, 32
SIZES = {"hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 48}


def bert(**settings):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.BertConfig(vocab_size=40, max_position_embeddings=40, **SIZES, **settings)
    return HubText(
        transformers.AutoModel.from_config(config, attn_implementation="sdpa", dtype=torch.float32), DIM
    )


def vit():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    config = transformers.ViTConfig(image_size=12, patch_size=4, **SIZES)
    model = transformers.AutoModel.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    return HubImage(model, DIM, (12, 12), [0.5] * 3, [0.5] * 3)


def small_text(num_words=12, dropout=0.3):
    torch.manual_seed(5)
    return SmallNetwork(
        WordEmbedding(num_words, 30, DIM), dim=DIM, num_layers=LAYERS, num_heads=2, dropout=dropout
    )


def small_image():
    torch.manual_seed(6)
    return SmallNetwork(PatchEmbedding(10, 14, DIM), dim=DIM, num_layers=LAYERS, num_heads=2, dropout=0.3)


def token_rows(given=None):
    """Returns the tokens of the items of encoder_helpers, each led by one more word, and their numbers."""
    table = (given or contents()).tokens.led()
    rows = TokenRows(torch.from_numpy(np.array(table.tokens)), torch.from_numpy(np.array(table.offsets)), 0)
    return rows, table.lengths


def image_rows(given=None):
    images = (given or contents()).images
    return ImageRows(torch.from_numpy(images)), np.full(len(images), 10, np.int64)


def text_reader(network=None, kind="cls", taps=(0, 2, 3), batch_tokens=1000, given=None):
    rows, costs = token_rows(given)
    reader = TapReader(bert() if network is None else network, RowPooling(kind), taps)
    return ItemReader(rows, costs, reader, batch_tokens)


def image_reader(network=None, kind="cls", taps=(0, 2, 3), batch_tokens=1000, given=None):
    rows, costs = image_rows(given)
    reader = TapReader(vit() if network is None else network, RowPooling(kind), taps)
    return ItemReader(rows, costs, reader, batch_tokens)
