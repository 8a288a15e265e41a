"""The weights: table against cards, store against changed and hostile files, downloads against bad servers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import struct
import threading
import typing
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eval.weights import WEIGHTS, Store, Weight, default_folder
from eval.weights.contents import Unusable, format_of
from eval.weights.download import Download, _Redirects
from manifests.errors import InputError, StorageError
from mvv.weights import weights_add, weights_fetch, weights_list, weights_verify


def safetensors(values: int, seed: int = 0) -> bytes:
    """A file with one tensor of that many floats, written by hand from the format's description."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack(f"<{values}f", *(seed + k for k in range(values)))


GOOD = safetensors(20_000)
SHA = hashlib.sha256(GOOD).hexdigest()
FAST = Download(attempts=3, backoff_s=0.0, timeout_s=5.0)


def entry(**changes) -> Weight:
    fields = {
        "name": "tiny", "title": "Tiny", "file": "tiny.safetensors", "licence": "MIT", "sha256": SHA,
        "bytes": len(GOOD), "used_by": ("test",), "obtain": "draw it", "source": "test",
    }  # fmt: skip
    return Weight(**(fields | changes))


@pytest.fixture
def table(monkeypatch) -> Callable[..., Weight]:
    """Puts one more weight into the table."""

    def put(**changes) -> Weight:
        made = entry(**changes)
        monkeypatch.setitem(WEIGHTS, made.name, made)
        return made

    return put


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", download=FAST)


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(GOOD)
    return path


# -- the table ---------------------------------------------------------------------------------------------------------


def test_table_has_what_was_agreed_and_only_sound_entries():
    """Oracle: the names of the plan; the form of hashes and addresses; names that carry the hash's beginning."""
    assert set(WEIGHTS) == {
        "dino-vitb16", "openai-clip-vit-b-32", "openai-clip-vit-l-14", "laion-aesthetic-vit-l-14-linear",
        "alexnet-trunk", "vgg16-trunk", "raft-large-c-t-v1", "raft-large-c-t-skht-v2", "amt-s", "viclip-l14",
        "i3d-kinetics-400",
    }  # fmt: skip
    for name, weight in WEIGHTS.items():
        assert weight.name == name
        assert all(url.startswith("https://") and url.rpartition("/")[2] == weight.file for url in weight.urls)
        assert re.fullmatch(r"([0-9a-f]{64})?", weight.sha256)
        assert weight.sha256.startswith(weight.sha256_prefix) or not weight.sha256
        in_name = re.search(r"-([0-9a-f]{8})\.pth$", weight.file)
        assert weight.sha256_prefix == (in_name[1] if in_name else "")
        assert weight.used_by
        assert weight.obtain
    assert [name for name, weight in WEIGHTS.items() if weight.noncommercial] == ["amt-s"]


def test_table_agrees_with_torchvision_and_open_clip():
    """Oracle: the addresses in the source text of the installed packages."""
    import importlib.util

    def source(package: str, path: str) -> str:
        return (Path(importlib.util.find_spec(package).origin).parent / path).read_text("utf-8")

    for name, path in {
        "alexnet-trunk": "models/alexnet.py", "vgg16-trunk": "models/vgg.py",
        "raft-large-c-t-v1": "models/optical_flow/raft.py", "raft-large-c-t-skht-v2": "models/optical_flow/raft.py",
    }.items():  # fmt: skip
        assert f'"{WEIGHTS[name].urls[0]}"' in source("torchvision", path)
    for name in ("openai-clip-vit-b-32", "openai-clip-vit-l-14"):
        assert WEIGHTS[name].urls[0] in source("open_clip", "pretrained.py")
        assert WEIGHTS[name].sha256 in WEIGHTS[name].urls[0]


def test_cards_name_weights_of_the_table():
    """Oracle: the cards of all metrics; the table lists under each weight the metrics whose cards name it."""
    metrics = pytest.importorskip("eval.metrics", exc_type=ImportError)
    cards = [metric.card for metric in metrics.METRICS.values()]
    for name, weight in WEIGHTS.items():
        assert {card.id for card in cards if name in card.weights} == set(weight.used_by), name
    assert {name for card in cards for name in card.weights} <= set(WEIGHTS)


