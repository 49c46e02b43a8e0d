"""uWSGI's options that gfrouter does not have, and what it says to each.

Every name that uWSGI's `--help` lists (2.0 with the plugins of its PyPI build, and the core of 2.1) has one
of these verdicts, so that an unchanged uWSGI configuration either works, is commented on, or is refused with a
reason: a restriction (uid, sign-check) that is silently not in force would be worse than no start at all.
The lists are in getopt's notation: `name` is a flag, `name=` takes a value, `name?` only as `name=VALUE`.
"""

from __future__ import annotations

from typing import Literal

from router import __version__
from router.gather import AS_AN_INI
from router.values import FALSE_WORDS

# silent: true of gfrouter anyway. idle: tunes what gfrouter does not have. worker: means the application
# workers. dialect: steers how the rest is read (gather.py). refused: would change what the router does, and it
# cannot; postponed: the same, and it is meant to.
Verdict = Literal["silent", "idle", "worker", "dialect", "refused", "postponed"]

# By name, with what is not there.
POSTPONED = {
    "fastrouter-zerg": ("=", "sockets of a zerg server"),
    "fastrouter-emperor-socket": ("=", "waking vassals over an emperor's socket"),
    "fastrouter-resubscribe-bind": ("=", "an address of its own for what is sent on"),
    "fastrouter-defer-connect-timeout": ("=", "connecting later to a vassal that is being woken"),
    "subscription-vassal-required": ("", "vassals in announcements"),
}

FASTROUTER_IDLE = """
    events= buffer-size= subscription-slot=
"""

CORE_SILENT = """
    autoload die-on-term log-reopen master need-plugin= need-plugins= plugin= plugin-dir= plugins= plugins-dir=
"""

DIALECT = """
    for= for-glob= for-times= for-readline= endfor? end-for? if-opt= if-not-opt= if-env= if-not-env=
    ifenv= if-reload if-not-reload if-hostname= if-not-hostname= if-hostname-match= if-not-hostname-match=
    if-exists= if-not-exists= ifexists= if-plugin= if-not-plugin= ifplugin= if-file= if-not-file= if-dir=
    if-not-dir= ifdir= if-directory= else= endif? end-if? include= inherit= set= set-placeholder= set-ph=
"""

# By what they touch: the configuration's own text, sockets, privileges, process and log, subscriptions.
CORE_REFUSED = """
    inject-before= inject-after= xml= xmlconfig= yaml= yml= json= js= config= fallback-config=
    declare-option= declare-option2= resolve= blacklist= end-blacklist whitelist= end-whitelist

    undeferred-shared-socket= abstract-socket fork-socket= fork-server=

    immediate-uid= immediate-gid= cap= unshare= unshare2= chroot= pivot-root=
    pivot_root= jail= jail2= jailed libjail= jail-attach= jail-ip4= jail-ip6= refork re-fork
    refork-as-root re-fork-as-root refork-post-jail re-fork-post-jail drop-after-init drop-after-apps
    namespace= namespace-keep-mount= namespace-net= ns= ns-net= setns= setns-socket= setns-skip=
    setns-preopen setns-socket-skip= cgroup= cgroup-opt=

    logger= log-syslog? log-socket=
    emperor= hook-asap= hook-pre-jail= hook-post-jail= hook-in-jail= hook-as-root=
    hook-as-user= hook-as-user-atexit= hook-as-gateway= hook-master-start= exec-asap= exec-pre-jail=
    exec-post-jail= exec-in-jail= exec-as-root= exec-as-user= exec-as-user-atexit= pause=
    attach-control-daemon= attach-daemon2= smart-attach-daemon= smart-attach-daemon2=
    suspend= resume= connect-and-read= extract= dump-options show-config exit? build-plugin=
"""

