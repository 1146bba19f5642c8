"""Folders with tiny random backbones of many kinds, and backbones over a few items."""

from pathlib import Path

from encoder_helpers import contents
from hub_helpers import save_folder

from effrec_cli.methods.multimodal.backbones import build_backbone
from effrec_cli.schema.backbone import BackboneConfig, backbone_problems

LAYERS = 3
_SHAPE = {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 32}
_TEXT = {**_SHAPE, "vocab_size": 30, "max_position_embeddings": 40}
_VISION = {**_SHAPE, "image_size": 16, "patch_size": 8}
_KINDS = {
    "bert": _TEXT,
    "deberta": {**_TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pad_token_id": 0},
    "deberta-v2": {  # with the convolution of its largest ones, after the first layer
        **_TEXT,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "pad_token_id": 0,
        "conv_kernel_size": 3,
        "conv_act": "gelu",
    },
    "llama": {**_TEXT, "num_key_value_heads": 1},
    "gemma": {**_TEXT, "num_key_value_heads": 1, "head_dim": 8},
    "gemma3_text": {**_TEXT, "num_key_value_heads": 1, "head_dim": 8},
    "qwen2": {**_TEXT, "num_key_value_heads": 1},
    "qwen3": {**_TEXT, "num_key_value_heads": 1, "head_dim": 8},
    "mixtral": {**_TEXT, "num_key_value_heads": 1, "num_local_experts": 2},
    "modernbert": {**_TEXT, "pad_token_id": 0},
    "gpt_neox": _TEXT,
    "phi3": {**_TEXT, "pad_token_id": 0},
    "falcon": _TEXT,
    "mamba": {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": LAYERS},
    "xlnet": {"vocab_size": 30, "d_model": 16, "n_layer": LAYERS, "n_head": 2, "d_inner": 32},
    "bart": {
        "vocab_size": 30,
        "d_model": 16,
        "encoder_layers": LAYERS,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 40,
    },
    "vit_mae": {**_VISION, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2},
    "albert": {**_TEXT, "embedding_size": 8},
    "gpt2": {"vocab_size": 30, "n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 40},
    "t5": {"vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": LAYERS, "num_heads": 2},
    "vit": _VISION,
    "dinov2": _VISION,
    "swin": {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 1, 1]},
}
_TEXTS = ("bert", "deberta", "deberta-v2", "llama", "gemma", "gemma3_text", "qwen2", "qwen3", "gpt2", "t5")
TEXTS = (*_TEXTS, "modernbert", "gpt_neox", "phi3", "bart", "clip", "siglip")
IMAGES = ("vit", "dinov2", "vit_mae", "clip", "siglip")


def config_of(kind, **settings):
    """Returns the configuration of a tiny model of some kind."""
    import transformers

    if kind in ("clip", "siglip"):
        both = transformers.CLIPConfig if kind == "clip" else transformers.SiglipConfig
        text = {**_TEXT, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "projection_size": 16}
        return both(text_config={**text, **settings}, vision_config=dict(_VISION))
    return transformers.AutoConfig.for_model(kind, **{**_KINDS[kind], **settings})


def folder_of(path, kind, *, tokenizer=True, weights=True, **settings):
    """Returns a folder with a random model of some kind, of its text and image halves where it has both."""
    return save_folder(path, config_of(kind, **settings), tokenizer=tokenizer, weights=weights)


class Folders:
    """Makes the folder of each kind once."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root, {}

    def __call__(self, kind):
        if kind not in self.made:
            self.made[kind] = folder_of(self.root / kind, kind)
        return self.made[kind]


def backbone(modality, given=None, said=None, cache=None, pooler=False, **settings):
    """Returns a backbone in float64 over twelve items, without dropout unless it is among the settings."""
    config = BackboneConfig(**{"dropout": 0.0, **settings})
    assert not list(backbone_problems(config, f"method.{modality}", modality))
    say = (lambda line: None) if said is None else said.append
    made = build_backbone(config, given or contents(), modality, cache, say, pooler=pooler)
    made.network.double()
    return made
