"""A service that asks another, with the course's repairs, REPAIRED=1, or without them: see test_serving_repairs.py."""

import asyncio
import os

import bentoml
from bentoml.exceptions import InvalidArgument

from serving.service import Json, all_ready, finish, reason

REPAIRED = os.environ.get("REPAIRED") == "1"


@bentoml.service
class Dependency:
    @bentoml.api
    async def wait(self, seconds: float) -> Json[dict]:
        await asyncio.sleep(seconds)
        return {"waited": seconds}

    @bentoml.api
    async def refuse(self, seconds: float) -> Json[dict]:
        raise InvalidArgument("expected something else")


@bentoml.service
class ImageClassifierService:
    dependency = bentoml.depends(Dependency)

    if REPAIRED:

        async def __is_ready__(self) -> bool:
            return await all_ready(self.dependency)

    @bentoml.api
    async def ask(self, first: float = 0, then: float = 0) -> Json[dict]:
        """Sleep, then ask the dependency, which sleeps as well."""
        await asyncio.sleep(first)
        return await self.dependency.to_async.wait(seconds=then)

    @bentoml.api
    async def refuse(self) -> Json[dict]:
        try:
            return await self.dependency.to_async.refuse(seconds=0)
        except InvalidArgument as error:
            raise InvalidArgument(reason(error) if REPAIRED else str(error)) from error


if REPAIRED:
    finish(ImageClassifierService)
