"""effrec: train recommenders efficiently, and know what it cost."""

__version__ = "0.1.0"
