"""Files as answers, whole or the range that was asked for (RFC 9110), so that a download that broke off goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from django.http import FileResponse, HttpResponse, HttpResponseBase, StreamingHttpResponse

_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CHUNK_BYTES = 1 << 16


def file_response(path: Path, *, name: str, media_type: str, asked: str | None) -> HttpResponseBase:
    """200 with the file, 206 with the one range of the header `asked`, or 416. Raises OSError."""
    size = path.stat().st_size
    found = _ONE_RANGE.fullmatch(asked.strip()) if asked else None
    if found is None or not any(found.groups()):  # what is not understood, several ranges too, may be passed over
        whole = FileResponse(path.open("rb"), as_attachment=True, filename=name, content_type=media_type)
        whole.headers["Accept-Ranges"] = "bytes"
        return whole
    first, last = found.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if begin > end:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    part = StreamingHttpResponse(_pieces(path, begin, end - begin + 1), status=206, content_type=media_type)
    for header, value in {
        "Content-Range": f"bytes {begin}-{end}/{size}",
        "Content-Length": str(end - begin + 1),
        "Accept-Ranges": "bytes",
    }.items():
        part.headers[header] = value
    return part


def _pieces(path: Path, begin: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while length and (piece := file.read(min(_CHUNK_BYTES, length))):
            length -= len(piece)
            yield piece
