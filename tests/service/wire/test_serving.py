"""What the code leans on in uvicorn and h11 is there, or the service does not start and says what is missing."""

from __future__ import annotations

import ast
import inspect
import sys
from importlib.metadata import version
from pkgutil import resolve_name
from types import ModuleType

import h11
import pytest
import uvicorn
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from service.wire import bounded_connection, protocol, uvicorn_server
from service.wire.serving import _LEANED_ON, _names_of, what_is_missing
from service.wire.uvicorn_server import url_of
from tests.server_process import start_in_vain

ALL = [(place, name) for place, names in _LEANED_ON.items() for name in names]


def test_all_of_it_is_there() -> None:
    assert what_is_missing() is None


@pytest.mark.parametrize(("place", "name"), ALL)
def test_whatever_is_gone_is_named_with_the_version(place: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = resolve_name(place)

    class Another:
        """Has all the names but one."""

        def __init__(self) -> None:
            """Set no attribute."""

    for kept in _LEANED_ON[place]:
        if kept != name:
            setattr(Another, kept, None)
    monkeypatch.setattr(sys.modules[kind.__module__], kind.__name__, Another)
    monkeypatch.setattr(resolve_name(place.partition(":")[0]), kind.__name__, Another)
    package = place.partition(":")[0].partition(".")[0]
    dotted = place.replace(":", ".")
    assert what_is_missing() == f"{package} {version(package)}: {dotted} has no {name}"


def test_a_module_that_is_gone_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.flow_control", None)
    gone = f"uvicorn {version('uvicorn')} has no uvicorn.protocols.http.flow_control.FlowControl"
    assert what_is_missing() == gone


@pytest.mark.parametrize(
    "change",
    [
        "from uvicorn.server import Server; del Server.capture_signals",
        "from uvicorn.protocols.http.h11_impl import H11Protocol; del H11Protocol.send_400_response",
        "import sys; sys.modules['uvicorn.protocols.http.h11_impl'] = None",
    ],
)
def test_a_server_that_lacks_some_of_it_does_not_start_and_says_so_in_one_line(change: str) -> None:
    code = f"{change}\nimport sys\nfrom service.cli import main\nsys.exit(main(['serve', *sys.argv[1:]]))"
    exit_code, log, errors = start_in_vain(command=(sys.executable, "-c", code))
    (line,) = errors.splitlines()
    assert (exit_code, log) == (1, [])
    assert line.startswith(f"detr serve: uvicorn {version('uvicorn')}")


@pytest.mark.parametrize(
    ("module", "bases"),
    [
        (protocol, (H11Protocol, RequestResponseCycle, FlowControl)),
        (uvicorn_server, (uvicorn.Server, uvicorn.Config)),
        (bounded_connection, (h11.Connection, ReceiveBuffer)),
    ],
    ids=["protocol", "server", "connection"],
)
def test_nothing_is_leaned_on_that_is_not_looked_for(module: ModuleType, bases: tuple[type, ...]) -> None:
    """Of what the classes call, override, read or set of themselves: all that the bases have, too."""
    tree = ast.parse(inspect.getsource(module))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_of_self(node.value)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    theirs = set().union(*map(_names_of, bases))
    looked_for = {name for names in _LEANED_ON.values() for name in names}
    assert {name for name in used & theirs if not name.startswith("__")} <= looked_for


def is_of_self(node: ast.expr) -> bool:
    """Whether this is `self`, `super()`, or an attribute of them."""
    match node:
        case ast.Name(id="self") | ast.Call(func=ast.Name(id="super")):
            return True
        case ast.Attribute(value=value):
            return is_of_self(value)
    return False


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://127.0.0.1:80/"),
        ("::", "http://[::1]:80/"),
        ("fe80::1", "http://[fe80::1]:80/"),
    ],
)
def test_the_address_that_is_told_can_be_opened(host: str, url: str) -> None:
    assert url_of(host, 80) == url
