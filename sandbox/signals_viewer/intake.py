"""The two addresses that take signals: POST /v1/traces (OTLP) and POST /api/{project}/envelope/ (Sentry).

A body is read no further than the limits; compressed ones (gzip, deflate) are unpacked no further either.
What cannot be read is answered with 4xx and one sentence, and nothing of it is kept.
"""

import zlib
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from sandbox.signals_viewer.envelopes import NotAnEnvelope, decode_envelope
from sandbox.signals_viewer.otlp import NotAnExport, decode_export, encode_answer
from sandbox.signals_viewer.store import SignalStore

MAX_SENT_BYTES: Final = 4 * 1024 * 1024
"""An export of 512 spans takes some 300 kB."""
MAX_UNPACKED_BYTES: Final = 16 * 1024 * 1024
_EITHER_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS

router = APIRouter(include_in_schema=False)


def get_store(request: Request) -> SignalStore:
    """Return the store of the application."""
    store: SignalStore = request.app.state.store
    return store


Store = Annotated[SignalStore, Depends(get_store)]


async def read_body(request: Request) -> bytes:
    """Return the body, unpacked.

    Raises:
        HTTPException: It is too long, packed in an unknown way, or broken.
    """
    chunks, length = [], 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > MAX_SENT_BYTES:
            raise _too_long()
        chunks.append(chunk)
    body = b"".join(chunks)
    packing = request.headers.get("Content-Encoding", "identity").strip().lower()
    if packing == "identity":
        return body
    if packing not in {"gzip", "deflate"}:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is gzip, deflate or none here"
        )
    unpacking = zlib.decompressobj(_EITHER_GZIP_OR_ZLIB)
    try:
        unpacked = unpacking.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body is not {packing}") from error
    if unpacking.unconsumed_tail:
        raise _too_long()
    if not unpacking.eof:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body is not {packing}: it is cut off")
    return unpacked


def _too_long() -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"at most {MAX_SENT_BYTES} bytes, and {MAX_UNPACKED_BYTES} once unpacked, are read",
    )


Body = Annotated[bytes, Depends(read_body)]


@router.post("/v1/traces")
async def take_traces(request: Request, body: Body, store: Store) -> Response:
    """Keep the spans of an OTLP export."""
    if request.headers.get("Content-Type", "").startswith("application/json"):
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "OTLP is read as binary protobuf here: set the exporter's protocol to http/protobuf",
        )
    try:
        spans, rejected = decode_export(body)
    except NotAnExport as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
    store.add_spans(spans)
    return Response(encode_answer(rejected), media_type="application/x-protobuf")


@router.post("/api/{project}/envelope/")
async def take_errors(body: Body, store: Store) -> dict[str, str]:
    """Keep the error reports of a Sentry envelope."""
    try:
        envelope_id, reports = decode_envelope(body)
    except NotAnEnvelope as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
    for report in reports:
        store.add_error(report)
    return {"id": envelope_id}
