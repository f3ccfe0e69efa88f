"""Qwen-VL's vision transformer, whose blocks are CLIP's with another activation, and resampler.

Restated from visual.py of x1ngzai/Qwen-VL-Chat-Int4@1cd721a, with its names outside the blocks.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, initialization
from transformers.models.clip.modeling_clip import CLIPEncoder

POSITIONS = 256  # rows of the learned table: 16 x 16, whatever the image's size
RESAMPLER_HEAD = 128  # channels of one attention head of the resampler


class QwenVLVisionConfig(PreTrainedConfig):
    """The vision transformer and its resampler; the defaults are Qwen-VL-Chat's."""

    model_type = "qwen_vl_vision"
    base_config_key = "vision_config"

    image_size: int = 448
    patch_size: int = 14
    hidden_size: int = 1664
    num_hidden_layers: int = 48
    num_attention_heads: int = 16
    intermediate_size: int = 8192  # of the blocks' MLP
    num_queries: int = 256  # tokens an image becomes
    output_size: int = 4096  # width of the language model
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu"  # the exact one
    attention_dropout: float = 0.0


def sincos_positions(width: int, grid: int) -> torch.Tensor:
    """Fixed 2-D sine-cosine table (grid * grid, width): the first half of the channels tells x."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, width / 2)
    across = line[None, :, :].expand(grid, -1, -1)
    down = line[:, None, :].expand(-1, grid, -1)
    return torch.cat([across, down], dim=2).reshape(grid * grid, width).float()


def resized_positions(table: torch.Tensor, count: int) -> torch.Tensor:
    """A square position table (S*S, D) resized to (count, D), bicubic, as the original does."""
    have, want = math.isqrt(len(table)), math.isqrt(count)
    if have == want:
        return table
    square = table.float().reshape(1, have, have, -1).permute(0, 3, 1, 2)
    square = functional.interpolate(square, (want, want), mode="bicubic", align_corners=False)
    return square.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)


class QwenVLResampler(nn.Module):
    """One cross-attention from learned queries to the patches.

    Positions are added to queries and keys, not to values; the keys' table is resized to the grid
    of patches.
    """

    def __init__(self, config: QwenVLVisionConfig) -> None:
        super().__init__()
        width, eps = config.output_size, config.layer_norm_eps
        self.grid = math.isqrt(config.num_queries)
        # A parameter, as in the original, whose fine-tuning script makes it trainable.
        self.pos_embed = nn.Parameter(torch.empty(config.num_queries, width), requires_grad=False)
        self.query = nn.Parameter(torch.empty(config.num_queries, width))
        self.kv_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.attn = nn.MultiheadAttention(width, width // RESAMPLER_HEAD, batch_first=True)
        self.ln_q = nn.LayerNorm(width, eps)
        self.ln_kv = nn.LayerNorm(width, eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, P, C) -> (N, Q, D)."""
        value = self.ln_kv(self.kv_proj(x))
        key = value + resized_positions(self.pos_embed, value.shape[1])
        query = (self.ln_q(self.query) + self.pos_embed).expand(len(x), -1, -1)
        return self.attn(query, key, value, need_weights=False)[0]


class QwenVLVisual(nn.Module):
    """Image to tokens of the language model: patches, blocks, resampler, norm, projection."""

    def __init__(self, config: QwenVLVisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(POSITIONS, width))
        self.ln_pre = nn.LayerNorm(width, config.layer_norm_eps)
        self.transformer = CLIPEncoder(config)
        self.attn_pool = QwenVLResampler(config)
        self.ln_post = nn.LayerNorm(config.output_size, config.layer_norm_eps)
        self.proj = nn.Parameter(torch.empty(config.output_size, config.output_size))

    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Patches with their positions, (N, 3, H, W) -> (N, P, C)."""
        x = self.conv1(pixel_values.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        return x + resized_positions(self.positional_embedding, x.shape[1])

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the resampler is given of each patch, (N, 3, H, W) -> (N, P, C)."""
        return self.transformer(self.ln_pre(self.embed(pixel_values))).last_hidden_state

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """(N, P, C) -> (N, Q, D)."""
        return self.ln_post(self.attn_pool(features)) @ self.proj

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, Q, D)."""
        return self.project(self.features(pixel_values))


def initialise(module: nn.Module) -> None:
    """Fill the parameters that are not inside a layer torch or transformers knows."""
    if isinstance(module, QwenVLVisual):
        width, out = module.ln_pre.normalized_shape[0], len(module.proj)
        initialization.normal_(module.positional_embedding, std=width**-0.5)
        initialization.normal_(module.proj, std=out**-0.5)
    elif isinstance(module, QwenVLResampler):
        initialization.trunc_normal_(module.query, std=0.02)
        table = sincos_positions(module.pos_embed.shape[1], module.grid)
        initialization.copy_(module.pos_embed, table)
