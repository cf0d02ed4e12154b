"""What BentoML would tell other machines, switched off."""

import inspect
import re
from functools import wraps
from pathlib import Path

import bentoml
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from serving.repair import repair

TAG_MANAGER = re.compile(r"<!-- Google Tag Manager.*?<!-- End Google Tag Manager[^>]*-->", re.DOTALL)


@repair(
    {
        "_bentoml_impl.server.app:ServiceAppFactory": ["async def index_page(self, _: Request) -> Response"],
        "bentoml._internal.bento.bento:get_default_svc_readme": ["img.shields.io"],
        "bentoml._internal.utils.analytics.usage_stats:do_not_track": ["BENTOML_DO_NOT_TRACK"],
    }
)
def send_nothing_elsewhere() -> None:
    """Let BentoML's page at / ask no other machine, and report no use of its command line.

    Without it: the page loads Google's tag manager, and badges from four other sites. Each `bentoml serve` is reported
    to BentoML's makers, unless BENTOML_DO_NOT_TRACK=True is set.
    Seen in: BentoML 1.4.40. Can go when: the page asks no other machine, and tracking is something to switch on.
    """
    from _bentoml_impl.server.app import ServiceAppFactory
    from bentoml._internal.bento import bento
    from bentoml._internal.utils.analytics import usage_stats

    index_page = ServiceAppFactory.index_page

    async def without_tag_manager(factory: ServiceAppFactory, request: Request) -> Response:
        page = await index_page(factory, request)
        if not isinstance(page, FileResponse):  # this repair was applied twice
            return page
        return HTMLResponse(TAG_MANAGER.sub("", Path(page.path).read_text(encoding="utf-8")))

    ServiceAppFactory.index_page = without_tag_manager
    # wraps() keeps the source of the first one, by which a repair tells whether it fits.
    bento.get_default_svc_readme = wraps(bento.get_default_svc_readme)(lambda *service: own_words(*service))
    usage_stats.do_not_track = wraps(usage_stats.do_not_track)(lambda: True)


def own_words(service: bentoml.Service, _: str | None = None) -> str:
    """What the page says of a service: its name, its docstring and its demo."""
    demo = "\n\n[Drop a photograph](demo)" if "classify" in service.apis else ""
    return f"# {service.name}\n\n{inspect.getdoc(service.inner)}{demo}"
