"""Folders in Hugging Face's layout with tiny random models, and a tokenizer of encoder_helpers' words."""

import pytest
import torch
from encoder_helpers import WORDS

LAYERS = 3
SMALL = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
OF_KIND = {
    "roberta": {"pad_token_id": 1},
    "xlm-roberta": {"pad_token_id": 1},
    "mpnet": {"pad_token_id": 1},
    "distilbert": {"dim": 16, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": LAYERS, "num_heads": 2},
    "gpt2": {"n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 40},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0},
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def config_of(kind, **settings):
    transformers = pytest.importorskip("transformers")
    given = {**SMALL, **OF_KIND.get(kind, {}), **settings}
    if kind in ("distilbert", "t5", "gpt2"):  # which have names of their own for these
        given = {
            "vocab_size": given["vocab_size"],
            "max_position_embeddings": 40,
            **OF_KIND[kind],
            **settings,
        }
    return transformers.AutoConfig.for_model(kind, **given)


def text_folder(path, kind="bert", *, tokenizer=True, weights=True, **settings):
    """Returns a folder with a random text model of some kind."""
    return save_folder(path, config_of(kind, **settings), tokenizer=tokenizer, weights=weights)


def save_folder(path, config, *, tokenizer=True, weights=True):
    """Returns a folder with a random model of a configuration."""
    import transformers

    torch.manual_seed(7)
    if weights:
        transformers.AutoModel.from_config(config).save_pretrained(path)
    else:
        config.save_pretrained(path)
    if tokenizer:
        save_tokenizer(path)
    return str(path)


def save_tokenizer(path):
    """Writes a tokenizer that leads each text by [CLS] and ends it by [SEP]."""
    import tokenizers
    import transformers

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(path)
