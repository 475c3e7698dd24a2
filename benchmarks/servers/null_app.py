"""An ASGI application that answers a constant: the ceiling of uvicorn, HTTP and the client on this machine."""

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"16")]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b'{"prediction":0}'})
