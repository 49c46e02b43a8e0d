"""The application of worker.ini: a page that says which worker served it, and the same page after some work."""

import os
import socket
import time

from bottle import default_app, response, route

WORKER = os.environ.get("WORKER", socket.gethostname())
BUSY_S = 0.05  # long enough that a worker that is killed has requests inside

application = default_app()
application.catchall = False  # errors belong into the worker's log


@route("/")
def index():
    response.content_type = "text/plain"
    response.set_header("X-Worker", WORKER)
    return f"Hello World! This is worker {WORKER}, process {os.getpid()}.\n"


@route("/busy")
def busy():
    time.sleep(BUSY_S)
    return index()