CORE_WORKER = """
    add-cache-item= add-header= after-request-call= after-request-hook= alarm= alarm-backlog= alarm-cheap=
    alarm-fd= alarm-freq= alarm-list alarm-listen-queue= alarm-log= alarm-lq= alarm-metric=
    alarm-msg-size= alarm-segfault= alarms-list allowed-modifiers= async=
    auto-weight= backlog-alarm= backtrace-depth=
    binary-append-data= binary-path= binsh= body-read-warning= brutal-reload-on-fd= buffer-size= cache=
    cache-blocksize= cache-expire-freq= cache-no-expire cache-report-freed-items cache-store=
    cache-store-sync= cache-sync= cache-udp-node= cache-udp-server= cache-use-last-modified cache2=
    call-as-emperor= call-as-emperor1= call-as-emperor2= call-as-emperor4= call-as-root= call-as-user=
    call-as-user-atexit= call-as-vassal= call-as-vassal1= call-as-vassal3= call-asap= call-in-jail=
    call-post-app= call-post-jail= call-pre-app= call-pre-jail= callable= carbon= carbon-freq=
    carbon-hostname-dots= carbon-id= carbon-idle-avg= carbon-max-retry= carbon-name-resolve
    carbon-no-workers carbon-resolve-names carbon-retry-delay= carbon-root= carbon-timeout=
    carbon-use-metrics catch-exceptions cflags cgi-mode cgroup-dir-mode= chdir2= cheap cheaper=
    cheaper-algo= cheaper-algo-list cheaper-algos-list cheaper-busyness-backlog-alert=
    cheaper-busyness-backlog-multiplier= cheaper-busyness-backlog-nonzero= cheaper-busyness-backlog-step=
    cheaper-busyness-max= cheaper-busyness-min= cheaper-busyness-multiplier= cheaper-busyness-penalty=
    cheaper-busyness-verbose cheaper-idle= cheaper-initial= cheaper-list cheaper-overload=
    cheaper-rss-limit-hard= cheaper-rss-limit-soft= cheaper-step= check-cache? check-interval=
    check-mount= check-mountpoint= check-static= check-static-docroot chunked-input-limit=
    chunked-input-timeout= clock= clock-list clocks-list close-on-exec close-on-exec2 collect-header=
    command-mode config-py cpu-affinity= cron= cron-harakiri= cron-legion= cron2= daemons-honour-stdin
    del-header= die-on-idle die-on-no-workers disable-async-warn-on-queue-full disable-logging
    disable-sendfile disable-write-exception dlopen= dot-h dynamic-apps early-emperor early-envdir=
    emperor-broodlord= emperor-cap= emperor-chdir-attr= emperor-collect-attr= emperor-collect-attribute=
    emperor-command-socket= emperor-curse-tolerance= emperor-extra-ext= emperor-extra-extension=
    emperor-fork-server-attr= emperor-freq= emperor-graceful-shutdown emperor-magic-exec
    emperor-max-throttle= emperor-no-blacklist emperor-nofollow emperor-on-demand-dir=
    emperor-on-demand-directory= emperor-on-demand-exec= emperor-on-demand-ext=
    emperor-on-demand-extension= emperor-pidfile= emperor-procname= emperor-proxy-socket=
    emperor-required-heartbeat= emperor-stats= emperor-stats-server= emperor-subreaper emperor-throttle=
    emperor-trigger-socket= emperor-tyrant emperor-tyrant-initgroups emperor-tyrant-nofollow
    emperor-use-clone= emperor-use-fork-server= emperor-wait-for-command emperor-wait-for-command-ignore=
    emperor-wrapper= emperor-wrapper-attr= emperor-wrapper-fallback= emperor-wrapper-override=
    enable-metrics enable-proxy-protocol enable-threads env= envdir= error-page-403= error-page-404=
    error-page-500= error-route= error-route-host= error-route-if= error-route-if-not= error-route-label=
    error-route-qs= error-route-referer= error-route-remote-addr= error-route-remote-user=
    error-route-run= error-route-status= error-route-uri= error-route-user-agent= eval= evil-reload-on-as=
    evil-reload-on-rss= exception-handler= exec-as-emperor= exec-as-vassal= exec-post-app= exec-pre-app=
    exit-on-reload farm= fastcgi-modifier1= fastcgi-modifier2= fastcgi-nph-socket= fastcgi-socket=
    fd-safe= file= file-serve-mode= file-write= fileserve-mode= final-route= final-route-host=
    final-route-if= final-route-if-not= final-route-label= final-route-qs= final-route-referer=
    final-route-remote-addr= final-route-remote-user= final-route-run= final-route-status=
    final-route-uri= final-route-user-agent= flock= flock-wait= flock-wait2= flock2= force-cwd=
    force-gateway forkbomb-delay= fs-brutal-reload= fs-reload= fs-signal= ftok= get= gevent=
    gevent-early-monkey-patch gevent-monkey-patch gevent-wait-for-hub harakiri= harakiri-graceful-signal=
    harakiri-graceful-timeout= harakiri-no-arh harakiri-queue-threshold= harakiri-verbose heartbeat= home=
    honour-range honour-stdin hook-accepting= hook-accepting-once= hook-accepting1= hook-accepting1-once=
    hook-as-emperor= hook-as-emperor-before-vassal= hook-as-emperor-setns= hook-as-mule=
    hook-as-on-config-vassal= hook-as-on-demand-vassal= hook-as-vassal= hook-as-vassal-before-drop=
    hook-emperor-lost= hook-emperor-reload= hook-emperor-start= hook-emperor-stop= hook-post-app=
    hook-post-fork= hook-pre-app= hook-touch= http= http-auto-chunked http-auto-gzip http-buffer-size=
    http-cheap http-chunked-input http-connect-timeout= http-enable-proxy-protocol? http-events=
    http-fallback= http-gid= http-gracetime= http-harakiri= http-headers-timeout= http-keepalive?
    http-manage-expect? http-manage-rtsp http-manage-source http-modifier1= http-modifier2=
    http-path-info-no-decode-slashes= http-processes= http-quiet= http-raw-body http-resubscribe=
    http-server-name-as-http-host= http-socket= http-socket-modifier1= http-socket-modifier2= http-ss=
    http-stats= http-stats-server= http-stud-prefix= http-subscription-fallback-key=
    http-subscription-server= http-timeout= http-to= http-uid= http-use-base= http-use-cache?
    http-use-code-string= http-use-pattern= http-use-socket? http-var= http-websockets http-workers=
    http-zerg= http11-socket= httprouter= https-socket= https-socket-modifier1= https-socket-modifier2=
    idle= ienv= ignore-script-name ignore-sigpipe ignore-write-errors imperial-monitor-list
    imperial-monitors-list import= ini-paste= ini-paste-logged= iprint= jid-file= jidfile= ksm? lazy
    lazy-apps legion= legion-attach-daemon= legion-cron= legion-death= legion-death-on-lord-error=
    legion-freq= legion-join= legion-lord= legion-mcast= legion-node= legion-node-joined=
    legion-node-left= legion-quorum= legion-scroll= legion-scroll-list-max-size= legion-scroll-max-size=
    legion-setup= legion-skew-tolerance= legion-smart-attach-daemon= legion-smart-attach-daemon2=
    legion-tolerance= legion-unlord= limit-as= limit-nproc= limit-post= listen-queue-alarm=
    load-file-in-cache= load-file-in-cache-gzip= lock-engine= locks= log-4xx log-5xx log-alarm=
    log-backupname= log-big= log-date? log-drain= log-encoder= log-filter= log-format= log-format-strftime
    log-ioerror= log-master log-master-bufsize= log-master-req-stream log-master-stream log-maxsize=
    log-micros log-prefix? log-req-encoder= log-req-route= log-route= log-sendfile= log-slow=
    log-truncate log-x-forwarded-for log-zero logdate? logformat=
    logformat-strftime logger-list logger-req= loggers-list loop= loop-list loops-list lq-alarm=
    manage-script-name map-socket= master-as-root master-fifo= max-apps= max-fd= max-requests=
    max-requests-delta= max-vars= max-worker-lifetime= max-worker-lifetime-delta= mem-collector-freq=
    memory-report? metric= metric-alarm= metric-dir= metric-dir-restore metric-threshold= metrics-dir=
    metrics-dir-restore metrics-no-cores mime-file= mimefile= min-worker-lifetime= mode= module= mount=
    mount-as-emperor= mount-as-root= mount-as-vassal= mount-asap= mount-check= mount-in-jail=
    mount-post-jail= mount-pre-jail= mountpoint-check= mule? mule-harakiri= mule-msg-recv-size=
    mule-msg-size= mule-reload-mercy= mules= multicast= multicast-loop= multicast-ttl= nagios need-app?
    never-swap no-default-app no-defer-accept no-fd-passing no-harakiri-after-req-hook no-harakiri-arh
    no-orphans no-server no-site no-threads-wait not-alarm-log= not-log-alarm=
    notify-socket= offload-thread= offload-threads= optimize= paste= paste-logger pcre-jit pecan=
    persistent-ipcsem ping= ping-timeout= plugin-list plugins-list post-buffering= post-buffering-bufsize=
    post-pymodule-alias= pp= print= print-sym= print-symbol= prio= privileged-binary-patch=
    privileged-binary-patch-arg= processes= profiler= propagate-touch protocol= pull-header= pump=
    puwsgi-socket= py= py-auto-reload= py-auto-reload-ignore= py-autoreload= py-call-osafterfork
    py-call-uwsgi-fork-hooks py-executable= py-import= py-program-name= py-programname= py-sharedarea=
    py-sys-executable= py-tracebacker= pyargv= pyhome= pyimport= pymodule-alias= pyrun= pyshell?
    pyshell-oneshot? python= python-auto-reload= python-autoreload= python-import= python-path=
    python-raw= python-version python-worker-override= pythonpath= queue= queue-blocksize= queue-store=
    queue-store-sync= raw-modifier1= raw-modifier2= raw-socket= rawrouter= rawrouter-buffer-size=
    rawrouter-cheap rawrouter-events= rawrouter-fallback= rawrouter-gracetime= rawrouter-harakiri=
    rawrouter-max-retries= rawrouter-processes= rawrouter-quiet= rawrouter-ss= rawrouter-stats=
    rawrouter-stats-server= rawrouter-subscription-server= rawrouter-subscription-slot= rawrouter-timeout=
    rawrouter-to= rawrouter-use-base= rawrouter-use-cache? rawrouter-use-code-string=
    rawrouter-use-pattern= rawrouter-use-socket? rawrouter-workers= rawrouter-xclient rawrouter-zerg=
    rbtimer= reaper reload-mercy= reload-on-as= reload-on-exception reload-on-exception-repr=
    reload-on-exception-type= reload-on-exception-value= reload-on-fd= reload-on-pss= reload-on-rss=
    reload-on-uss= reload-os-env rem-header= remap-modifier= req-logger= response-header-collect=
    response-headers-limit= response-route= response-route-host= response-route-if= response-route-if-not=
    response-route-label= response-route-qs= response-route-referer= response-route-remote-addr=
    response-route-remote-user= response-route-run= response-route-status= response-route-uri=
    response-route-user-agent= route= route-host= route-if= route-if-not= route-label= route-qs=
    route-referer= route-remote-addr= route-remote-user= route-run= route-uri= route-user-agent=
    router-list routers-list rpc-max= rrdtool= rrdtool-freq= rrdtool-lib= rsyslog-packet-size=
    rsyslog-split-messages safe-fd= scgi-modifier1= scgi-modifier2= scgi-nph-socket= scgi-socket=
    segfault-alarm= shared-import= shared-py-import= shared-pyimport= shared-python-import= sharedarea=
    shutdown-sockets signal= signal-bufsize= signal-rbtimer= signal-timer= signals-bufsize=
    single-interpreter skip-atexit skip-atexit-teardown skip-zero
    sni= sni-dir= sni-dir-ciphers= sni-regexp= snmp? snmp-community= so-keepalive
    so-send-timeout so-write-timeout socket= socket-protocol= socket-rcvbuf= socket-send-timeout
    socket-sndbuf= socket-timeout= socket-write-timeout spooler= spooler-chdir= spooler-cheap
    spooler-external= spooler-freq= spooler-frequency= spooler-harakiri= spooler-import=
    spooler-max-tasks= spooler-ordered spooler-processes= spooler-py-import= spooler-pyimport=
    spooler-python-import= spooler-quiet spooler-signal-as-task ssl-enable-sslv3 ssl-enable-tlsv1
    ssl-enable3 ssl-option= ssl-session-timeout= ssl-session-use-cache? ssl-sessions-timeout=
    ssl-sessions-use-cache? ssl-socket= ssl-tmp-dir= ssl-verbose ssl-verify-depth? st= start-unsubscribed
    start_response-nodelay static-cache-paths= static-cache-paths-name= static-check= static-expires=
    static-expires-mtime= static-expires-path-info= static-expires-path-info-mtime= static-expires-type=
    static-expires-type-mtime= static-expires-uri= static-expires-uri-mtime= static-gzip= static-gzip-all
    static-gzip-dir= static-gzip-ext= static-gzip-prefix= static-gzip-suffix= static-index= static-map=
    static-map2= static-safe= static-skip-ext= stats= stats-min stats-minified stats-no-cores
    stats-no-metrics stats-push= stats-pusher-default-freq= stats-pushers-default-freq= stats-server=
    subscribe= subscribe-freq= subscribe-to= subscribe-with-modifier1= subscribe2=
    subscription-clear-on-shutdown subscription-notify-socket= suwsgi-socket= symcall= symcall-post-fork=
    symcall-register-rpc= symcall-use-next tcp-fast-open= tcp-fast-open-client tcp-fastopen=
    tcp-fastopen-client tcp-nodelay test= thread-stack-size= thread-stacksize= threaded-logger threads=
    threads-stack-size= threads-stacksize= thunder-lock thunder-lock-watchdog timer= touch-chain-reload=
    touch-exec= touch-logreopen= touch-logrotate= touch-mules-reload= touch-reload= touch-signal=
    touch-spoolers-reload= touch-workers-reload= udp= ugreen ugreen-stacksize= umount-as-emperor=
    umount-as-root= umount-as-vassal= umount-asap= umount-in-jail= umount-post-jail= umount-pre-jail=
    unenv= unique-cron= unique-cron-legion= unique-legion-cron= unprivileged-binary-patch=
    unprivileged-binary-patch-arg= unsubscribe-on-graceful-reload upload-progress= use-abort uwsgi-socket=
    vassal-cap= vassal-fork-base= vassal-set= vassal-sos= vassal-sos-backlog= vassals-cap=
    vassals-include= vassals-include-before= vassals-inherit= vassals-inherit-before= vassals-set=
    vassals-start-hook= vassals-stop-hook= venv= vhost vhost-host virtualenv= wait-for-dir= wait-for-file=
    wait-for-fs= wait-for-fs-timeout= wait-for-iface= wait-for-iface-timeout= wait-for-interface=
    wait-for-interface-timeout= wait-for-mountpoint= wait-for-socket= wait-for-socket-timeout= wait-iface=
    wait-iface-timeout= wait-interface= wait-interface-timeout= web3= websocket-max-size=
    websocket-ping-freq= websocket-pong-tolerance= websockets-max-size= websockets-ping-freq=
    websockets-pong-tolerance= weight= worker-exec= worker-exec2= worker-log-encoder=
    worker-log-req-encoder= worker-logger= worker-logger-req= worker-mount= worker-reload-mercy= workers=
    write-errors-exception-only write-errors-tolerance= wsgi= wsgi-accept-buffer wsgi-accept-buffers
    wsgi-disable-file-wrapper wsgi-env-behavior= wsgi-env-behaviour= wsgi-file= wsgi-lite= wsgi-strict
    zerg= zerg-fallback zerg-pool= zerg-server= zergpool= zeus=
"""


