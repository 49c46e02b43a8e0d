"""The application of worker.ini: says which container served the request."""

import os
import socket

WORKER = os.environ.get("HOSTNAME", socket.gethostname())


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", WORKER)])
    return [f"Hello World! This is worker {WORKER}.\n".encode()]
