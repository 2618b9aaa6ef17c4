"""The fleet that all these tests share: one for each process that runs them."""

import http.server
import re
import threading

import pytest

from tests.steward_defects.fleet import CONFIG, NODES, Fleet
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            self.server.let_go.wait(30)
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        self.wfile.write(b"x" * 2_000_000 if self.path == "/large" else b"page")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    root = tmp_path_factory.mktemp("fleet")
    work = root / "work"
    work.mkdir()
    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    page.let_go = threading.Event()
    thread = threading.Thread(target=page.serve_forever)
    thread.start()
    try:
        with NatsServer('http: "127.0.0.1:-1"') as broker:
            text = CONFIG.format(url=broker.url, work=work, port=page.server_port)
            daemon = Appliance(text, root / "daemon", args=[f"--node={name}" for name in NODES])
            daemon.only_named = True
            with daemon:
                found = Fleet(daemon, broker.url, work)
                found.monitor = "http://" + re.search(r"http monitor on (\S+)", broker.log)[1]
                found.page = f"http://127.0.0.1:{page.server_port}"
                yield found
    finally:
        page.let_go.set()
        page.shutdown()
        thread.join()
        page.server_close()
