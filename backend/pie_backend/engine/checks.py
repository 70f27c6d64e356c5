"""Refuses batches that would read or write outside the pool, or ask for what is not there."""

from __future__ import annotations

from pie_backend.base import BackendError
from pie_backend.batch import BackendInfo, Batch, Probe, Row, Sample


def check_batch(batch: Batch, info: BackendInfo) -> None:
    """Raises BackendError naming the row and what is wrong with it."""
    for number, row in enumerate(batch.rows):
        if complaint := _complaint(row, info):
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


def _complaint(row: Row, info: BackendInfo) -> str:
    return _about_place(row, info) or _about_visibility(row) or _about_questions(row, info)


def _about_place(row: Row, info: BackendInfo) -> str:
    end = row.start + len(row.tokens)
    if not row.tokens or row.start < 0 or end > info.max_context:
        return f"covers positions [{row.start}, {end})"
    if len(row.pages) * info.page_size < end:
        return f"{len(row.pages)} pages cannot hold {end} tokens"
    if min(row.pages) < 0 or max(row.pages) >= info.num_pages:
        return f"pages are outside [0, {info.num_pages})"
    if min(row.tokens) < 0 or max(row.tokens) >= info.vocab_size:
        return f"tokens are outside [0, {info.vocab_size})"
    if row.positions is not None and not _fit(row.positions, len(row.tokens), info.max_context):
        return f"positions are not {len(row.tokens)} within the context"
    return ""


def _about_visibility(row: Row) -> str:
    if (complaint := row.complaint_about_attention()) is not None:
        return complaint
    if row.hidden and not row.hides_in_order:
        end = row.start + len(row.tokens)
        return f"hides {row.hidden}, which are not ranges in order within [0, {end})"
    return ""


def _about_questions(row: Row, info: BackendInfo) -> str:
    for number, sample in enumerate(row.samples):
        if complaint := _about_question(sample, row, info):
            return f"sample {number} {complaint}"
    for number, probe in enumerate(row.probes):
        if complaint := _about_question(probe, row, info):
            return f"probe {number} {complaint}"
        if not all(0 <= token < info.vocab_size for token in probe.tokens):
            return f"probe {number} asks for tokens outside [0, {info.vocab_size})"
    return ""


def _about_question(question: Sample | Probe, row: Row, info: BackendInfo) -> str:
    if not 0 <= question.index < len(row.tokens):
        return f"is after none of its {len(row.tokens)} tokens"
    if (mask := question.mask) is None:
        return ""
    mask_bytes = -(-info.vocab_size // 8)
    if len(mask) != mask_bytes:
        return f"has a mask of {len(mask)} bytes, not {mask_bytes}"
    return "" if any(mask) else "has a mask that allows nothing"


def _fit(positions: list[int], num_tokens: int, max_context: int) -> bool:
    return len(positions) == num_tokens and all(0 <= p < max_context for p in positions)
