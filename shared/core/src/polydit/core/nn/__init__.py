"""Pure tensors in, tensors out: the parts that every diffusion transformer here is made of."""

from polydit.core.nn.attention import SelfAttention, attend
from polydit.core.nn.block import BlockConfig, DiTBlock, FinalLayer
from polydit.core.nn.embeddings import LabelEmbedding, TimeEmbedding, sincos_grid, token_positions
from polydit.core.nn.feed_forward import FeedForward, SwiGLU
from polydit.core.nn.modulation import MODULATIONS, AdaLNSingle, AdaLNZero, ModulationTable
from polydit.core.nn.patchify import PatchEmbed, patchify, unpatchify
from polydit.core.nn.patterns import Full, Padding, Pattern, Segments, Window

__all__ = [
    "MODULATIONS",
    "AdaLNSingle",
    "AdaLNZero",
    "BlockConfig",
    "DiTBlock",
    "FeedForward",
    "FinalLayer",
    "Full",
    "LabelEmbedding",
    "ModulationTable",
    "Padding",
    "PatchEmbed",
    "Pattern",
    "Segments",
    "SelfAttention",
    "SwiGLU",
    "TimeEmbedding",
    "Window",
    "attend",
    "patchify",
    "sincos_grid",
    "token_positions",
    "unpatchify",
]
