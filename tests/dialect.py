"""Small ini files for each construct of uWSGI's dialect and its corners; test_like_dialect.py puts them through both.

In ALIKE the two agree. What differs on purpose stands in DIFFERENT, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

REFUSED = "refused"
Outcome = list[tuple[str, str]] | str  # the settings that come out


@dataclass
class Case:
    """`main.ini` with `text` under [uwsgi], other files as they are, and what both are given beside it."""

    text: str
    files: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    section: str = ""


ENVIRON = {"SET": "here", "EMPTY": "", "REF": "%(a)", "FILE": "@(word.txt)", "BOTH": "$(SET)"}
TREE = {
    "word.txt": "a word\n",
    "lines.txt": "one\r\ntwo\n\nfour\n\n",
    "conf.d/b.ini": "[uwsgi]\nfrom = b\n",
    "conf.d/a.ini": "[uwsgi]\nfrom = a\nwhere = %d %D %n %N\n[other]\nfrom = other\n",
    "conf.d/deep/er/x.y.ini": "[uwsgi]\nin = %p|%s|%d|%e|%n|%c|%0|%1|%x|%o\n",
    "again.ini": "[uwsgi]\nini = conf.d/a.ini\nagain = %n %c\n",
    "templ.ini": "[uwsgi]\nraw = %(a) $(SET) @(word.txt)\nset = made=%(a)\na = late\n"
    "if-opt = a=1\nyes = %(_)\nendif =\n",
    "open.ini": "[uwsgi]\nif-env = NOPE\nlost = 1\n",
    "ends.ini": "[uwsgi]\nendif =\nx = 1\n",
    "loop.ini": "[uwsgi]\nfor = 1 2\n",
}

ALIKE = {
    # placeholders
    "a_placeholder": Case("a = 1\nb = %(a)\n"),
    "before_it_is_defined": Case("b = -%(a)-\na = 1\n"),
    "the_first_value": Case("a = 1\na = 2\nb = %(a)\n"),
    "the_first_value_may_be_empty": Case("a\na = 2\nb = x%(a)\n"),
    "unknown": Case("b = %(no) %(no\n"),
    "twice_and_beside": Case("a = 1\nb = %(a)%(a) x%(a)x\n"),
    "in_a_value_that_comes_later": Case("a = %(b)\nb = %(c)\nc = 1\n"),
    "in_a_value_that_comes_later_behind_a_letter": Case("a = x%(b)\nb = y%(c)\nc = 1\n"),
    "of_itself_at_the_beginning": Case("a = %(a)\n"),
    "brackets": Case("a(b)c = 1\nx = %(a(b)c) %() %(a(b) (%(y)\n"),
    "one_in_another": Case("a = b\nb = 2\nx = %(%(a))\n"),
    "a_percent_sign_is_written_twice": Case("a = 1\nb = 100%% %%(a) %%%(a) 1%%%%\n"),
    "formats": Case('log-format = %(addr) "%(method)" %(msecs)\na = %(log-format)\n'),
    "across_other_options": Case("workers = 0\na = %(workers)\n"),
    "names_with_blanks_around": Case("  a  =  1  \nb = [%(a)]\n"),
    # sums and joins
    "a_sum": Case("a = 3031\nb = %(a + 1) %(a - 1) %(a * 2) %(a / 2)\n"),
    "a_join": Case("a = x\nb = y\nc = %(a b) %(a  b a)\n"),
    "from_left_to_right": Case("a = 2\nb = 8\nc = %(a b + 2) %(a + b * 2) %(a + b b)\n"),
    "plus_plus": Case("a = 7\nb = %(a ++) %(a --) %(a ++ ++) %(++ a) %(no ++)\n"),
    "no_numbers": Case("a = x1\nb = 12ab\nc = %(a + 1) %(b + 1) %(no + 1) %(a / 0) %(+ 1) %(1 + a)\n"),
    "negative": Case("a = -7\nb = %(a / 2) %(a * 3) %(3 - 5) %(0 - a) %(2 -1)\n"),
    "nothing_but_signs": Case("b = %(+ +) %( ) %(++ --)\n"),
    "large_numbers": Case("a = 9223372036854775807\nb = %(a + 0) %(99999999999999999999 + 0)\n"),
    # environment and files
    "an_environment_variable": Case("a = $(SET) $(NOPE) x$(EMPTY)x\n"),
    "no_defaults": Case("a = $(NOPE:-d) $(SET:-d)\n"),
    "first_the_environment_then_files_then_placeholders": Case("a = 1\nb = $(REF) $(FILE) x$(FILE) x$(BOTH)\n"),
    "as_a_name": Case("here = 5\nb = %($(SET)) x%($(SET))\n"),
    "a_file": Case("a = @(word.txt) $(SET)@(word.txt)\nb = x@(conf.d/deep/../../word.txt)\n"),
    "a_file_that_is_not_there": Case("a = @(nope.txt)\n"),
    "a_name_for_a_file": Case("f = word\na = x@(%(f).txt)\n"),
    # set
    "set": Case("set = a=1\nb = %(a)\nset = c=x=%(a)\n"),
    "set_placeholder": Case("set-placeholder = a=1\nset-ph = b=%(a)\nc = x%(b) %(b)\n"),
    "set_without_a_value": Case("set = a\n"),
    "a_placeholder_that_is_an_option": Case("set-placeholder = workers=1\n"),
    "a_placeholder_in_strict_mode": Case("strict = true\nset-placeholder = a=1\n"),
    "on_the_command_line": Case("a = 1\nb = %(a)\n", words=("--set-ph", "a=0", "--ini", "main.ini", "--set", "c=%(a)")),
    "behind_the_file": Case("a = 1\nb = %(a) %(c)\n", words=("--ini", "main.ini", "--set", "a=0", "--set", "c=2")),
    "in_the_environment": Case("b = %(a-b) %(c)\nd = 1\n", environ={"UWSGI_A_B": "$(SET)", "UWSGI_C": "x%(d)"}),
    # other files
    "ini": Case("before = 1\nini = conf.d/a.ini\nafter = %n %D %(from)\nini = conf.d/b.ini\n"),
    "ini_with_a_section": Case("ini = conf.d/a.ini:other\nini = conf.d/a.ini:\n"),
    "ini_in_a_chain": Case("ini = again.ini\nend-of = %(again)\n"),
    "the_same_file_again": Case("ini = :more\nx = %x\n[more]\ny = %x|%(x)\n"),
    "include": Case("from = main\ninclude = conf.d/a.ini\nafter = %(where)\n"),
    "inherit_comes_last_and_is_not_expanded": Case("inherit = templ.ini\na = 1\nb = %(made) %(raw)\n"),
    "inherit_of_an_expanded_name": Case("dir = conf.d\ninherit = %(dir)/a.ini\nfrom = main\n"),
    "include_of_a_name_that_is_not_expanded": Case("dir = conf.d\ninclude = %(dir)/a.ini\n"),
    "include_with_a_section": Case("include = conf.d/a.ini:other\n"),
    "include_of_something_else": Case("include = word.txt\n"),
    "a_file_that_cannot_be_read": Case("ini = nope.ini\n"),
    "another_section": Case("a = 1\n[mine]\nb = %x %o\n[uwsgi]\nc = 1\n", section=":mine"),
    # blocks
    "for": Case("for = a  b c\nx = %(_)1\ny = %(_)-%(_)\nendfor =\nz = %(_)\n"),
    "for_times": Case("for-times = 3\nx = %(_)\nend-for =\nfor-times = nine\ny = 1\nendfor\nz = 2\n"),
    "for_glob": Case("for-glob = conf.d/*\nx = %(_)\nend =\nfor-glob = no/*\nx = %(_)\nendfor\n"),
    "for_glob_and_ini": Case("for-glob = conf.d/*.ini\nini = %(_)\nendfor =\n"),
    "for_readline": Case("for-readline = lines.txt\nx = [%(_)]\nendfor =\n"),
    "for_nothing": Case("for =\nx = 1\nendfor =\ny = 1\n"),
    "for_and_placeholders": Case("list = a b\nfor = %(list)\nx = %(_)\nendfor =\n"),
    "set_in_a_loop": Case("for = a b\nset = x%(_)=%(_)\nendfor =\ny = %(xa)%(xb)\n"),
    "if_env": Case("if-env = SET\na = %(_)\nendif =\nif-env = NOPE\nb = 1\nendif =\nifenv = EMPTY\nc = x%(_)\nendif\n"),
    "if_env_is": Case("if-env = SET=here\na = %(_)\nendif =\nif-env = SET=not\nb = 1\nend-if =\n"),
    "if_not_env": Case("if-not-env = SET\na = 1\nendif =\nif-not-env = NOPE\nb = %(_)\nendif =\n"),
    "if_not_env_is": Case("if-not-env = SET=here\na = 1\nendif =\nif-not-env = SET=not\nb = %(_)\nendif =\n"),
    "if_opt": Case("a = 1\nif-opt = a\nb = %(_)\nendif =\nif-opt = c\nd = 1\nendif =\nif-opt = a=2\ne = 1\nendif =\n"),
    "if_opt_is_asked_for_each_line": Case("if-not-opt = a\na = 1\nb = 2\nendif =\nc = 3\n"),
    "if_not_opt": Case("a = 1\nif-not-opt = a=2\nb = %(_)\nendif =\nif-not-opt = a\nc = 1\nendif =\n"),
    "if_opt_of_a_flag_that_was_typed": Case(
        "if-opt = master\na = 1\nendif =\nb = %(master)\n", words=("--master", "--ini", "main.ini")
    ),
    "if_exists": Case(
        "if-exists = word.txt\na = %(_)\nendif =\nif-exists = conf.d\nb = 1\nendif =\nifexists = no\nc = 1\nendif\n"
    ),
    "if_file": Case(
        "if-file = word.txt\na = 1\nendif =\nif-file = conf.d\nb = 1\nendif =\nif-not-file = no\nc = %(_)\nendif\n"
    ),
    "if_dir": Case(
        "if-dir = conf.d\na = 1\nendif\nifdir = word.txt\nb = 1\nendif\nif-not-dir = no\nc = 1\nendif\n"
        "if-directory = .\nd = 1\nendif\n"
    ),
    "if_not_exists": Case("if-not-exists = no\na = %(_)\nendif =\nif-not-exists = word.txt\nb = 1\nendif =\n"),
    "if_hostname": Case("if-hostname = no.such\na = 1\nendif =\nif-not-hostname = no.such\nb = %(_)\nendif =\n"),
    "if_plugin": Case(
        "if-plugin = fastrouter\na = %(_)\nendif =\nif-not-plugin = nope\nb = 1\nendif =\n"
        "ifplugin = nope\nc = 1\nendif\n"
    ),
    "if_reload": Case("if-reload =\na = 1\nendif =\nif-not-reload =\nb = %(_)\nendif =\n"),
    "a_block_that_nothing_ends": Case("ini = open.ini\nmore = 1\nendif =\nseen = 1\n"),
    "an_end_in_a_file_that_a_block_reads": Case("if-env = SET\nini = ends.ini\ny = 1\nendif =\nz = 1\n"),
    "an_end_without_a_block": Case("endif =\na = 1\nendfor\n"),
    "blocks_do_not_nest": Case("if-env = SET\nfor = a b\nx = %(_)\nendfor =\nendif =\n"),
    "a_loop_in_a_file_that_a_block_reads": Case("if-env = SET\nini = loop.ini\nendif =\n"),
    "a_block_that_does_not_hold_may_hold_anything": Case(
        "if-env = NOPE\nini = nope.ini\nfor = 1\nset = a\nendif =\nb = 1\n"
    ),
    "blocks_on_the_command_line": Case(
        "a = 1\n", words=("--if-env", "NOPE", "--ini", "main.ini", "--endif", "--set", "b=1")
    ),
    # magic letters
    "letters_of_the_file": Case("a = %d|%p|%s|%n|%e|%c|%x|%o|%i|%j\nb = %0|%1|%2|%3|%4|%5|%6|%7|%8|%9\n"),
    "letters_of_the_first_file": Case("a = %D|%P|%S|%N|%E|%C|%X|%O|%I|%J\nini = conf.d/deep/er/x.y.ini\n"),
    "letters_of_the_machine": Case("a = %k|%h|%v|%u|%U|%g|%G|%[\n"),
    "letters_that_stand_for_nothing": Case("a = x%zy%~z% w\nb = 5%\nc = 1\n"),
    "letters_in_names_and_comments": Case("# 5%\na = 1\n%n = 2\n; %z\nb = 3\n"),
    "letters_at_the_end": Case("a = 1%"),
    "letters_of_a_link": Case("ini = link.ini\n"),
    # lines
    "lines": Case('a=1\r\n b = 2 \r\n\tc\t=\t3\n;d = 4\n#e\n\nf\ng = \nh = = 1 = 2\ni = a # b ; c\nj = "q"\n'),
    "other_sections": Case("a = 1\n[other]\nb = 2\n[uwsgi]\nc = 3\n"),
}

# Case, what the real one makes of it, what we make of it, and why.
DIFFERENT: dict[str, tuple[Case, Outcome, Outcome, str]] = {
    "else_is_of_2_1": (
        Case("if-env = NOPE\na = 1\nelse =\nb = 2\nendif =\nif-env = SET\nc = 1\nelse\nd = 1\nendif\n"),
        [("if-env", "NOPE"), ("endif", ""), ("if-env", "SET"), ("c", "1"), ("else", ""), ("d", "1"), ("endif", "")],
        [
            ("if-env", "NOPE"),
            ("else", ""),
            ("b", "2"),
            ("endif", ""),
            ("if-env", "SET"),
            ("c", "1"),
            ("else", ""),
            ("endif", ""),
        ],
        "2.0 takes `else` for a placeholder; nobody who writes it means that",
    ),
    "what_acts_at_once_is_not_expanded": (
        Case("q = 100\nlisten = %(q)\n"),
        [("q", "100"), ("listen", "%(q)")],
        [("q", "100"), ("listen", "100")],
        "uWSGI takes the number for 0; what is meant is plain",
    ),
    "other_formats": (
        Case("include = x.yml\n", {"x.yml": "uwsgi:\n  a: 1\n"}),
        [("include", "x.yml"), ("a", "1")],
        REFUSED,
        "ini alone",
    ),
    "a_command_as_a_file": (Case("a = @(exec://echo 1)\n"), [("a", "1")], REFUSED, "a configuration runs no commands"),
    "a_file_of_lines_that_is_not_there": (
        Case("for-readline = nope.txt\na = 1\nendfor =\n"),
        [("for-readline", "nope.txt"), ("endfor", "")],
        REFUSED,
        "what it should have held is not a matter of taste",
    ),
    "a_plugin_of_workers": (
        Case("if-plugin = python\na = 1\nendif =\n"),
        [("if-plugin", "python"), ("a", "1"), ("endif", "")],
        [("if-plugin", "python"), ("endif", "")],
        "a router runs no Python of yours",
    ),
    "other_options_are_placeholders_too": (
        Case("blacklist = a\na = 1\n"),
        REFUSED,
        [("blacklist", "a"), ("a", "1")],
        "gfrouter refuses `blacklist` itself, when it judges the settings (configuration.py)",
    ),
    "a_section_that_is_not_there": (Case("a = 1\n", section=":no"), [], REFUSED, "nothing would be configured"),
    "a_line_without_an_equals_sign": (Case("a b\n"), [("a b", "")], REFUSED, "a typo must not become a default"),
}
