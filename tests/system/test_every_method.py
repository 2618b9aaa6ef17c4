"""Every method of the seed's table, asked and answered through a real broker, by nodes of either serialization."""

import http.server
import socket
import threading

import pytest

from appliance.methods.registry import METHOD_TABLE
from tests.support.appliance import Appliance, settle
from tests.support.nats_server import NatsServer

CENTRAL = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
nodes:
  central:
    serialization: {serialization}
    compression: {compression}
    subscribe:
      REQToFile: {{}}
      REQToFileAppend: {{}}
      REQToConsole: {{}}
      REQErrorLog: {{}}
      REQHello: {{}}
      REQPong: {{}}
      REQCopyFileTo: {{allow_paths: ["{work}/**"]}}
      REQCliCommand: {{accept_from: [ship1], allow_commands: [[sh, -c, "*"]]}}
  gateway: {{}}
  ship1: {{}}
"""
SHIP = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
nodes:
  central: {{subscribe: {{REQHello: {{}}}}}}
  gateway:
    serialization: {serialization}
    compression: {compression}
    subscribe:
      REQRelay: {{relay_to: [ship1], relay_methods: any}}
      REQToFileAppend: {{}}
  ship1:
    serialization: {serialization}
    compression: {compression}
    accept_from_placeholder: null
    subscribe:
      REQCliCommand:
        allow_commands: [[echo, "**"], [sh, -c, "*"]]
        allow_reply_methods: any
      REQCliCommandCont: {{allow_commands: [[sh, -c, "*"]]}}
      REQTailFile: {{allow_paths: ["{work}/**"]}}
      REQHttpGet: {{allow_urls: ["http://127.0.0.1:{port}/**"]}}
      REQCopyFileFrom: {{allow_paths: ["{work}/**"]}}
      REQCopyFileTo: {{allow_paths: ["{work}/**"]}}
      REQToSocket: {{allow_paths: ["{work}/**"]}}
      REQToFile: {{}}
      REQToFileAppend: {{}}
      REQToConsole: {{}}
      REQPing: {{}}
      REQOpProcessList: {{}}
      REQOpProcessStart: {{}}
      REQOpProcessStop: {{}}
      REQRelayInitial: {{}}
    publish:
      hello: {{to: central, method: REQHello, every: 1h, data: ["Hello from ${{node}}\\n"]}}
""".replace("    accept_from_placeholder: null\n", "")

BYTES = r"\377\000\376end"
RAW = b"\xff\x00\xfeend"


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(RAW)

    def log_message(self, *_):
        pass


class Fleet:
    """Central in one daemon, ship1 and a gateway in another."""

    def __init__(self, central, ship, work, port):
        self.central, self.ship, self.work, self.port = central, ship, work, port

    def ask(self, method, *arguments, **fields):
        """What central's operator sees of a message to ship1."""
        message = {"from_node": "central", "to_nodes": ["ship1"], "method": method,
                   "method_args": list(arguments), "directory": "all", "file_name": f"{method}.out", **fields}  # fmt: skip
        return self.central.follow(message)

    def filed(self, name, node="ship1", where=None):
        """Content of a file below `all` once it is there and everything has settled."""
        file = (where or self.central).data("all", node, name)
        (where or self.central).wait_until(lambda status: file.exists())
        self.settle()
        return file.read_bytes()

    def settle(self):
        settle(self.central, self.ship)


@pytest.fixture(
    scope="module",
    params=[("gob", "none", "gob", "zstd"), ("cbor", "zstd", "cbor", "none"), ("gob", "zstd", "cbor", "zstd")],
    ids=["gob", "cbor", "mixed"],
)  # fmt: skip
def fleet(request, tmp_path_factory):
    one, pack_one, two, pack_two = request.param
    root = tmp_path_factory.mktemp("every")
    work = root / "work"
    work.mkdir()
    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=page.serve_forever)
    thread.start()
    words = {"work": work, "port": page.server_port}
    try:
        with NatsServer() as broker:
            central = CENTRAL.format(
                url=broker.url, serialization=one, compression=pack_one, **words
            )
            ship = SHIP.format(url=broker.url, serialization=two, compression=pack_two, **words)
            first = Appliance(central, root / "c", args=["--node", "central"])
            second = Appliance(ship, root / "s", args=["--node", "ship1", "--node", "gateway"])
            first.only_named = second.only_named = True
            with first, second:
                yield Fleet(first, second, work, page.server_port)
    finally:
        page.shutdown()
        thread.join()
        page.server_close()


def test_commands_answer_with_their_output_whatever_bytes_it_holds(fleet):
    lines = fleet.ask("REQCliCommand", "sh", "-c", f"printf '{BYTES}'; exit 3")
    assert '"exit_status":"3"' in lines
    assert fleet.filed("REQCliCommand.out") == RAW


def test_long_commands_answer_line_by_line(fleet):
    lines = fleet.ask("REQCliCommandCont", "sh", "-c", "echo one; echo two >&2; echo three")
    assert '"exit_status":"0"' in lines
    assert sorted(fleet.filed("REQCliCommandCont.out").split()) == [b"one", b"three", b"two"]


