"""Where in its image a feature cell lies: sine and learned encodings (paper section 3.2 and appendix A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """Fixed sine encodings of the relative position inside the unpadded image, 2 * `num_pos_feats` channels."""

    def __init__(self, num_pos_feats: int, temperature: float = 10000.0) -> None:
        super().__init__()
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature

    def forward(self, padding_mask: Tensor) -> Tensor:
        """bool [B, h, w], True on padding, to float32 [B, 2 * num_pos_feats, h, w]."""
        valid = (~padding_mask).float()
        y = self._encode_axis(valid.cumsum(1), last=valid.sum(1, keepdim=True))
        x = self._encode_axis(valid.cumsum(2), last=valid.sum(2, keepdim=True))
        return torch.cat((y, x), dim=3).permute(0, 3, 1, 2)

    def _encode_axis(self, position: Tensor, last: Tensor) -> Tensor:
        """1-based positions [B, h, w], scaled by the last valid one to (0, 2 pi], to [B, h, w, num_pos_feats]."""
        position = position / (last + 1e-6) * (2 * math.pi)
        pair = torch.arange(self.num_pos_feats // 2, dtype=torch.float32, device=position.device)
        angle = position.unsqueeze(-1) / self.temperature ** (2 * pair / self.num_pos_feats)  # (B, h, w, pairs)
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(3)


class PositionEmbeddingLearned(nn.Module):
    """One learned vector a row and one a column, for feature maps of at most `max_cells` cells a side."""

    def __init__(self, num_pos_feats: int, max_cells: int = 50) -> None:
        super().__init__()
        self.max_cells = max_cells
        self.row_embed = nn.Embedding(max_cells, num_pos_feats)
        self.col_embed = nn.Embedding(max_cells, num_pos_feats)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, padding_mask: Tensor) -> Tensor:
        """bool [B, h, w] to float32 [B, 2 * num_pos_feats, h, w]; ValueError where a side exceeds `max_cells`."""
        batch, height, width = padding_mask.shape
        if height > self.max_cells or width > self.max_cells:
            raise ValueError(
                f"learned position encodings reach {self.max_cells} x {self.max_cells} cells, this feature map has "
                f"{height} x {width}: use smaller images or sine encodings"
            )
        cells = torch.arange(self.max_cells, device=padding_mask.device)
        x = self.col_embed(cells[:width]).unsqueeze(0).expand(height, -1, -1)
        y = self.row_embed(cells[:height]).unsqueeze(1).expand(-1, width, -1)
        return torch.cat((x, y), dim=-1).permute(2, 0, 1).unsqueeze(0).expand(batch, -1, -1, -1)