# -- the store ---------------------------------------------------------------------------------------------------------


def test_default_folder_follows_the_environment(monkeypatch, tmp_path):
    """Oracle: the documented rule."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MVVIDEO_WEIGHTS", raising=False)
    assert default_folder() == tmp_path / ".cache" / "mvvideo" / "weights"
    monkeypatch.setenv("MVVIDEO_WEIGHTS", str(tmp_path / "w"))
    assert Store().folder == tmp_path / "w"


def test_store_keeps_what_is_added_and_says_how_to_get_the_rest(store, table, good):
    """Oracle: hashlib, and the bytes."""
    table(urls=("https://example.invalid/tiny.safetensors",))
    assert not store.has("tiny")
    with pytest.raises(
        InputError, match=r"mvv weights fetch tiny`, or get .*example.invalid.*mvv weights add tiny FILE"
    ):
        store.path("tiny")
    record = store.add("tiny", good)
    assert (record.sha256, record.custom, record.known_by) == (SHA, False, "hash")
    assert store.path("tiny").read_bytes() == GOOD
    assert store.sha256("tiny") == SHA
    assert [status.weight.name for status in store.list() if status.path] == ["tiny"]
    with pytest.raises(InputError, match="did you mean amt-s"):
        store.has("amt")


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"sha256": "", "sha256_prefix": "00000000"}])
def test_wrong_hash_is_refused_naming_both_and_leaves_nothing(store, table, good, known):
    """Oracle: the listing of the folder."""
    table(**known)
    with pytest.raises(InputError, match=f"found SHA-256 {SHA}, expected 00000000"):
        store.add("tiny", good)
    assert [path.name for path in (store.folder / "tiny").iterdir()] == [".lock"]
    record = store.add("tiny", good, custom=True)
    assert record.custom
    assert store.custom("tiny")
    assert store.sha256("tiny") == SHA  # another hash than the published one, so the card's is another one too


def test_hash_that_begins_as_published_is_accepted(store, table, good):
    """Oracle: hashlib."""
    table(sha256="", sha256_prefix=SHA[:8])
    assert store.add("tiny", good).known_by == "prefix"
    assert not store.add("tiny", good, custom=True).custom  # it is the published file, whatever it is called


def test_first_file_counts_where_no_hash_is_known(store, table, good, tmp_path):
    """Oracle: hashlib."""
    table(sha256="")
    assert store.add("tiny", good).known_by == "first use"
    assert store.add("tiny", good).sha256 == SHA
    other = tmp_path / "other.safetensors"
    other.write_bytes(safetensors(7))
    with pytest.raises(InputError, match=f"expected {SHA} as of the file added on .* the first one counts"):
        store.add("tiny", other)
    assert store.sha256("tiny") == SHA
    assert store.add("tiny", other, custom=True).custom


def test_changed_file_is_noticed_and_a_touched_one_is_hashed_again(store, table, good):
    """Oracle: hashlib; the record beside the file."""
    table()
    store.add("tiny", good)
    path = store.path("tiny")
    os.utime(path, (1, 1))
    assert store.list()[-1].record is None
    assert store.sha256("tiny") == SHA
    assert store.list()[-1].record is not None
    data = bytearray(GOOD)
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))  # an editor that keeps size and time cannot hide a change from verify
    assert [problem.name for problem in store.verify()] == ["tiny"]
    os.utime(path, (2, 2))
    with pytest.raises(InputError, match=f"expected {SHA} as when it was added"):
        store.sha256("tiny")


def test_file_put_into_the_folder_by_hand_is_checked(store, table):
    """Oracle: hashlib."""
    table()
    folder = store.folder / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.safetensors").write_bytes(b"x" + GOOD[1:])
    with pytest.raises(InputError, match=f"expected {SHA}"):
        store.sha256("tiny")
    (folder / "tiny.safetensors").write_bytes(GOOD)
    assert store.sha256("tiny") == SHA
    (folder / "record.json").write_text("{")
    with pytest.raises(InputError, match=r"record\.json: found JSONDecodeError"):
        store.sha256("tiny")


def test_store_that_cannot_be_written_is_read_all_the_same(store, table, good, tmp_path):
    """Oracle: the file system; a folder where a file stands in the way."""
    table()
    store.add("tiny", good)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="right to write"):
        Store(tmp_path / "file").add("tiny", good)


def test_two_at_once_are_not_let_in(store, table, good):
    """Oracle: a lock taken by hand."""
    import fcntl

    table()
    (store.folder / "tiny").mkdir(parents=True)
    with open(store.folder / "tiny" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            store.add("tiny", good)
    store.add("tiny", good)


# -- contents ----------------------------------------------------------------------------------------------------------


class Evil:
    """Unpickled by anything that runs pickles, it leaves a file behind."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def zipped(data: bytes, *, member: str = "archive/data.pkl", **others: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(member, data)
        for name, content in others.items():
            archive.writestr(name.replace("__", "/"), content)
    return out.getvalue()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("shape", ["pickle", "zip"])
