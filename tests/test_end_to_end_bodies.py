"""nginx → router → uWSGI workers: what goes through arrives, in every size and form, and is not touched on its way."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import Answer, ask, get, http_request, post, request
from servers import Nginx, Router, Worker, needs_nginx

pytestmark = needs_nginx
MIB = 1 << 20
PIECE = bytes(range(256)) * 256


class Cluster:
    """A router, two workers and nginx that all tests of this file share."""

    def __init__(self, router: Router, workers: list[Worker], nginx: Nginx) -> None:
        self.router, self.workers, self.nginx = router, workers, nginx
        self.port = nginx.port


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Router() as router, Nginx(router.address) as nginx:
        with Worker(router.subscriptions) as one, Worker(router.subscriptions) as two:
            router.wait_for_nodes("foo.com", 2)
            yield Cluster(router, [one, two], nginx)
            router.wait_idle()


@pytest.fixture(params=["buffered", "streaming"])
def port(request: pytest.FixtureRequest, cluster: Cluster) -> int:
    """Both ways of nginx: the body whole before the request goes on, and byte by byte as it comes."""
    return cluster.nginx.port if request.param == "buffered" else cluster.nginx.streaming_port


def test_requests_go_to_the_workers_in_turn(cluster: Cluster) -> None:
    seen = Counter(get(cluster.port).worker for _ in range(20))
    assert seen == {worker.address: 10 for worker in cluster.workers}


def test_the_answer_names_its_worker(port: int, cluster: Cluster) -> None:
    answer = get(port)
    assert answer.status == 200
    assert answer.body.decode() == answer.worker
    assert answer.worker in {worker.address for worker in cluster.workers}


def test_head_has_headers_and_no_body(port: int) -> None:
    answer = http_request(port, "HEAD", "/etag")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "11", b"")


def test_a_matching_etag_is_304_without_body(port: int) -> None:
    assert get(port, "/etag").body == b"version one"
    answer = get(port, "/etag", headers={"If-None-Match": '"v1"'})
    assert (answer.status, answer.headers["ETag"], answer.body) == (304, '"v1"', b"")


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65_535, 65_536, MIB, 100_000_000])
def test_a_body_arrives_whole(port: int, size: int) -> None:
    assert_body_arrives(port, size)


@pytest.mark.parametrize("size", [0, 1, 65_536, MIB, 100_000_000])
@pytest.mark.slow
def test_an_answer_arrives_whole(port: int, size: int) -> None:
    answer = get(port, f"/big?n={size}")
    assert (answer.status, len(answer.body), answer.body.count(b"x")) == (200, size, size)


def test_an_answer_without_length_ends_where_the_worker_ends(port: int) -> None:
    answer = get(port, "/stream?n=2000")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.body == b"".join(b"piece %d\n" % number for number in range(2000))


def test_a_cookie_of_32_kib_arrives_whole(port: int) -> None:
    cookie = "session=" + "c" * 32 * 1024
    assert_measured(get(port, "/cookie", headers={"Cookie": cookie}), cookie.encode())


def test_an_answer_header_of_32_kib_arrives_whole(port: int) -> None:
    answer = get(port, f"/header?n={32 * 1024}")
    assert (answer.status, answer.headers["X-Long"], answer.body) == (200, "h" * 32 * 1024, b"ok")


@pytest.mark.parametrize("path", ["/etag", "/stream?n=50", "/chunked", "/header?n=9000", "/big?n=200000"])
def test_the_router_changes_no_byte_of_an_answer(cluster: Cluster, path: str) -> None:
    with_router = {ask(cluster.router.address, request("foo.com", path)) for _ in cluster.workers}
    without = {ask(worker.address, request("foo.com", path)) for worker in cluster.workers}
    assert with_router == without


@pytest.mark.slow
def test_unix_sockets_serve_on_both_sides(tmp_path: Path) -> None:
    front, back = str(tmp_path / "router.sock"), str(tmp_path / "worker.sock")
    with Router(address=front) as router, Nginx(front) as nginx:
        with Worker(router.subscriptions, name="unix", address=back):
            assert list(router.wait_for_nodes("foo.com", 1)) == [back]
            assert get(nginx.port).worker == "unix"
            assert_body_arrives(nginx.streaming_port, MIB)
            router.wait_idle()


def assert_body_arrives(port: int, size: int) -> None:
    """Posts `size` bytes in pieces, so that no run holds 100 MB twice, and lets the worker say what came."""
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, len(PIECE)):
            piece = PIECE[: size - start]
            digest.update(piece)
            yield piece

    answer = post(port, "/echo", pieces(), {"Content-Length": str(size)})
    assert answer.status == 200
    assert json.loads(answer.body) == {"length": size, "sha256": digest.hexdigest()}


def assert_measured(answer: Answer, sent: bytes) -> None:
    assert answer.status == 200
    assert json.loads(answer.body) == {"length": len(sent), "sha256": hashlib.sha256(sent).hexdigest()}
