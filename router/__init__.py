"""gfrouter: the uWSGI FastRouter, rebuilt on gevent."""

__version__ = "0.1.0"