def test_pickle_of_objects_is_refused_and_nothing_runs(store, table, tmp_path, protocol, shape):
    """Canary: the file that the pickle would make; Python's own unpickler makes it."""
    canary = tmp_path / "canary"
    data = pickle.dumps({"state_dict": Evil(canary)}, protocol=protocol)
    file = tmp_path / "evil.pth"
    file.write_bytes(data if shape == "pickle" else zipped(data))
    table(sha256="")
    for custom in (False, True):
        with pytest.raises(InputError, match=r"found .*(could run any code|something else|neither)"):
            store.add("tiny", file, custom=custom)
    assert not canary.exists()
    assert not store.has("tiny")
    pickle.loads(data)
    assert canary.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no bytes"),
        (b"<!DOCTYPE html><html>log in</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "git-lfs pointer"),
        (b"GIF89a and so on", "neither a PyTorch file nor safetensors"),
        (GOOD[:-4], "ends? elsewhere"),
        (struct.pack("<Q", 10**12) + b"{}", "longer than the file"),
        (struct.pack("<Q", 4) + b"{x}}", "broken safetensors header"),
        (zipped(pickle.dumps({"a": 1}, protocol=2)), "without tensors"),
        (zipped(b"\x80\x02(", member="a/data.pkl"), "cut off or damaged"),
        (zipped(b"hello", member="a/b.txt"), "no PyTorch version"),
        (zipped(pickle.dumps({"a": 1}, protocol=2))[:-30], "cut off or damaged"),
        (pickle.dumps([1, 2, 3], protocol=2), "something else than torch.save"),
    ],
)
def test_files_that_are_no_weights_are_told_apart(tmp_path, content, found):
    """Oracle: bytes written by hand."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(Unusable, match=found):
        format_of(path)


def test_accepted_are_exactly_the_files_that_torch_reads_without_running_code(tmp_path):
    """Oracle: torch.load with weights_only and torch.jit.load, on files written by torch itself."""
    torch = pytest.importorskip("torch")

    def reads(path: Path) -> bool:
        try:
            with torch.serialization.safe_globals([typing.OrderedDict]):
                torch.load(path, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError):
            return False
        return True

    tensors = {"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.float16), "n": torch.tensor(3)}
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    contents = {
        "dict": tensors, "module": network.state_dict(), "nested": {"state_dict": tensors, "epoch": 3, "lr": 0.1},
        "parameter": {"w": torch.nn.Parameter(torch.ones(2))}, "typing": typing.OrderedDict(tensors),
        "object": {"w": torch.ones(1), "args": Path("x")}, "whole": network,
        "evil": {"w": tensors, "x": Evil(tmp_path / "no")},
    }  # fmt: skip
    accepted = set()
    for name, content in contents.items():
        for new in (True, False):
            path = tmp_path / f"{name}-{new}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=new)
            try:
                assert format_of(path) == "tensors"
                accepted.add(name)
                assert reads(path), path
            except Unusable:
                assert not reads(path), path
    assert accepted == {"dict", "module", "nested", "parameter", "typing"}
    assert not (tmp_path / "no").exists()


def test_typing_ordered_dict_of_amt_is_accepted(tmp_path):
    """Oracle: pickle itself; amt-s.pth names typing.OrderedDict, which torch reads only where it is allowed by name."""
    torch = pytest.importorskip("torch")
    plain, path = tmp_path / "plain.pth", tmp_path / "amt.pth"
    torch.save({"state_dict": {"w": torch.ones(2)}}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):  # a dict `}` becomes a call of typing.OrderedDict
                data = data.replace(b"state_dictq\x01}", b"state_dictq\x01ctyping\nOrderedDict\n)R", 1)
                assert b"typing" in data
            target.writestr(name, data)
    assert format_of(path) == "tensors"
    with pytest.raises(pickle.UnpicklingError, match=r"typing\.OrderedDict"):
        torch.load(path, weights_only=True)
    with torch.serialization.safe_globals([typing.OrderedDict]):
        assert torch.load(path, weights_only=True)["state_dict"]["w"].tolist() == [1.0, 1.0]


def test_torchscript_is_taken_only_where_it_is_published(store, table, tmp_path):
    """Oracle: an archive with the members that torch.jit.save writes."""
    path = tmp_path / "script.pt"
    path.write_bytes(
        zipped(
            b"\x80\x02.", member="ViT/data.pkl", ViT__constants=b"", **{"ViT/constants.pkl": b"", "ViT/code/x.py": b""}
        )
    )
    assert format_of(path) == "torchscript"
    table(sha256="")
    with pytest.raises(InputError, match="TorchScript archive, expected tensors"):
        store.add("tiny", path)
    table(sha256="", format="torchscript")
    store.add("tiny", path)


# -- downloads ---------------------------------------------------------------------------------------------------------


class Server:
    """Serves one file; each request takes the next fault from the list, then all goes well.

    Attributes:
        requests: (path, Range header) of each request.
    """

    def __init__(self) -> None:
        self.data, self.tag, self.ranges, self.length = GOOD, '"one"', True, True
        self.faults: list[str] = []
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.requests.append((request.path, asked))
        fault = self.faults.pop(0) if self.faults else ""
        request.close_connection = True
        if fault == "silent":
            threading.Event().wait(1.0)
            return
        if fault == "drop":
            return
        if fault.isdigit():
            request.send_response(int(fault))
            request.send_header("Retry-After", "0")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if request.path == "/moved":
            request.send_response(302)
            request.send_header("Location", "/tiny.safetensors")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        same = request.headers.get("If-Range") in (None, self.tag)
        if self.ranges and same and (found := re.fullmatch(r"bytes=(\d+)-", asked)):
            start = int(found[1])
        if start >= len(self.data):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.data)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.data[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        if self.tag:
            request.send_header("ETag", self.tag)
        request.send_header("Content-Type", "text/html" if fault == "page" else "application/octet-stream")
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if fault == "half" else body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_fetch_gets_the_file_once_and_reports_progress(store, table, server):
    """Oracle: the bytes, and the server's list of requests."""
    table(urls=(f"{server.address}/tiny.safetensors",))
    seen: list[tuple[int, int | None]] = []
    record = store.fetch("tiny", progress=lambda done, total: seen.append((done, total)))
    assert record.sha256 == SHA
    assert record.origin.startswith(server.address)
    assert store.path("tiny").read_bytes() == GOOD
    assert seen[-1] == (len(GOOD), len(GOOD))
    assert store.fetch("tiny") == record
    assert len(server.requests) == 1
    assert sorted(path.name for path in (store.folder / "tiny").iterdir()) == [
        ".lock",
        "record.json",
        "tiny.safetensors",
    ]


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        (["503", "429"], ["", "", ""]),
        (["drop"], ["", ""]),
        (["half"], ["", f"bytes={len(GOOD) // 2}-"]),
        (["half", "503", "half"], ["", f"bytes={len(GOOD) // 2}-", f"bytes={len(GOOD) // 2}-", None]),
    ],
)
def test_fetch_tries_again_and_goes_on_where_it_was(store, table, server, faults, asked):
    """Oracle: the bytes, and the ranges that the server was asked for."""
    table(urls=(f"{server.address}/tiny.safetensors",))
    server.faults = faults
    assert store.fetch("tiny").sha256 == SHA
    assert len(server.requests) == len(asked)
    assert all(want in (None, got) for want, (_, got) in zip(asked, server.requests, strict=True))


