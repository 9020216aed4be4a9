"""A pytest plug-in: one server for each module of tests, with engines that really hear and speak."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from openai_harness import MODEL, Connect, Session, config, spoken_question, talking

from vivavoce.server.app import Server, running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running(config(tmp_path_factory.mktemp("server")), host="127.0.0.1", port=0) as server:
        yield server


@pytest.fixture(scope="module")
def connect(server: Server) -> Connect:
    def connect(model: str = MODEL, *, azure: bool = False) -> Session:
        return talking(server.port, model, azure=azure)

    return connect


@pytest.fixture(scope="session")
def question() -> bytes:
    return spoken_question()
