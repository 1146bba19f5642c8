"""Side networks: towers of small blocks over the hidden states of frozen backbones."""