def test_a_file_is_followed(fleet):
    log = fleet.work / "followed.log"
    log.write_text("before\n")
    stop = threading.Event()

    def write():
        number = 0
        while not stop.wait(0.05):
            number += 1
            with log.open("a") as file:
                file.write(f"line {number}\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        lines = fleet.ask("REQTailFile", str(log), method_timeout=2)
    finally:
        stop.set()
        writer.join()
    assert '"unanswered":[]' in lines
    got = fleet.filed("REQTailFile.out").decode().splitlines()
    first = int(got[0].split()[1])
    assert len(got) > 3
    assert got == [f"line {number}" for number in range(first, first + len(got))]


def test_a_page_is_fetched(fleet):
    lines = fleet.ask("REQHttpGet", f"http://127.0.0.1:{fleet.port}/page")
    assert '"unanswered":[]' in lines
    assert fleet.filed("REQHttpGet.out") == RAW


def test_files_are_copied_both_ways(fleet):
    source = fleet.work / "source.bin"
    source.write_bytes(RAW * 1000)
    assert '"unanswered":[]' in fleet.ask(
        "REQCopyFileFrom", str(source), "central", f"{fleet.work}/at-central"
    )
    assert (fleet.work / "at-central").read_bytes() == RAW * 1000
    large = RAW * 400_000
    source.write_bytes(large)
    assert '"unanswered":[]' in fleet.ask(
        "REQCopyFileFrom", str(source), "central", f"{fleet.work}/large"
    )
    assert (fleet.work / "large").read_bytes() == large
    fleet.ask("REQCopyFileTo", "x", "ship1", f"{fleet.work}/given", data=["given"])
    fleet.settle()
    assert (fleet.work / "given").read_text() == "given"


def test_data_goes_into_a_socket(fleet):
    path = fleet.work / "listener"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(60)
        fleet.central.send({"from_node": "central", "to_nodes": ["ship1"], "method": "REQToSocket",
                            "method_args": [str(path)], "data": ["into ", "the socket"]})  # fmt: skip
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            assert connection.makefile().read() == "into the socket"
    path.unlink()


def test_files_and_the_console_take_data(fleet):
    fleet.ask("REQToFile", data=["whole"], file_name="f.txt")
    fleet.ask("REQToFileAppend", data=["a", "b"], file_name="a.txt")
    fleet.ask("REQToConsole", data=["on the console"])
    assert fleet.filed("f.txt", where=fleet.ship) == b"whole"
    assert fleet.filed("a.txt", where=fleet.ship) == b"ab"
    assert "on the console" in fleet.ship.log()


def test_a_ping_is_answered_with_a_pong(fleet):
    lines = fleet.ask("REQPing", reply_method="REQPong")
    assert '"method":"REQPong"' in lines


def test_workers_are_listed_stopped_and_started(fleet):
    assert "ship1.REQPing.EventACK" in fleet.ask("REQOpProcessList")
    assert "stopped" in fleet.ask("REQOpProcessStop", "REQPing", "ship1", "subscriber")
    assert "started" in fleet.ask("REQOpProcessStart", "REQPing")


def test_a_command_is_relayed_and_its_answer_comes_back(fleet):
    lines = fleet.ask("REQCliCommand", "echo", "by way of the gateway", relay_via_node="gateway",
                      relay_reply_method="REQToFile", file_name="relayed.out")  # fmt: skip
    assert '"unanswered":[]' in lines
    assert fleet.filed("relayed.out") == b"by way of the gateway\n"


def test_hellos_and_error_reports_arrive(fleet):
    fleet.central.wait_until(lambda status: "ship1" in status["hellos"])
    fleet.ask("REQCliCommand", "not-allowed")
    log = fleet.central.data("errorLog", "errorCentral", "error.log")
    fleet.central.wait_until(
        lambda status: log.exists() and "not in allow_commands" in log.read_text()
    )


def test_data_of_a_message_is_in_the_environment_of_a_command(fleet):
    fleet.ask("REQCliCommand", "sh", "-c", 'printf %s "{{STEWARD_DATA}}"', data=["some ", "data"],
              file_name="data.out")  # fmt: skip
    assert fleet.filed("data.out") == b"some data"


def test_an_answer_may_arrive_as_a_command_where_both_sides_allow_it(fleet):
    out = fleet.work / "from-reply"
    fleet.ask("REQCliCommand", "echo", "answer", reply_method="REQCliCommand",
              reply_method_args=["sh", "-c", f'printf %s "{{{{STEWARD_DATA}}}}" > {out}; echo ran'],
              file_name="twice.out")  # fmt: skip
    fleet.central.wait_until(lambda status: out.exists())
    fleet.settle()
    assert out.read_text() == "answer\n"
    # what the second command printed stays at the node that ran it
    assert fleet.filed("twice.out") == b"ran\n"


def test_no_method_is_forgotten_here():
    tested = {
        "REQCliCommand", "REQCliCommandCont", "REQTailFile", "REQHttpGet", "REQCopyFileFrom", "REQCopyFileTo",
        "REQCopyFileChunk", "REQToSocket", "REQToFile", "REQToFileAppend", "REQToConsole", "REQPing", "REQPong",
        "REQOpProcessList", "REQOpProcessStart", "REQOpProcessStop", "REQRelay", "REQHello", "REQErrorLog",
    }  # fmt: skip
    elsewhere = {
        "REQRelayInitial",  # for a Go process of one's own name: test_relay
        "REQCopyFileList",  # test_copy_many
        "REQProgramList",  # test_jobs
        "REQProgramStop",
    }
    assert set(METHOD_TABLE) - tested == elsewhere
