"""A batch that needs every kernel, for before the first request."""

from __future__ import annotations

from pie_backend.batch import BackendInfo, Batch, Row, Sample, Sampling


def first_batch(info: BackendInfo) -> Batch:
    """Rows that decode, prefill and are masked, as many as there are pages for."""
    draws = [Sample(0, Sampling(temperature=1.0, top_k=5)), Sample(0, Sampling())]
    rows = [
        Row([0, 0], 0, [0] if info.page_size > 1 else [0, 1], draws),
        Row([0], 0, [2], draws),
        Row([0], 0, [3], draws, attention=[b"\x01"]),
    ]
    return Batch(0, [row for row in rows if max(row.pages) < info.num_pages])
