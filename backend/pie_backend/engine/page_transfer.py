"""Pages between the pool and files. A file has whole pages, whichever ranks have their parts, so
that what one number of ranks has written another can read."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pie_backend.batch import PageFile
from pie_backend.engine.kv_cache import KVCache
from pie_backend.page_files import read_pages, write_pages


def store_pages(file: PageFile, cache: KVCache) -> None:
    """All ranks call it; rank 0 writes.

    Raises: PageFileError.
    """
    pages = torch.stack([cache.page(number) for number in file.pages])
    # [pages, layers, keys or values, ranks, heads of one, page_size, head_dim]
    whole = torch.stack([_by_kind(part) for part in cache.team.gather(pages)], dim=3)
    if cache.team.rank == 0:
        write_pages(file, _contents(whole))


def load_pages(file: PageFile, cache: KVCache) -> None:
    """All ranks call it; each reads the file and keeps its part.

    Raises: PageFileError.
    """
    contents = read_pages(file, cache.shape.page_bytes * cache.team.size)
    for number, content in zip(file.pages, contents, strict=True):
        page = cache.page(number)
        flat = torch.frombuffer(bytearray(content), dtype=page.dtype)
        layers, planes, page_size, head_dim = page.shape
        whole = flat.view(layers, 2, cache.team.size, planes // 2, page_size, head_dim)
        page.copy_(whole[:, :, cache.team.rank].reshape(page.shape))


def _by_kind(pages: torch.Tensor) -> torch.Tensor:
    """[pages, layers, key|value x heads, ...] -> [pages, layers, 2, heads, ...]"""
    num_pages, layers, planes, *rest = pages.shape
    return pages.view(num_pages, layers, 2, planes // 2, *rest)


def _contents(pages: torch.Tensor) -> Iterator[bytes]:
    for page in pages:
        yield page.contiguous().view(torch.uint8).cpu().numpy().tobytes()
