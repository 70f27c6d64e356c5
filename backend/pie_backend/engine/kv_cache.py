"""The paged pool of keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pie_backend.engine.devices.base import Memory
from pie_backend.engine.parallel.team import ALONE, Team


@dataclass(frozen=True, slots=True)
class KVShape:
    num_layers: int
    num_kv_heads: int
    head_dim: int
    page_size: int
    dtype: torch.dtype

    @property
    def page_bytes(self) -> int:
        """Of one page over all layers, keys and values."""
        per_token = 2 * self.num_layers * self.num_kv_heads * self.head_dim
        return per_token * self.page_size * self.dtype.itemsize


class KVCache:
    """[layers, key|value x heads, pages, page_size, head_dim], head-major.

    A head's part of a page is one contiguous block, so that gathering a row's pages gives the
    [heads, length, head_dim] that a batched product reads without another copy.
    """

    def __init__(
        self,
        shape: KVShape,
        memory: Memory,
        num_pages: int,
        num_host_pages: int = 0,
        team: Team = ALONE,
    ) -> None:
        self.shape = shape
        self.team = team
        """Who has the other heads of the same pages."""
        self.place = memory.place
        self.num_pages = num_pages
        self.num_host_pages = num_host_pages
        planes = 2 * shape.num_kv_heads
        size = (shape.num_layers, planes, num_pages, shape.page_size, shape.head_dim)
        self._pool = memory.empty(size, shape.dtype)
        host_size = (num_host_pages, shape.num_layers, planes, shape.page_size, shape.head_dim)
        self._host = memory.empty_host(host_size, shape.dtype)
        slots = num_pages * shape.page_size
        self._slots = [layer.view(planes, slots, shape.head_dim) for layer in self._pool]
        self._addresses: list[int] = [layer.data_ptr() for layer in self._pool]
        self._blocks = [layer.view(planes * num_pages, -1) for layer in self._pool]
        self.plane_size = slots * shape.head_dim
        """Numbers in the keys, or the values, of one head of a layer."""
        planes_from = torch.arange(planes, device=self.place) * num_pages
        self._plane_offsets = planes_from.unsqueeze(1)  # [planes, 1]

    def keys_and_values(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Each [pages, H, page_size, D], views of the pool."""
        num_heads = self.shape.num_kv_heads
        by_page = self._pool[layer].transpose(0, 1)
        return by_page[:, :num_heads], by_page[:, num_heads:]

    def layer_address(self, layer: int) -> int:
        """Where a layer's planes begin: 2H of `plane_size` numbers, keys first."""
        return self._addresses[layer]

    def write(self, layer: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """k, v [N, H, D] to int64 slots [N], where slot = page * page_size + offset."""
        num_heads = self.shape.num_kv_heads
        pool = self._slots[layer]
        pool[:num_heads].index_copy_(1, slots, k.transpose(0, 1))
        pool[num_heads:].index_copy_(1, slots, v.transpose(0, 1))

    def block_index(self, pages: torch.Tensor) -> torch.Tensor:
        """int64 pages [n] -> [2H * n]: where their blocks lie, in every layer alike."""
        return (self._plane_offsets + pages).view(-1)

    def gather(self, layer: int, blocks: torch.Tensor, num_rows: int) -> torch.Tensor:
        """Pages of equally long tables -> [2, H, rows, length, D] (copied)."""
        shape = self.shape
        found = torch.embedding(self._blocks[layer], blocks)
        return found.view(2, shape.num_kv_heads, num_rows, -1, shape.head_dim)

    def copy_pages(self, copies: list[tuple[int, int]]) -> None:
        """In order, so that a chain of copies means what it says."""
        for source, destination in copies:
            self._pool[:, :, destination] = self._pool[:, :, source]

    def evict_pages(self, moves: list[tuple[int, int]]) -> None:
        """(page, slot), in order: a page's content to host memory.

        Where the device works behind our back it still does one thing after the other, and nothing
        but the device reads a slot: nobody has to wait.
        """
        for page, slot in moves:
            self._host[slot].copy_(self._pool[:, :, page], non_blocking=True)

    def restore_pages(self, moves: list[tuple[int, int]]) -> None:
        """(slot, page), in order: back to the pool."""
        for slot, page in moves:
            self._pool[:, :, page].copy_(self._host[slot], non_blocking=True)

    def page(self, number: int) -> torch.Tensor:
        """[layers, key|value x heads, page_size, head_dim], where it lies."""
        return self._pool[:, :, number]

    def clear_pages(self, pages: list[int]) -> None:
        """A page that a row enters must hold numbers: attention weighs what lies beyond the row
        with zero, and zero times a NaN left by a former owner would be NaN."""
        for page in pages:  # index_fill_ takes twice to four times as long
            self._pool[:, :, page].zero_()
