"""Pages of plugins: the path /, forms, and CORS headers that a route gives itself."""

from __future__ import annotations

from pathlib import Path

from tests.support.hosts import CONFIG, HostProcess, running

PAGES = """
from starlette.responses import Response
from starbase_host import Answer, Route, hookimpl, read_body, read_form

def plugin(options):
    return Pages()

class Pages:
    @hookimpl
    def register_routes(self):
        return [
            Route("/", self.home, role=None, envelope=False),
            Route("/pages/form", self.form, ("POST",), role=None),
            Route("/pages/body", self.body, ("POST",), role=None),
            Route("/pages/cross", self.cross, ("GET", "OPTIONS"), role=None),
        ]

    async def home(self, request):
        return Response("<h1>hello</h1>", media_type="text/html")

    async def form(self, request):
        return await read_form(request)

    async def body(self, request):
        return len(await read_body(request))

    async def cross(self, request):
        return Response(request.method, headers={"access-control-allow-origin": "https://one.example"})
"""
ON = CONFIG.replace("[host]\n", "[host]\nmax_body_bytes = 10000\n") + '\n[plugins.pages]\nmodule = "pages"\n'


def test_pages(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(PAGES)
    with running(tmp_path, ON) as host:
        home = host.request("GET", "/", token=None)
        assert (home.text, home.headers["content-type"]) == ("<h1>hello</h1>", "text/html; charset=utf-8")
        assert host.request("GET", "/elsewhere", token=None).status_code == 404
        _forms(host)
        for method in ("GET", "OPTIONS"):
            cross = host.request(method, "/pages/cross", token=None)
            assert (cross.status_code, cross.text) == (200, method)
            assert cross.headers.get_list("access-control-allow-origin") == ["https://one.example"]
        assert host.request("OPTIONS", "/pages/form", token=None).status_code == 204


def _forms(host: HostProcess) -> None:
    assert host._client is not None
    form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}

    def send(content: bytes, headers: dict[str, str] = form) -> tuple[int, object]:
        assert host._client is not None
        answer = host._client.post("/pages/form", content=content, headers=headers)
        return answer.status_code, answer.json().get("result", answer.json().get("error"))

    assert send(b"a=1&b=%C3%A9+x&a=2&c=") == (200, {"a": ["1", "2"], "b": ["\u00e9 x"], "c": [""]})
    wrong = {
        "application/x-www-form-urlencoded": send(b"{}", {"content-type": "application/json"}),
        "not UTF-8": send(b"a=%FF"),
        "more than 1,000 fields": send(b"a=&" * 1001),
    }
    for why, (status, error) in wrong.items():
        assert (status, why in str(error)) == (400, True), error
    assert send(b"a=" + b"x" * 20_000)[0] == 413
    assert host._client.post("/pages/body", content=b"\xff" * 9000).json() == {"result": 9000}
    assert host._client.post("/pages/body", content=b"\xff" * 20_000).status_code == 413


def test_only_one_plugin_has_the_first_page(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(PAGES)
    home = '        return [Route("/", self.home)]\n\n    async def home(self, request):\n        return 1\n'
    (tmp_path / "other.py").write_text(PAGES[: PAGES.index("        return [\n")] + home)
    host = HostProcess(tmp_path, ON + '\n[plugins.other]\nmodule = "other"\n')
    ended = host.command("serve")
    assert ended.returncode == 2
    assert "plugins.other" in ended.stderr
    assert "its route / belongs to pages already" in ended.stderr
