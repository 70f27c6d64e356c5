"""Refuses batches that would read or write outside the pool, or ask for what is not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pie_backend.base import BackendError
from pie_backend.batch import BackendInfo, Batch, Probe, Row, Sample


def check_batch(batch: Batch, info: BackendInfo) -> None:
    """Raises BackendError naming the row and what is wrong with it."""
    for number, row in enumerate(batch.rows):
        complaint = next(_complaints(row, info), None)
        if complaint is not None:
            raise BackendError(f"step {batch.step}, row {number}: {complaint}")
    for file in filter(None, (batch.store, batch.load)):
        if not all(0 <= page < info.num_pages for page in file.pages) or file.first < 0:
            raise BackendError(f"step {batch.step}: a file's pages are outside the pool")
    if any(not 0 <= page < info.num_pages for pair in batch.copies for page in pair):
        raise BackendError(f"step {batch.step}: copies are outside [0, {info.num_pages})")
    _check_moves(batch, info)


def _check_moves(batch: Batch, info: BackendInfo) -> None:
    moves = [*batch.evict, *((page, slot) for slot, page in batch.restore)]
    for page, slot in moves:
        if not (0 <= page < info.num_pages and 0 <= slot < info.num_host_pages):
            raise BackendError(
                f"step {batch.step}: page {page} or slot {slot} is outside [0, {info.num_pages}) "
                f"or [0, {info.num_host_pages})"
            )


def _complaints(row: Row, info: BackendInfo) -> Iterator[str]:
    end = row.start + len(row.tokens)
    if not row.tokens or row.start < 0 or end > info.max_context:
        yield f"covers positions [{row.start}, {end})"
    if len(row.pages) * info.page_size < end:
        yield f"{len(row.pages)} pages cannot hold {end} tokens"
    if min(row.pages) < 0 or max(row.pages) >= info.num_pages:
        yield f"pages are outside [0, {info.num_pages})"
    if min(row.tokens) < 0 or max(row.tokens) >= info.vocab_size:
        yield f"tokens are outside [0, {info.vocab_size})"
    if row.positions is not None and not _fit(row.positions, len(row.tokens), info.max_context):
        yield f"positions are not {len(row.tokens)} within the context"
    yield from _visibility_complaints(row, end)
    yield from _question_complaints(row, info)


def _visibility_complaints(row: Row, end: int) -> Iterator[str]:
    if (complaint := row.complaint_about_attention()) is not None:
        yield complaint
    if not row.hides_in_order:
        yield f"hides {row.hidden}, which are not ranges in order within [0, {end})"


def _question_complaints(row: Row, info: BackendInfo) -> Iterator[str]:
    mask_bytes = -(-info.vocab_size // 8)
    kinds: dict[str, Sequence[Sample | Probe]] = {"sample": row.samples, "probe": row.probes}
    for kind, questions in kinds.items():
        for number, question in enumerate(questions):
            name = f"{kind} {number}"
            if not 0 <= question.index < len(row.tokens):
                yield f"{name} is after none of its {len(row.tokens)} tokens"
            mask = question.mask
            if mask is not None and len(mask) != mask_bytes:
                yield f"{name} has a mask of {len(mask)} bytes, not {mask_bytes}"
            if mask is not None and not any(mask):
                yield f"{name} has a mask that allows nothing"
    for number, probe in enumerate(row.probes):
        if not all(0 <= token < info.vocab_size for token in probe.tokens):
            yield f"probe {number} asks for tokens outside [0, {info.vocab_size})"


def _fit(positions: list[int], num_tokens: int, max_context: int) -> bool:
    return len(positions) == num_tokens and all(0 <= p < max_context for p in positions)
