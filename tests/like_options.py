"""Cases of the options (section 7): their spellings, the ini dialect, the environment, and what is refused.

How many processes are spawned (a log line each) tells which of several values counted.
"""

from functools import partial

from like import REFUSED, Case, Stage, case
from scripted import wait_for

HEAD = """[uwsgi]
master = true
fastrouter = {router}
fastrouter-subscription-server = {subscriptions}
fastrouter-stats = {stats}
"""


def from_ini(text: str, stage: Stage, processes: int = 1) -> None:
    if stage.start(ini=text):
        stage.router.wait_line(f"spawned uWSGI fastrouter {processes} ")


def with_options(text: str, stage: Stage) -> None:
    from_ini(HEAD + text, stage)


def two_processes(text: str, stage: Stage) -> None:
    from_ini(HEAD + text, stage, 2)


@case(7, quick=True)
def a_plain_ini(stage: Stage) -> None:
    from_ini(HEAD, stage)
    stage.node()
    stage.ask()


ALIKE = {
    "plugins_that_are_built_in": "plugins = fastrouter\nplugin = python\n",
    "an_unknown_key": "colour = red\n",
    "a_bare_name": "fastrouter-cheap\n",
    "processes_of_0": "fastrouter-processes = 0\n",
    "timeout_of_0": "fastrouter-timeout = 0\n",
    "quiet_wants_a_value": "fastrouter-quiet = true\n",
    "what_only_tunes": "fastrouter-events = 64\nfastrouter-buffer-size = 8192\nfastrouter-post-buffering-dir = /tmp\n",
    **{f"cheap_{word}": f"fastrouter-cheap = {word}\n" for word in ("true", "off", "no", "0", "1")},
}
INIS = [Case(7, name, partial(with_options, text)) for name, text in ALIKE.items()]

TWO = "fastrouter-processes = 2\n"
OF_TWO = {
    "whole_line_comments": "; one\n# two\n  ; three\n" + TWO,
    "other_sections": "[other]\nfastrouter-processes = 3\n[uwsgi]\nfastrouter-workers = 2\n",
    "the_last_of_a_repeated_key": "fastrouter-processes = 3\n" + TWO,
    "a_placeholder_before_its_key": "fastrouter-processes = %(count)\ncount = 2\n",
    "the_first_value_of_a_placeholder": "count = 2\ncount = 3\nfastrouter-processes = %(count)\n",
    "blanks_around_everything": "  fastrouter-processes   =   2   \n",
    "a_sum": "one = 1\nfastrouter-processes = %(one + 1)\n",
    "a_for_block": "for = 3 2\nfastrouter-processes = %(_)\nendfor =\n",
    "the_workers_processes": "workers = 0\n" + TWO,
    "line_ends_of_windows": "colour = red\r\nfastrouter-processes = 2\r\n",
}
COUNTED = [Case(7, name, partial(two_processes, text)) for name, text in OF_TWO.items()]


@case(7)
def a_named_section(stage: Stage) -> None:
    stage.start(ini=HEAD.replace("[uwsgi]", "[mine]") + TWO + "[uwsgi]\nfastrouter-processes = 3\n", section=":mine")
    stage.router.wait_line("spawned uWSGI fastrouter 2 ")


@case(7, why=["byte-order-mark"], differs={"router": ("refused", "serves")})
def a_byte_order_mark(stage: Stage) -> None:
    from_ini("\ufeff" + HEAD, stage)
    stage.leave_out("log", "stats")


def refused_ini(text: str, stage: Stage) -> None:
    stage.start(ini=HEAD + text)
    stage.leave_out("log", "stats")


LATER = [Case(7, "a_hook", partial(refused_ini, "exec-asap = true\n"), ["later"], REFUSED)]

SLIPS = {
    "no_equals": "fastrouter-processes 2\n",
    "a_number_that_is_missing": "fastrouter-processes =\n",
    "a_number_that_is_a_word": "fastrouter-timeout = soon\n",
    "a_variable_with_a_default": "fastrouter-processes = $(LIKE_COUNT:-2)\n",
    "neither_yes_nor_no": "fastrouter-cheap = perhaps\n",
    "text_after_a_section": "[uwsgi] ; comment\n",
}
STRICT = [Case(7, name, partial(refused_ini, text), ["slips"], REFUSED) for name, text in SLIPS.items()]


@case(7, why=["slips"], differs=REFUSED)
def a_line_before_the_first_section(stage: Stage) -> None:
    from_ini("fastrouter-cheap = true\n" + HEAD, stage)
    stage.leave_out("log", "stats")


@case(7)
def an_unknown_key_under_strict(stage: Stage) -> None:
    with_options("strict = true\ncolour = red\n", stage)


@case(7)
def an_unknown_option_on_the_command_line(stage: Stage) -> None:
    stage.start("--colour", "red")


@case(7)
def a_value_that_is_missing_on_the_command_line(stage: Stage) -> None:
    stage.start("--fastrouter-timeout")


def two_by_command_line(words: tuple[str, ...], stage: Stage) -> None:
    stage.start(*words)
    stage.router.wait_line("spawned uWSGI fastrouter 2 ")


SPELLINGS = {
    "a_unique_prefix": ("--fastrouter-proc", "2"),
    "a_value_after_equals": ("--fastrouter-workers=2",),
    "the_last_of_a_repeated_option": ("--fastrouter-processes", "3", "--fastrouter-processes", "2"),
}
WORDS = [Case(7, name, partial(two_by_command_line, words)) for name, words in SPELLINGS.items()]


@case(7)
def a_prefix_that_fits_several(stage: Stage) -> None:
    stage.start("--fastrouter-s", "2")


@case(7)
def options_in_the_environment(stage: Stage) -> None:
    stage.start(env={"UWSGI_FASTROUTER_PROCESSES": "2"})
    stage.router.wait_line("spawned uWSGI fastrouter 2 ")


def stats_by(name: str, stage: Stage) -> None:
    stage.start(ini=HEAD.replace("fastrouter-stats =", f"{name} ="))


STATS = [Case(7, name, partial(stats_by, name)) for name in ("fastrouter-ss", "fastrouter-stats-server")]


@case(7, why=["order"], differs={"log spawned uWSGI fastrouter 3 (pid: N)": (None, 1)})
def an_ini_after_an_option(stage: Stage) -> None:
    (file := stage.folder / "two.ini").write_text("[uwsgi]\n" + TWO)
    stage.start("--fastrouter-processes", "3", "--ini", str(file))
    wait_for(lambda: len(stage.router.pids()) >= (2 if stage.fastrouter else 3), "as many processes as were told last")
