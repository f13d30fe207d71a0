"""The server's addresses, as FastAPI describes and checks them."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import FastAPI, File, Form, HTTPException, Path, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from dinogrl_jax import __version__
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.interface.text import printable
from dinogrl_jax.retrieval.server import metrics
from dinogrl_jax.retrieval.server.answers import (
    PLACE,
    GalleryAnswer,
    Modality,
    Refusal,
    Said,
    SearchAnswer,
    StoredLabel,
    found_tracklet,
)
from dinogrl_jax.retrieval.server.documents import POLICY as DOCUMENT_POLICY
from dinogrl_jax.retrieval.server.documents import api_page
from dinogrl_jax.retrieval.server.guard import Access, Guard
from dinogrl_jax.retrieval.server.service import FULL_DISK, Filters, Service, Upload, is_full
from dinogrl_jax.retrieval.store.entries import seconds_of
from dinogrl_jax.retrieval.store.page import NO_SHARE, SHARE

STATIC = FilePath(__file__).parent / "static"
MOST_FOUND = 500
ABOUT = (
    "Tracklets of a gallery that are nearest to a clip. Errors are JSON with one line, `detail`. "
    "Where the server has a token, requests have the header `Authorization: Bearer TOKEN`."
)
REFUSALS = {
    413: {"model": Refusal, "description": "too many bytes, frames or pixels"},
    415: {"model": Refusal, "description": "a file that is no picture and no video"},
    422: {"model": Refusal, "description": "a value out of range, or a clip that is damaged"},
    503: {"model": Refusal, "description": "too many requests wait, or a gallery that is damaged"},
}
Place = Annotated[int, Path(**PLACE, description="of a tracklet")]


def create_app(service: Service, access: Access) -> FastAPI:
    """The application of a service; it closes the service at its end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="dinogrl_jax",
        description=ABOUT,
        version=__version__,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_search(app, service)
    _add_labels(app, service)
    _add_pages(app, service)
    _add_errors(app)
    app.add_middleware(Guard, access=access)
    app.add_middleware(_Counted, service=service)  # before it, so that refusals count
    return app


def _add_search(app: FastAPI, service: Service) -> None:
    @app.post("/search", tags=["search"], responses=REFUSALS)
    async def search(
        files: Annotated[
            list[UploadFile],
            File(description="the clip: pictures in order of time, or one video"),
        ],
        modality: Annotated[Modality, Form(description="of the clip")],
        k: Annotated[int, Form(ge=1, le=MOST_FOUND, description="tracklets to find")] = 20,
        cameras: Annotated[
            list[str] | None, Form(description="that count, one a field; default all")
        ] = None,
        modalities: Annotated[
            list[Modality] | None, Form(description="that count; default both")
        ] = None,
        since: Annotated[
            str | None, Form(description="time from which tracklets count, ISO 8601")
        ] = None,
        until: Annotated[str | None, Form(description="time up to which they count")] = None,
    ) -> SearchAnswer:
        """Rank the gallery's tracklets by their distance to a clip, exactly."""
        if len(files) > service.limits.frames:
            most = f"more than {service.limits.frames}"
            raise HTTPException(413, f"the clip has {len(files)} frames, {most}: give fewer")
        for time in filter(None, (since, until)):
            seconds_of(time)  # raises InputError
        uploads = [Upload(one.filename or "", one.file) for one in files]
        query, frames = await service.query(uploads, modality)
        filters = Filters(cameras, modalities, since or None, until or None)
        found, said = await service.search(query, k, filters)
        overview = await service.overview()
        rows = [found_tracklet(x, service.source, said.get(x.place)) for x in found]
        return SearchAnswer(
            query=query.key, frames=frames, tracklets=overview.tracklets, found=rows
        )

    @app.get("/gallery", tags=["search"])
    async def gallery() -> GalleryAnswer:
        """What is in the gallery."""
        found = await service.overview()
        return GalleryAnswer(
            model=service.source.title,
            distance=service.source.distance,
            note=SHARE if service.source.thresholds else NO_SHARE,
            tracklets=found.tracklets,
            cameras=list(found.cameras),
            modalities=list(found.modalities),
            first=found.first,
            last=found.last,
        )

    jpeg = {200: {"content": {"image/jpeg": {}}}, 404: {"model": Refusal}}

    @app.get("/tracklets/{place}/thumbnail", tags=["search"], responses=jpeg)
    async def thumbnail(place: Place) -> Response:
        """A small picture of a tracklet."""
        content = (await service.entry(place)).thumbnail
        if not content:
            raise HTTPException(404, f"tracklet {place} has no thumbnail")
        return Response(content, media_type="image/jpeg")

    @app.get("/tracklets/{place}/frames/{number}", tags=["search"], responses=jpeg)
    async def frame(
        place: Place, number: Annotated[int, Path(ge=0, description="from 0 on")]
    ) -> Response:
        """A small picture of one of its frames."""
        return Response(await service.frame(place, number), media_type="image/jpeg")


def _add_labels(app: FastAPI, service: Service) -> None:
    @app.put("/labels", tags=["labels"], status_code=204, responses={410: {"model": Refusal}})
    async def say(said: Said) -> None:
        """Say that a tracklet is the query's person, or another one."""
        await service.write_label(said.query, said.place, said.label)

    @app.get("/labels", tags=["labels"])
    async def said() -> list[StoredLabel]:
        """What has been said, in order of time."""
        return [StoredLabel(**x._asdict()) for x in await service.labels()]


def _add_pages(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/docs", include_in_schema=False)
    async def documents() -> HTMLResponse:
        headers = {"Content-Security-Policy": DOCUMENT_POLICY}
        return HTMLResponse(api_page(app.openapi()), headers=headers)

    @app.get("/health", tags=["operation"], responses={503: {"model": Refusal}})
    async def health() -> dict[str, str]:
        """Whether clips can be searched for; no token is asked for."""
        await service.check()
        return {"status": "ok"}

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def counters() -> Response:
        """Counters in Prometheus' text format."""
        await service.overview()
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(x) for x in first["loc"] if x not in ("body", "path"))
        text = f"{place}: {first['msg']}"
        if (place, first["type"]) == ("files", "missing"):
            text = "the clip has no frames: send pictures, or a video, as files"
        return JSONResponse({"detail": printable(text)}, 422)

    @app.exception_handler(InputError)
    async def unusable(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": printable(error)}, 422)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        status, text = error.status_code, error.detail
        if is_full(error.__cause__):
            status, text = FULL_DISK, "the server's disk is full"
        return JSONResponse({"detail": text}, status, error.headers)

    @app.exception_handler(OSError)
    async def full(_: Request, error: OSError) -> JSONResponse:
        if not is_full(error):
            raise error
        return JSONResponse({"detail": "the server's disk is full"}, FULL_DISK)


class _Counted:
    """Counts answers by path and status."""

    def __init__(self, app, service: Service) -> None:
        self.app, self.count = app, service.metrics.requests

    async def __call__(self, scope, receive, send) -> None:
        async def counted(message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                path = getattr(route, "path", "other")
                self.count.labels(path, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counted if scope["type"] == "http" else send)
