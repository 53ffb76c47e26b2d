"""Names that somebody gave to data sets, classes, folders and files to be let in on the way out."""

from __future__ import annotations

from hypothesis import strategies as st

ESC, CSI, OVERRIDE, ZERO_WIDTH = "\x1b", "\x9b", "\u202e", "\u200b"
NAMES = [
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    f"{ESC}[31mred{ESC}[0m",
    f"{ESC}]8;;https://example.org{ESC}\\link{ESC}]8;;{ESC}\\",
    f"{CSI}2J",
    "passed\rfailed",
    "passed\b\b\b\b\b\bfailed",
    "$x_{",
    "$\\frac{1}{",
    "[red]x[/red]",
    "[link=https://example.org]x[/link]",
    "[x](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    ":smile:",
    "\"'`a` | b",
    f"{OVERRIDE}gnp.exe\u2066\u2069",
    f"a{ZERO_WIDTH}b\ufeff",
    "two\nlines\n\n# of them",
    "\t=1+1",
    "\uff1d1+1",
    "' \"@SUM(A1)",
    "x;-1",
    "{task.description}",
    "%s %(x)s {0}",
    "\\input{/etc/passwd}",
    "_hidden",
    "*bold* _thin_ ~~gone~~",
    "&lt;b&gt;",
    "caf\udce9",  # what Python makes of a file's name in Latin-1
    "\u732b \u0642\u0637",  # cat, in Chinese and in Arabic: nothing to be escaped
    "n" * 300,
]
# any text, and most often of what means something to somebody
TEXTS = st.text(
    st.one_of(
        st.sampled_from("\x00\x07\b\t\n\r\x1b\x7f\x9b\xad\u200b\u202e\u2066\u2028\ud800\U000e0041"),
        st.sampled_from("=+-@|`*_~#$<>[](){}&%^\\'\";:!. a1"),
        st.characters(),
    ),
    max_size=30,
)
