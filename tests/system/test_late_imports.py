"""A daemon goes on when its files are replaced under it, as by an upgrade that leaves the old one running."""

import http.server
import sys
import threading

import pytest

from tests.support.appliance import Appliance

SMALL = """
version: 1
broker: {embedded: true}
reload: {settle: 20ms}
nodes:
  solo: {subscribe: {REQPing: {}}}
"""
LARGE = """
version: 1
broker: {embedded: true}
reload: {settle: 20ms}
admin: {listen: "127.0.0.1:0"}
inputs:
  socket: {path: inputs.sock}
  tcp: {listen: "127.0.0.1:0"}
  http: {listen: "127.0.0.1:0"}
  folder: {path: %(folder)s}
methods:
  Get: {http: {url: "%(url)s"}}
  Say: {exec: [echo, "{args.0}"], args: {type: array, items: {type: string, format: hostname}}}
nodes:
  solo:
    subscribe:
      REQPing: {}
      REQToFileAppend: {}
      REQCliCommand: {allow_commands: any}
      REQCliCommandCont: {allow_commands: any}
      REQHttpGet: {allow_urls: ["%(url)s"]}
      REQTailFile: {allow_paths: any}
      Get: {}
      Say: {}
    publish:
      minutely: {to: elsewhere, method: REQHello, cron: "* * * * *", data: [x]}
  elsewhere: {subscribe: {REQHello: {}, REQToFileAppend: {}, REQPing: {}, REQPong: {}}}
"""
LAUNCHER = """
import atexit, os, runpy, sys
asked = []
def hear(event, args):
    if event == "import" and os.path.exists({mark!r}):
        asked.append(args[0])
sys.addaudithook(hear)
def tell():
    # what was tried and is not there at all is no loss
    late = sorted({{name for name in asked if name in sys.modules}})
    with open({late!r}, "w") as file:
        file.write("\\n".join(late))
atexit.register(tell)
runpy.run_module("appliance", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def web():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"here")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}/x"
    server.shutdown()
    thread.join()
    server.server_close()


def test_running_daemon_needs_no_module_that_it_has_not_loaded(short_dir, tmp_path, web):
    mark, late, launcher = tmp_path / "mark", tmp_path / "late", tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER.format(mark=str(mark), late=str(late)))
    (tmp_path / "folder").mkdir()
    daemon = Appliance(SMALL, short_dir / "daemon", command=[sys.executable, str(launcher)])
    with daemon:
        mark.touch()
        assert daemon.reload()["result"] == "unchanged"
        daemon.write_config("nodes: {")
        assert daemon.reload()["result"] == "refused"
        daemon.write_config(LARGE % {"folder": tmp_path / "folder", "url": web})
        verdict = daemon.reload()
        assert verdict["result"] == "applied", str(verdict)
        for path in ("/", "/metrics", "/api/v1/status", "/api/v1/history"):
            assert daemon.request("GET", path)[0] == 200
        for method, *arguments in (
            ("REQCliCommand", "uname"),
            ("REQCliCommandCont", "uname"),
            ("REQHttpGet", web),
            ("Get",),
            ("Say", "x"),
        ):
            lines = daemon.follow(
                {
                    **{"from_node": "elsewhere", "to_nodes": ["solo"], "file_name": "said"},
                    **{"method": method, "method_args": arguments},
                }
            )
            assert '"data":' in lines, lines
        daemon.write_config(SMALL)
        assert daemon.reload(force=True)["result"] == "applied"
    assert late.read_text().split() == []