# Where it is not the version's fault alone.
REASONS = {
    **dict.fromkeys(("xml", "xmlconfig", "yaml", "yml", "json", "js", "config"), AS_AN_INI),
    **dict.fromkeys(("inject-before", "inject-after"), "gfrouter puts no text into other files: include its settings"),
    **dict.fromkeys(
        ("declare-option", "declare-option2"), "gfrouter has no options of your own: write out what it does"
    ),
    **dict.fromkeys(
        ("blacklist", "end-blacklist", "whitelist", "end-whitelist"), "gfrouter does not restrict what a file may say"
    ),
    "fallback-config": "gfrouter does not start over with another file: whoever starts it has to",
    "resolve": "gfrouter puts no DNS answer into a placeholder: addresses may hold host names",
    **{name: f"postponed: gfrouter {__version__} has no {what}" for name, (_, what) in POSTPONED.items()},
}


def verdict(name: str, value: str, plain: bool) -> Verdict | None:
    """What to do about a setting that is not gfrouter's; None when uWSGI does not know the name either.

    `plain`: spelled without `fastrouter-`, as on the command line; there a core option's meaning goes first.
    What is refused may stand there when it asks for nothing: a flag that says no.
    """
    found, notation = KNOWN.get(name) or (plain and KNOWN.get(f"fastrouter-{name}")) or (None, "")
    if found not in ("refused", "postponed"):
        return found
    if notation == "" and value.lower() in FALSE_WORDS:
        return "silent"
    return found


def why(name: str) -> str:
    """Why a name that is refused or postponed is; it may be the plain spelling."""
    reason = REASONS.get(name) or REASONS.get(f"fastrouter-{name}")
    return reason or f"{name} is not supported yet by gfrouter {__version__}"


def notations(*verdicts: Verdict) -> list[tuple[str, str]]:
    """Every name with one of the verdicts, as [uwsgi] spells it, and its notation ("=", "?" or "")."""
    return [(name, notation) for name, (what, notation) in KNOWN.items() if what in verdicts]


def _entries(verdict: Verdict, text: str, prefix: str = "") -> dict[str, tuple[Verdict, str]]:
    return {prefix + word.rstrip("=?"): (verdict, word[len(word.rstrip("=?")) :]) for word in text.split()}


KNOWN: dict[str, tuple[Verdict, str]] = {
    **_entries("worker", CORE_WORKER),
    **_entries("silent", CORE_SILENT),
    **_entries("dialect", DIALECT),
    **_entries("refused", CORE_REFUSED),
    **_entries("idle", FASTROUTER_IDLE, prefix="fastrouter-"),
    **{name: ("postponed", notation) for name, (notation, _) in POSTPONED.items()},
}
