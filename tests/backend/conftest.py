from __future__ import annotations

from pathlib import Path

import pytest

from support.chat_model import write_chat_model


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a byte-level tokenizer trained here and a chat template with tools."""
    return write_chat_model(tmp_path_factory.mktemp("chat-model"))
