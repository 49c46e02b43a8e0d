"""Every intended difference from the uWSGI FastRouter: what each of both does, and why. What is not here is a fault.

Each entry is shown by a case of like_*.py that names it, or by the test that it names itself as `file::function`;
test_like_fastrouter.py sees to that. `python docs/generate.py` writes docs/differences.md from here.
"""

from dataclasses import dataclass

REQUESTS, SUBSCRIPTIONS, PROCESSES, VIEWS, CONFIGURATION = (
    "Requests", "Subscriptions", "Processes and signals", "Stats and log", "Addresses and configuration"
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """`fastrouter` and `gfrouter` are what each does, in Markdown; `why` is why ours is other."""

    name: str
    topic: str
    fastrouter: str
    gfrouter: str
    why: str
    test: str = ""


DIFFERENCES = (
    Difference(
        "every-failure",
        REQUESTS,
        "Only a refused TCP connect marks a node and is retried, with 4 connects in all. A connect that hangs, an "
        "unreachable host, a missing unix socket: an empty reply, and the node gets its next turn.",
        "Every kind of connect failure marks the node and tries the next one, 4 connects in all, each within "
        "`connect-timeout` (3 s).",
        "One dead host made every n-th request fail.",
    ),
    Difference(
        "marked-stays",
        REQUESTS,
        "A marked node is forgotten, and gone from the stats, until it announces itself; then it is logged as new.",
        "It stays, with `death_mark` 1, until it announces itself, falls silent, or answers the one request that tries "
        "it after `gracetime` (30 s).",
        "A worker whose announcements are lost comes back, and an operator sees what failed.",
    ),
    Difference(
        "ejected",
        REQUESTS,
        "A node that takes requests and hangs or breaks off gets its turns as if nothing were wrong.",
        "After `max-fails` (5) in a row it is left out, until it answers one that tries it. 0 turns that off.",
        "One node that hangs cost every n-th client a minute, and an empty reply.",
        test="test_health.py::test_a_node_that_breaks_off_is_ejected_and_the_supervisor_told",
    ),
    Difference(
        "longer-out",
        REQUESTS,
        "A failed node of `to` is out for `gracetime`, each time.",
        "So it is the first time; each further time within a minute of turns is twice as long, up to 300 s.",
        "A node that is gone for good costs fewer and fewer requests a delay.",
        test="test_health.py::test_a_refusal_is_out_for_gracetime_and_each_further_time_for_longer",
    ),
    Difference(
        "busy",
        REQUESTS,
        "A full backlog of a unix socket is an error.",
        "Another node is asked, then the same ones again 5 ms later. The node is not marked.",
        "It is alive, and busy.",
        test="test_end_to_end_faults.py::test_a_full_unix_backlog_is_left_for_another_node",
    ),
    Difference(
        "to-beside",
        REQUESTS,
        "One mapper answers, the first configured one of cache, pattern, subscriptions, base, code string, socket and "
        "`to`; the others are ignored in silence, even for a key that it does not know.",
        "So it is for options that are spelled `fastrouter-...`, with a line for each that is ignored. Those that are "
        "spelled as ours are all asked, and the nodes of `to` serve the keys that no source knows.",
        "All sources are one map, and a key that is missing there has no better place to go.",
    ),
    Difference(
        "unsafe-key",
        REQUESTS,
        "With `use-base` and `use-pattern` a client's key may lead to any socket of the machine, by `..` between "
        "slashes.",
        "Such a key is refused, and counted.",
        "What a client writes into its Host header chose whom the router speaks to.",
    ),
    Difference(
        "path-with-colon",
        REQUESTS,
        "With `use-base` and `use-pattern` a colon makes the whole address TCP, a path with a port in its last name "
        "as well: nobody can be reached there.",
        "What begins with a slash is a path.",
        "A key with a port can have a socket of its own.",
    ),
    Difference(
        "mapped-node",
        REQUESTS,
        "A node that a mapper names is never marked. A cache's other nodes are tried after one that refuses, a socket "
        "that is missing ends the request.",
        "It is a node as all others: marked, retried, left to a fallback node, and tried again each second where it "
        "is the only one.",
        "One dead node of two cost each second request a connect.",
    ),
    Difference(
        "code-text",
        REQUESTS,
        "The function of `use-code-string` gets and gives bytes; a text counts as None. It is called for each "
        "request, in the router's loop: while it blocks, nobody is served.",
        "Bytes and text. It is called in processes of its own, for a key that is asked for, and again each second "
        "while that is in use. Where it hangs or raises, its key alone has no answer, or its last one.",
        "A slow database held up every site.",
    ),
    Difference(
        "use-cache-file",
        CONFIGURATION,
        "`use-cache` names a cache of the same uWSGI.",
        "The path of a file of `KEY VALUE` lines, which is watched. A name is an error that says so.",
        "There is no uWSGI to have a cache.",
        test="test_mappers.py::test_what_cannot_be_is_refused",
    ),
    Difference(
        "use-socket-worker",
        CONFIGURATION,
        "`use-socket` means a socket that the same uWSGI serves; where it has none, the next mapper answers.",
        "The address in that line `socket = ADDRESS`, whoever listens there. Without such a line it is an error.",
        "gfrouter runs no application.",
        test="test_mappers.py::test_without_such_a_socket_there_is_no_start",
    ),
    Difference(
        "pattern-letters",
        CONFIGURATION,
        "In `use-pattern` a percent sign before any other letter than `s` vanishes with it.",
        "An error.",
        "A slip sent requests to another place than was meant.",
        test="test_rule.py::test_a_rule_that_is_none_is_refused",
    ),
    Difference(
        "fallback-last",
        REQUESTS,
        "With `fallback` nobody asks the other nodes of a pool where one could not be connected to.",
        "They are asked first. The last of the retries is kept for a fallback node.",
        "A request is better off with the application that it is for.",
    ),
    Difference(
        "fallback-marked",
        REQUESTS,
        "A fallback node that fails is not marked: each request asks it again.",
        "It is marked as any other, and asked where no other is left. `fallback_nodes` in the stats shows them all.",
        "One dead fallback node does not delay every request, and an operator sees it.",
    ),
    Difference(
        "static-modifiers",
        REQUESTS,
        "What stands behind the address in `to` or `fallback` is passed over. A fallback node gets the modifiers of "
        "the node that failed.",
        "`ADDRESS[,MODIFIER1[,MODIFIER2]]`; without any, they are 0.",
        "A fallback node may be another kind of application.",
    ),
    Difference(
        "dotsplit-fallback",
        REQUESTS,
        "With `subscription-dotsplit` nobody asks `subscription-fallback-key`.",
        "Its nodes serve where no part of the key has any.",
        "That is what it is for.",
    ),
    Difference(
        "mountpoint-keys",
        REQUESTS,
        "With `subscription-mountpoints`, a node announced for `foo.com/app` joins the pool of `foo.com` where there "
        "is one.",
        "It is kept under exactly its key.",
        "Requests of one application went to another one.",
        test="test_keyrules.py::test_a_node_of_a_mountpoint_does_not_join_the_pool_of_its_host",
    ),
    Difference(
        "mountpoint-path",
        REQUESTS,
        "With `subscription-mountpoints`, a request without PATH_INFO, or whose path begins with no slash, is closed; "
        "with `force-key` every one is.",
        "Its key is its host alone, or the forced one.",
        "Such a path says nothing of mountpoints.",
        test="test_keyrules.py::test_a_mountpoint_is_the_host_with_the_first_parts_of_the_path",
    ),
    Difference(
        "post-buffering",
        REQUESTS,
        "With `post-buffering` the node is chosen before the body is read, and may be gone by then. "
        "`post-buffering-dir` does nothing. A body that cannot be stored ends without a word.",
        "It is chosen when the body is whole. The files are in that folder. A body that cannot be stored is counted, "
        "logged and, with error pages, a 503.",
        "A slow upload kept a turn for a node that was not there any more.",
        test="test_postbuffer.py::test_a_node_is_chosen_when_the_body_is_whole_and_one_that_has_left_is_not_missed",
    ),
    Difference(
        "once-more",
        REQUESTS,
        "A node that takes a request and closes or resets: an empty reply.",
        "A GET, HEAD or OPTIONS without body goes once more to another node (`retry = idempotent`). Everything else is "
        "never sent twice. `retry = connect` turns that off.",
        "Workers that are killed or replaced cost no request.",
    ),
    Difference(
        "both-ways",
        REQUESTS,
        "One direction at a time while a chunk waits to be written.",
        "Both at once.",
        "A node that answered early during a large upload stalled until the time limit.",
    ),
    Difference(
        "linger",
        REQUESTS,
        "A client still sending when the answer is complete is reset.",
        "It has 10 s to read the answer and stop.",
        "The reset could take the answer away.",
    ),
    Difference(
        "drip",
        REQUESTS,
        "An unfinished header may be kept alive by a byte now and then.",
        "The head must be whole within `head-timeout` (10 s), and within `timeout`.",
        "A client that drips held a session for ever.",
        test="test_end_to_end_input.py::test_a_client_that_sends_a_byte_a_moment_is_closed_after_the_time_limit",
    ),
    Difference(
        "broken-off",
        REQUESTS,
        "An answer that its node ends by a reset, or that stalls until the time limit, ends as a good one does.",
        "It ends by a reset on TCP, but for a node's reset after a request with a body, which may be the good end of "
        "one that did not read it.",
        "A web server takes a part for the whole where no length was said.",
    ),
    Difference(
        "error-pages",
        REQUESTS,
        "Errors are empty replies.",
        "So they are where a listening address is given as `fastrouter`. With `listen`, or `error-pages`, they are "
        "HTTP responses: 400, 404, 502, 503, 504.",
        "A web server can tell what has become of a request, and ask elsewhere.",
        test="test_errors.py::test_nginx_passes_each_error_on",
    ),
    Difference(
        "http",
        REQUESTS,
        "HTTP on the uwsgi port waits for the time limit.",
        "Closed at once, with a line that says so.",
        "A wrong `proxy_pass` is found in a second.",
    ),
    Difference(
        "reasons",
        REQUESTS,
        "Why a request was closed without an answer is not said.",
        "A line a request, ten a second at most; the rest is counted.",
        "An operator sees what clients send.",
    ),
    Difference(
        "warming",
        REQUESTS,
        "After a start, requests are closed until the workers announce themselves, for up to 10 s.",
        "A request for a key that nobody knows yet waits, until the workers have had time to announce themselves "
        "(`warm-timeout`).",
        "A restart cost every request of its first seconds.",
    ),
    Difference(
        "descriptors",
        REQUESTS,
        "Out of descriptors, requests that were accepted fail.",
        "A session is accepted only if its node will find a descriptor, too.",
        "A request that cannot be passed on waits better in the queue, where another process may take it.",
        test="test_server.py::test_short_of_descriptors_every_request_that_is_accepted_finds_one_for_its_node",
    ),
    Difference(
        "modifiers",
        SUBSCRIPTIONS,
        "Modifiers are those of the first announcement.",
        "Those of the latest.",
        "A worker that changes them had to be forgotten first.",
    ),
    Difference(
        "dropped",
        SUBSCRIPTIONS,
        "modifier1 is not looked at; malformed tails, empty or overlong keys and non-digits give garbage, a pool named "
        '"", or an abort; of a datagram over 4,096 bytes the beginning counts.',
        "Dropped, counted by reason in the stats (`sources`), logged ever more rarely.",
        "One datagram must not end the process.",
    ),
    Difference(
        "timer",
        SUBSCRIPTIONS,
        "A silent node is noticed when a request looks at its pool.",
        "By a timer, once a second.",
        "Flooded keys were kept for ever.",
    ),
    Difference(
        "paused",
        SUBSCRIPTIONS,
        "Silence counts while the router is stopped.",
        "Only while it listened; a late sweep moves every deadline.",
        "A paused VM lost its whole map.",
    ),
    Difference(
        "turns",
        SUBSCRIPTIONS,
        "wrr gives each node its weight in turns in bursts (BAAABAAA), by integer division through the least weight.",
        "Turns are spread evenly, and the shares are exact for any weights.",
        "3:2 became 1:1.",
    ),
    Difference(
        "ties",
        SUBSCRIPTIONS,
        "wlrc gives nodes that have equally little to do a turn each, whatever their weights.",
        "They take turns by their weights.",
        "While it is quiet, the weights did nothing.",
    ),
    Difference(
        "other-keys",
        SUBSCRIPTIONS,
        "lrc and wlrc count a node's requests for the one key.",
        "They count what the node has in flight for all its keys, in the router process that picks.",
        "A worker that serves several keys is as busy as all of them make it.",
        test="test_least.py::test_what_other_keys_have_in_flight_counts",
    ),
    Difference(
        "iphash",
        SUBSCRIPTIONS,
        "iphash is `wrr` in 2.0, in silence. 2.1 takes the address of the web server that connects, modulo the nodes.",
        "The client's address, `REMOTE_ADDR`, by a consistent hash.",
        "All clients of one nginx had one node, and each node that came or went moved nearly everybody.",
    ),
    Difference(
        "resubscribe",
        SUBSCRIPTIONS,
        "`resubscribe` forwards each datagram as it comes, refused ones too, with weight 0, the node's modifiers and "
        "`sni_*`, and unsigned; the farewell of one node withdraws the router though it has others.",
        "For each key of the map the router says at once, and each 10 s, that it is there, with the sum of the nodes' "
        "weights and modifiers 0, and withdraws when no node can be asked. `resubscribe-sign` signs. `sni_*` is not "
        "passed on. A key that comes back to where it came from is dropped.",
        "One worker that stopped took all others of its key out, and two routers that told each other kept a key for "
        "ever.",
    ),
    Difference(
        "backup",
        SUBSCRIPTIONS,
        "2.0 takes a backup node for any other.",
        "Its turn comes when no node of a lower level is alive, as in 2.1.",
        "A spare that takes every other request is none.",
    ),
    Difference(
        "addresses",
        SUBSCRIPTIONS,
        "The node's address of a worker may be anything.",
        "What nobody could connect to is dropped and counted.",
        "An error at the first packet, not at each request.",
    ),
    Difference(
        "one-map",
        PROCESSES,
        "With several processes each has a map of its own and logs what comes into it, stats are the first one's, and "
        "a respawned one starts with an empty map.",
        "One map, logged once, and there before a process accepts; stats are summed. Of a router that is killed, the "
        "counts of the last reading are kept.",
        "A killed process cost every request until the next announcements, and nobody saw what the others did.",
    ),
    Difference(
        "signals",
        PROCESSES,
        "TERM and HUP reload, cutting requests; INT and QUIT stop at once.",
        "TERM, INT and QUIT stop after what is in flight, within `drain-timeout` (30 s); a second one ends at once. "
        "HUP and USR2 start anew, within the same process.",
        "A stop costs no request that was accepted, and TERM is what service managers send. Starting anew costs no "
        "connection either: the listening sockets stay open, and the old routers serve until the new ones do.",
    ),
    Difference(
        "cheap",
        PROCESSES,
        "Cheap mode counts nodes that are known.",
        "It counts nodes that are known and not marked as failed, which comes to the same: the real one forgets a "
        "marked node.",
        "Here a marked node stays known.",
        test="test_server.py::test_cheap_does_not_accept_while_all_nodes_have_failed",
    ),
    Difference(
        "cheap-static",
        PROCESSES,
        "With `cheap`, the nodes of `to` do not count: without announcements it never accepts.",
        "They count. Fallback nodes do where they serve keys without nodes, too.",
        "There is a node to ask.",
    ),
    Difference(
        "daemon",
        PROCESSES,
        "`daemonize` returns 0 at once, whatever becomes of the daemon.",
        "The command waits until the daemon serves. If it does not, it says why and returns 1, and there is no daemon. "
        "Refused where a service manager waits for word (`NOTIFY_SOCKET`), and as the first process of a container.",
        "A deployment went on without a router.",
    ),
    Difference(
        "pidfile",
        PROCESSES,
        "`pidfile` is written before anything is bound, and by a daemon so that everybody may write it. `stop` and "
        "`reload` send their signal to whatever process has the number in it.",
        "It is written when all is bound, for its owner alone, and locked while gfrouter runs; `stop` and `reload` ask "
        "the kernel who holds the lock.",
        "A start that failed took the file of the router that ran, and a stale file ended a stranger.",
    ),
    Difference(
        "log-reopen",
        PROCESSES,
        "A log file that was moved away is written to until `log-reopen` and a reload, or a command of the master.",
        "Within a second all processes write to a new one; a reload opens it anew, too.",
        "logrotate needs no script, and no line is lost.",
    ),
    Difference(
        "own-group",
        PROCESSES,
        "`uid` alone leaves root's group and groups; `add-gid` replaces the user's groups, and counts with `gid` only.",
        "Without `gid` it is the user's own group, with its other groups; `add-gid` adds to them. What became of it is "
        "verified, and `fastrouter-uid` is that of all processes.",
        "Who gives up root means all of it.",
        test="test_privileges.py::test_all_processes_are_of_that_user_and_serve",
    ),
    Difference(
        "bound-before",
        PROCESSES,
        "Its sockets, but for `shared-socket`, are bound after privileges are dropped.",
        "All are bound before. Their files are given to the new user, or as `chown-socket` says; that of the admin "
        "API is root's alone.",
        "It may have a privileged port, or a folder that the user cannot write to.",
        test="test_privileges.py::test_what_is_bound_and_written_before_is_roots",
    ),
    Difference(
        "master",
        PROCESSES,
        "Without `master` the command returns at once.",
        "It always supervises.",
        "A service that ends at once serves nobody.",
    ),
    Difference(
        "stdout",
        PROCESSES,
        "The log goes to standard error.",
        "As process 1, as in a container, to standard output.",
        "That is where a container's tools look for it.",
        test="test_supervisor.py::test_as_pid_1_it_reaps_orphans_and_logs_to_stdout",
    ),
    Difference(
        "limits",
        PROCESSES,
        "Soft limit of descriptors as it is; a queue of 100.",
        "Raised to the hard limit; a queue of 4,096 or `net.core.somaxconn`.",
        "A request takes two descriptors, and a burst fills a queue of 100.",
        test="test_supervisor.py::test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one",
    ),
    Difference(
        "fields",
        VIEWS,
        "The fields of 2.0, or of 2.1.",
        "Those of both, and beside uWSGI's names: `routers` (a process each), `complaints` (what went wrong with "
        "requests, by kind), `sources` (nodes, errors, dropped entries by reason), `hosts` (names and their "
        "addresses), `workers` and `listen_queue` (the router processes, as uwsgitop reads workers), `warming`, "
        "`waiting` and `queue`; a node has `host`, the name that it was announced by.",
        "Tools find what they look for, whichever version they were written for.",
    ),
    Difference(
        "wrr",
        VIEWS,
        "`wrr` in the stats is the number of turns that the node has left in its burst.",
        "0: there are no bursts.",
        "Turns are spread evenly.",
    ),
    Difference(
        "failcnt",
        VIEWS,
        "`failcnt` counts refused connects.",
        "It also counts requests that a node took and ended without a byte.",
        "An operator sees which worker loses requests.",
    ),
    Difference(
        "last-requests",
        VIEWS,
        "`last_requests` counts exactly from the last announcement.",
        "To 0.2 s.",
        "Routers are not told of announcements that change nothing.",
        test="test_stats.py::test_last_requests_are_those_after_the_announcement",
    ),
    Difference(
        "json",
        VIEWS,
        "A key with a quote or a backslash makes the stats invalid JSON.",
        "It is escaped.",
        "One key hid the stats of all.",
    ),
    Difference(
        "stats-length",
        VIEWS,
        "`stats-http` does not say how long its answer is.",
        "It does.",
        "A reader can tell a whole answer from a part.",
    ),
    Difference(
        "real-address",
        CONFIGURATION,
        "Port 0 is shown as `:0`, `:3031` as it was written.",
        "The real address, in log and stats.",
        "What is shown can be connected to.",
    ),
    Difference(
        "prefix",
        CONFIGURATION,
        "`192.*:0` on `shared-socket` only; elsewhere it starts all the same, and nobody can connect.",
        "Everywhere.",
        "It listened where nobody connects.",
    ),
    Difference(
        "in-use",
        CONFIGURATION,
        "A subscription server whose address is in use is left out, in silence.",
        "An error, and no start.",
        "Nothing would ever join.",
    ),
    Difference(
        "unlink",
        CONFIGURATION,
        "A file at the path of a unix socket is removed, whatever it is and whoever serves it.",
        "A socket that nobody serves is replaced. One that is served, or another kind of file, is an error and is left "
        "alone.",
        "A typing error must not take an address or a file away.",
    ),
    Difference(
        "vacuum",
        CONFIGURATION,
        "`vacuum` leaves the fastrouter's sockets.",
        "It removes them, if they are still ours.",
        "That is what it is for.",
    ),
    Difference(
        "idle",
        CONFIGURATION,
        "Options that mean nothing to a router are taken in silence.",
        "One warning each.",
        "An operator sees what is not in force.",
        test="test_options.py::test_an_option_of_workers_is_warned_of_once",
    ),
    Difference(
        "worker-beside",
        CONFIGURATION,
        "Router and worker of one file accept on one shared socket. In cheap mode the worker answers alone; otherwise "
        "either of them gets a request, by chance, and a key without a node is closed where the router got it.",
        "The router alone accepts, in cheap mode as well. The worker is a process of its own behind a private socket: "
        "the backup of every node, and what answers where there is none.",
        "Nodes that were added to take the load off got none of it, or a part by chance.",
    ),
    Difference(
        "worker-reload",
        CONFIGURATION,
        "SIGHUP reloads router and worker as one.",
        "The worker is ended when its requests are answered, and started anew. What comes meanwhile waits.",
        "The same, and it works where uwsgi cannot execute itself, as in a virtual environment.",
        test="test_end_to_end_single.py::test_reloads_under_load_lose_nothing_and_bring_the_new_configuration",
    ),
    Difference(
        "daemons",
        PROCESSES,
        "`attach-daemon` runs a program beside the master; its other forms keep one by a pidfile, or stop with it.",
        "`attach-daemon` does so. The other forms are the worker's where there is one, and errors where there is none.",
        "Two masters would each keep one.",
        test="test_single.py::test_a_daemon_of_the_workers_kind_is_its_own_and_refused_without_a_worker",
    ),
    Difference(
        "later",
        CONFIGURATION,
        "Options of the fastrouter that are not supported yet",
        "are errors that name them.",
        "Ignoring `chroot` or a signature check would be dangerous.",
    ),
    Difference(
        "unknown-words",
        CONFIGURATION,
        "An algorithm that nobody knows is `wrr`, in silence.",
        "An error.",
        "A slip chose another algorithm than was meant.",
    ),
    Difference(
        "order",
        CONFIGURATION,
        "Ini over command line, by position.",
        "Command line over ini over environment.",
        "What is typed is meant for this run.",
    ),
    Difference(
        "slips",
        CONFIGURATION,
        "A line before the first section, a name and a value without `=`, an empty number, a flag that is neither yes "
        "nor no, text after a port or a `]`: ignored, or taken in part.",
        "Errors that name the file and the line.",
        "No default may take the place of a slip.",
    ),
    Difference(
        "dialect",
        CONFIGURATION,
        "`else` is a placeholder (2.1 has it); `listen = %(name)` is 0; a missing file of `for-readline` has no lines; "
        "`include` reads XML, YAML and JSON, and `@(exec://...)` runs a command.",
        "`else` is `else`, `listen` has its value, a missing file is an error. Ini files only, and no commands.",
        "What is meant is plain, or must not be guessed.",
        test="test_like_dialect.py::test_a_file_that_reads_otherwise_on_purpose",
    ),
    Difference(
        "byte-order-mark",
        CONFIGURATION,
        "A byte-order mark hides the first section of an ini.",
        "It is passed over.",
        "Editors write it, and nobody sees it.",
    ),
    Difference(
        "misspelt",
        CONFIGURATION,
        "A name in an ini that no plugin knows is a placeholder.",
        "The same, with a warning where it looks like one of ours.",
        "A slip was a placeholder that nobody uses.",
        test="test_options.py::test_a_likely_misspelling_is_worth_a_warning",
    ),
    Difference(
        "names",
        CONFIGURATION,
        "Host names and IPv6 addresses of nodes fail at every request; the subscription server takes numeric IPv4 "
        "only, and binds anything else to 255.255.255.255.",
        "Both work everywhere. Log and stats show each address that a name has; in the stats `host` is the name.",
        "Workers in containers are known by name.",
    ),
    Difference(
        "own-address",
        SUBSCRIPTIONS,
        "A node may be announced at the router's own address; a request for it goes round until descriptors run out.",
        "Dropped, counted and logged.",
        "A container that knows only its port, `:3031`, is taken for the router's machine.",
        test="test_end_to_end_subscriptions.py::test_a_node_at_the_routers_own_address_is_dropped",
    ),
    Difference(
        "passed-sockets",
        CONFIGURATION,
        "The fastrouter takes no socket from systemd but by `fd://N`.",
        "`fd://NAME` is what systemd passed under that name. Where no address is given, the sockets that it passed "
        "serve: streams for requests, datagrams for announcements.",
        "A unit names its sockets once.",
        test="test_sockets.py::test_where_no_address_was_given_what_no_option_names_is_used",
    ),
    Difference(
        "quota",
        SUBSCRIPTIONS,
        "Announcements are taken from everybody, as many as come.",
        "A port may announce 1,000 times a second, its host 4,000 times (`subscription-quota`). Who goes on is not "
        "heard for a while, and the kernel drops what it says.",
        "A flood delayed requests, and other workers' announcements were lost.",
        test="test_end_to_end_flood.py::test_a_flood_from_one_address_harms_nobody_else",
    ),
    Difference(
        "most-nodes",
        SUBSCRIPTIONS,
        "Every key and node is kept.",
        "50,000 keys and as many nodes of one source (`max-keys`, `max-nodes`), 1,000 host names, 250 of one sender. "
        "What is more is dropped and counted.",
        "60,000 flooded keys took 60 MB.",
        test="test_end_to_end_flood.py::test_floods_from_many_addresses_end_at_the_limits",
    ),
    Difference(
        "overheard",
        SUBSCRIPTIONS,
        "A signed announcement is compared with the one that created its node, a farewell with none, and both with "
        "nothing once the node has left; the future is accepted.",
        "Each is compared with the last accepted one of its key and address, also after the node has left and after a "
        "restart with a `state-file`. Beyond the tolerance, the future is refused like the past.",
        "Who overhears one datagram could take a worker out, or bring it back after its end.",
        test="test_end_to_end_signed.py::test_each_packet_has_the_fastrouters_outcome_or_a_better_one",
    ),
    Difference(
        "signed-processes",
        SUBSCRIPTIONS,
        "With several processes, only the one that took a signed announcement knows of it.",
        "Every process does.",
        "Most requests were closed.",
        test="test_end_to_end_signed.py::test_a_real_worker_that_signs_is_served_by_every_process_and_leaves",
    ),
    Difference(
        "credentials",
        SUBSCRIPTIONS,
        "`subscriptions-credentials-check` takes who sends without credentials for root, does not look at farewells, "
        "and a key with `..` in it leads out of the folder.",
        "Without credentials nobody passes; farewells are checked as well; no key leads out.",
        "It could be passed by everybody who knew how.",
        test="test_admission.py::test_without_credentials_nobody_passes_the_check_and_a_line_says_so",
    ),
    Difference(
        "digests",
        SUBSCRIPTIONS,
        "A digest that does not sign, as SHAKE128, is taken, and then refuses every announcement.",
        "It is an error at the start, as are RIPEMD160, BLAKE2 and MD5-SHA1.",
        "A slip is found where it is made.",
        test="test_signing.py::test_a_digest_that_cannot_be_is_named_with_those_that_can",
    ),
    Difference(
        "notify",
        SUBSCRIPTIONS,
        "`notify` is the path of a unix datagram socket.",
        "An abstract `@name` and a numeric `ip:port` as well.",
        "A worker in a container shares no path with its router.",
        test="test_ack.py::test_a_numeric_host_and_port_is_told",
    ),
    Difference(
        "multicast",
        SUBSCRIPTIONS,
        "A subscription server in a multicast group hears what is sent to its port by any address.",
        "It hears what is sent to the group, and several routers of one machine may be in it.",
        "On a port that is shared, one router would take what was meant for another.",
        test="test_subscription.py::test_what_is_sent_to_a_multicast_group_is_heard",
    ),
    Difference(
        "admin",
        VIEWS,
        "What it knows is in the stats alone.",
        "It also answers at a unix socket of its own, for its user alone (`/run/gfrouter/admin.sock` for root), which "
        "`gfrouter status` and `gfrouter lookup` ask. `admin = off` leaves it out.",
        "An operator asks why a request goes where it goes.",
        test="test_end_to_end_admin.py::test_roots_default_place_serves_one_router_and_the_next_one_starts_without",
    ),
    Difference(
        "on-demand",
        REQUESTS,
        "A request for a key that nobody knows is closed at once.",
        "With a source that can look keys up (`discovery = dns`), it waits for the answer, `lookup-timeout` at most. "
        "`cheap` is off then, with a line that says so.",
        "Only a request makes such a key known.",
        test="test_on_demand.py::test_a_request_waits_until_its_key_is_found",
    ),
    Difference(
        "sources",
        VIEWS,
        "Nodes come from one place, and the log has uWSGI's words for it.",
        "So has ours for announcements. For nodes of other sources it says `foo.com + 10.0.0.5:3031 (SOURCE)` and `-`.",
        "An operator sees who says what.",
        test="test_end_to_end_consul.py::test_from_registration_to_deregistration",
    ),
)