def test_fetch_starts_anew_where_the_server_cannot_go_on(store, table, server):
    """Oracle: the bytes; a server without ranges, then one whose file has become another version."""
    table(urls=(f"{server.address}/tiny.safetensors",))
    server.ranges, server.faults = False, ["half"]
    assert store.fetch("tiny").sha256 == SHA
    other = safetensors(20_000, seed=5)
    table(urls=(f"{server.address}/tiny.safetensors",), sha256=hashlib.sha256(other).hexdigest())
    fresh = Store(store.folder.with_name("fresh"), download=Download(attempts=1, backoff_s=0.0))
    server.ranges, server.faults = True, ["half"]
    with pytest.raises(InputError, match="after 1 attempts"):
        fresh.fetch("tiny")
    server.data, server.tag = other, '"two"'
    assert fresh.fetch("tiny").sha256 == hashlib.sha256(other).hexdigest()
    assert server.requests[-1][1] == f"bytes={len(GOOD) // 2}-"


def test_fetch_goes_on_in_a_later_call(store, table, server):
    """Oracle: the ranges that the server was asked for; also where all but the renaming had been done."""
    table(urls=(f"{server.address}/tiny.safetensors",))
    once = Store(store.folder, download=Download(attempts=1, backoff_s=0.0))
    server.faults = ["half"]
    with pytest.raises(InputError, match="after 1 attempts"):
        once.fetch("tiny")
    part = store.folder / "tiny" / "tiny.safetensors.part"
    assert part.stat().st_size == len(GOOD) // 2
    part.write_bytes(GOOD)
    assert once.fetch("tiny").sha256 == SHA
    assert [asked for _, asked in server.requests] == ["", f"bytes={len(GOOD)}-"]


