"""The sources: where nodes are learned from. One file each, found by the router through its entry point.

They use of the router what a third party's source would: `router.source`, `router.feed`, `router.node`,
`router.address`, `router.net` and `router.uwsgi`. The router imports none of them.
"""
