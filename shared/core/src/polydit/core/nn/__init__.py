"""Pure tensors in, tensors out: the parts that every diffusion transformer here is made of."""

from polydit.core.nn.attention import CrossAttention, KeysValues, SelfAttention, attend
from polydit.core.nn.block import BlockConfig, DiTBlock, FinalLayer
from polydit.core.nn.embeddings import LabelEmbedding, TimeEmbedding, sincos, sincos_grid, token_positions
from polydit.core.nn.feed_forward import FeedForward, SwiGLU
from polydit.core.nn.modulation import MODULATIONS, AdaLNSingle, AdaLNZero, ModulationTable
from polydit.core.nn.norms import NORMS, VarianceNorm
from polydit.core.nn.patchify import PatchEmbed, patchify, unpatchify
from polydit.core.nn.patterns import Full, Groups, Padding, Pattern, Segments, Window

__all__ = [
    "MODULATIONS",
    "NORMS",
    "AdaLNSingle",
    "AdaLNZero",
    "BlockConfig",
    "CrossAttention",
    "DiTBlock",
    "FeedForward",
    "FinalLayer",
    "Full",
    "Groups",
    "KeysValues",
    "LabelEmbedding",
    "ModulationTable",
    "Padding",
    "PatchEmbed",
    "Pattern",
    "Segments",
    "SelfAttention",
    "SwiGLU",
    "TimeEmbedding",
    "VarianceNorm",
    "Window",
    "attend",
    "patchify",
    "sincos",
    "sincos_grid",
    "token_positions",
    "unpatchify",
]