def test_fetch_follows_redirects_but_not_down_to_http(store, table, server):
    """Oracle: the bytes; the rule itself."""
    import urllib.error
    import urllib.request

    table(urls=(f"{server.address}/moved",))
    assert store.fetch("tiny").sha256 == SHA
    assert [path for path, _ in server.requests] == ["/moved", "/tiny.safetensors"]
    secure = urllib.request.Request("https://example.invalid/a")
    with pytest.raises(urllib.error.URLError, match="from https to http"):
        _Redirects().redirect_request(secure, None, 302, "", {}, "http://example.invalid/b")


def test_wrong_file_from_the_network_is_refused_naming_both(store, table, server):
    """Oracle: hashlib, and the listing of the folder."""
    table(urls=(f"{server.address}/tiny.safetensors",))
    server.data = safetensors(20_000, seed=1)
    with pytest.raises(InputError, match=f"found SHA-256 {hashlib.sha256(server.data).hexdigest()}, expected {SHA}"):
        store.fetch("tiny")
    assert [path.name for path in (store.folder / "tiny").iterdir()] == [".lock"]
    assert not store.has("tiny")


@pytest.mark.parametrize(
    ("fault", "found", "requests"),
    [
        ("404", "HTTP 404", 1),
        ("403", "HTTP 403", 1),
        ("page", "an HTML page", 1),
        ("503", "HTTP 503", 3),
        ("drop", "", 3),
    ],
)
def test_fetch_says_what_the_server_answered_and_how_to_go_on(store, table, server, fault, found, requests):
    """Oracle: the number of requests; what another attempt cannot help is not repeated."""
    table(urls=(f"{server.address}/tiny.safetensors",))
    server.faults = [fault] * 9
    with pytest.raises(InputError, match=rf"found .*{found}.*(?s:.)*mvv weights add tiny FILE"):
        store.fetch("tiny")
    assert len(server.requests) == requests


def test_fetch_does_not_wait_for_ever(store, table, server):
    """Oracle: a server that takes the connection and says nothing."""
    table(urls=(f"{server.address}/tiny.safetensors",))
    server.faults = ["silent"]
    assert Store(store.folder, download=Download(attempts=2, backoff_s=0.0, timeout_s=0.3)).fetch("tiny").sha256 == SHA
    table(urls=("http://127.0.0.1:1/tiny.safetensors",))
    with pytest.raises(InputError, match="after 1 attempts"):
        Store(store.folder.with_name("b"), download=Download(attempts=1)).fetch("tiny")


def test_fetch_takes_the_next_address(store, table, server):
    """Oracle: the server's list of requests."""
    table(urls=(f"{server.address}/gone", f"{server.address}/tiny.safetensors"))
    server.faults = ["404"]
    assert store.fetch("tiny").origin.endswith("tiny.safetensors")


@pytest.mark.parametrize("length", [True, False])
def test_fetch_takes_no_more_than_a_limit(store, table, server, length):
    """Oracle: the size of what is left on the disk; with a length stated and without."""
    table(urls=(f"{server.address}/tiny.safetensors",), bytes=10_000)
    server.length = length
    with pytest.raises(InputError, match="expected at most"):
        store.fetch("tiny")
    assert [path.name for path in (store.folder / "tiny").iterdir() if path.stat().st_size > 25_000] == []


def test_licence_has_to_be_accepted(store, table, server):
    """Oracle: the server is not asked before."""
    table(urls=(f"{server.address}/tiny.safetensors",), noncommercial=True, licence="CC-BY-NC-4.0")
    with pytest.raises(InputError, match=r"CC-BY-NC-4\.0, which forbids commercial use.*--accept-licence"):
        store.fetch("tiny")
    assert server.requests == []
    assert store.fetch("tiny", accept_licence=True).sha256 == SHA


# -- commands ----------------------------------------------------------------------------------------------------------


def test_commands_list_fetch_add_and_verify(table, server, good, tmp_path, monkeypatch, capsys):
    """Oracle: exit codes and text as documented."""
    monkeypatch.setenv("MVVIDEO_WEIGHTS", str(tmp_path / "w"))
    for name in list(WEIGHTS):
        monkeypatch.delitem(WEIGHTS, name)
    table(urls=(f"{server.address}/tiny.safetensors",))
    table(name="other", noncommercial=True, licence="CC-BY-NC-4.0", urls=(f"{server.address}/tiny.safetensors",))
    assert weights_verify() == 0
    assert weights_list() == 0
    assert f"SHA-256  {SHA}" in capsys.readouterr().out
    assert weights_fetch(all=True) == 3
    said = capsys.readouterr().out
    assert "tiny.safetensors, SHA-256" in said
    assert "other: found the licence CC-BY-NC-4.0" in said
    with pytest.raises(InputError, match="accept-licence"):
        weights_fetch(("other",))
    with pytest.raises(InputError, match="found none"):
        weights_fetch()
    assert weights_fetch(("tiny", "other"), accept_licence=True) == 0
    assert weights_add("tiny", good) == 0
    assert "the published file" in capsys.readouterr().out
    assert weights_verify() == 0
    assert weights_list() == 0
    assert f"here  yes, {tmp_path}" in capsys.readouterr().out
    (tmp_path / "w" / "tiny" / "tiny.safetensors").write_bytes(b"{}")
    assert weights_verify() == 1
    assert "as when it was added" in capsys.readouterr().out
