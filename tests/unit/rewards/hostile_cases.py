"""Answers made to hang, crash, fill the memory of, or run code in, whoever grades them."""

from typing import NamedTuple

NEVER = "7919"  # the reference: no hostile answer here is worth it

# Escapes from the sandbox that once worked. Each sets `ok` when it is refused.
PRLIMIT_OF_THE_PARENT = """
import os, resource
try:
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))
except PermissionError:
    ok = True
"""
OUTLIVE_THE_PARENT = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, EPERM = 1, 1
ok = libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) == -1 and ctypes.get_errno() == EPERM
"""


class Hostile(NamedTuple):
    """A case: which verifier, against what, and the answer. None of them is correct."""

    id: str
    task: str
    gold: str
    text: str


def hostile_cases(marker: str) -> list[Hostile]:
    """All cases.

    Args:
        marker: absolute path of a file that the attempts to execute something would make.
    """
    cases: list[Hostile] = []

    def add(group: str, texts: list[str], task: str = "math", gold: str = NEVER) -> None:
        cases.extend(Hostile(f"{group}-{i:02d}", task, gold, text) for i, text in enumerate(texts))

    add("tower", _boxed(_towers()))
    add("factorial", _boxed(_factorials()))
    add("calculus", _boxed(_calculus()))
    add("nesting", _nesting())
    add("huge", _huge())
    add("pattern", _patterns())
    add("unicode", _unicode())
    add("not-finite", _not_finite())
    add("control", [f"\\boxed{{4{chr(code)}2}}" for code in range(32)])
    add("injection", _injections(marker))
    add("choice", [text[:200_000] for text in _patterns()[:12]], "choice", "B")
    add("numeric", [*_not_finite()[:8], *_huge()[:3]], "numeric")
    add(
        "json",
        ["[" * 100_000, '{"a":' * 50_000, "NaN", "1e999", '{"a":1,"a":2}', "9" * 100_000],
        "json",
        "[1]",
    )
    add("regex", ["a" * 40 + "!", "a" * 5_000 + "!"], "regex", "(a+)+b")
    add("code", [f"open({marker!r}, 'w')", "while True: pass"], "python", "assert True")
    add("escape", [PRLIMIT_OF_THE_PARENT, OUTLIVE_THE_PARENT], "python", "assert not ok")
    return cases


def _boxed(contents: list[str]) -> list[str]:
    return [f"so \\boxed{{{content}}}." for content in contents]


def _towers() -> list[str]:
    towers = [
        "^{".join([str(base)] * depth) + "}" * (depth - 1) for base in (2, 3, 7, 9, 10) for depth in (4, 5, 6)
    ]
    towers += [
        "9^9^9^9",
        "(9^{9^9})!",
        "2^{10^{10}}-1",
        "10^{10^{10}}",
        "((10^{9})^{10^{9}})",
        "99999999999^{99999999999}",
    ]
    towers += [
        "2^{2^{2^{49}}}",
        "\\sqrt{9^{9^{9^9}}}",
        "\\frac{1}{9^{9^{9^9}}}",
        "e^{e^{e^{e^{e^{e}}}}}",
        "1.1^{10^{12}}",
    ]
    return towers


def _factorials() -> list[str]:
    return [
        *[f"{n}!" for n in (10**5, 10**6, 10**7, 10**9, 10**12)],
        *["(10^5)!!", "((1000)!)!", "5!!!!!!!!", "((((9!)!)!)!)", "\\Gamma(10^{7})", "\\Gamma(10^{12})"],
        *["\\binom{10^{7}}{5\\cdot 10^{6}}", "\\binom{1000000}{500000}", "\\binom{10^{12}}{10^{6}}"],
    ]


def _calculus() -> list[str]:
    return [
        "\\sum_{i=1}^{10^{9}} \\sqrt{i}",
        "\\prod_{i=1}^{10^{6}} i",
        "\\sum_{i=1}^{\\infty} \\frac{1}{i^{i^{i}}}",
        "\\int_0^1 x^{x^{x^{x}}} dx",
        "\\int e^{x^{x}} \\sin(x^{x}) dx",
        "\\lim_{x\\to 0} \\frac{\\sin(x)^{100}-x^{100}}{x^{102}}",
        "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}^{1000000}",
        "(x+y+z+w)^{3000}",
        "(1+x)^{100000}-(x+1)^{100000}+1",
        "\\gcd(10^{100000}, 2^{99999})",
        "x_1" + "".join(f"+x_{{{i}}}" for i in range(2, 600)),
        "\\sqrt[1000000]{2^{1000001}}",
        "\\log_{10}(9^{9^{9}})",
        "\\sin(10^{10^{8}})",
        "1/0",
        "\\frac{0}{0}",
        "\\operatorname{SVD}(\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix})",
        "\\det\\begin{pmatrix}"
        + "\\\\".join("&".join(f"a_{{{i}{j}}}" for j in range(9)) for i in range(9))
        + "\\end{pmatrix}",
    ]


def _nesting() -> list[str]:
    deep = 100_000
    return [
        "\\boxed{" + "{" * deep + "1" + "}" * deep + "}",
        "\\boxed{" + "(" * deep + "1" + ")" * deep + "}",
        "\\boxed{" * deep + "1" + "}" * deep,
        "\\boxed{" * deep,
        "{" * deep,
        "}" * deep,
        "\\boxed{" + "\\frac{1}{" * 3_000 + "2" + "}" * 3_000 + "}",
        "\\boxed{" + "\\sqrt{" * 3_000 + "2" + "}" * 3_000 + "}",
        "\\boxed{" + "-" * 3_000 + "1}",
        "\\boxed{" + "|" * 1_001 + "1" + "|" * 1_001 + "}",
        "\\boxed{" + "\\left(" * 2_000 + "1" + "\\right)" * 2_000 + "}",
        "<think>" * deep + "1",
        "<answer>" * deep + "</answer>" * deep,
        "$" * deep + "1",
        "\\[" * deep + "1" + "\\]" * deep,
    ]


def _huge() -> list[str]:
    size = 1_000_000
    return [
        "1" * size,
        "\\boxed{" + "1" * size + "}",
        "\\boxed{" + "1+" * (size // 2) + "1}",
        "\\boxed{" + "1,000," * (size // 6) + "000}",
        "\\boxed{0." + "3" * size + "}",
        "\\boxed{\\frac{" + "1" * 5_000 + "}{" + "3" * 5_000 + "}}",
        "word " * (size // 5),
        " " * size,
        "\n" * size,
        "x" * size,
        "the answer is " + "9" * size,
        "\\boxed{\\text{" + "a" * size + "}}",
    ]


def _patterns() -> list[str]:
    many = 100_000
    return [
        "answer is " * many,
        "answer" + " " * many + "is" + " " * many + "x",
        "the answer is A" + " or B" * many,
        "option " * many + "is (Q)",
        "answer " + "\t" * many + ":" + "*" * many,
        "\\boxed " * many,
        "#### " * many,
        "1 " * many,
        "1," * many,
        "1." * many,
        "-" * many + "1",
        "1/" * many + "1x",
        "$1$ and " * 20_000,
        "$" + "a" * many + "\n" + "b" * many + "$",
        "= " * many + "=",
        "(" * 1_000 + "1+" * 1_000,
        "\\text{and}" * 20_000 + "\\boxed{1}",
        "\\boxed{1}" + " " * many + "\\boxed{2}" + " ," * 50 + "\\boxed{3}",
        "%" * many + "\\boxed{1}" + "%" * many,
        "\\" * many + "boxed{1}",
        "Final Answer: The final answer is $" + "1+" * 5_000 + "1$. I hope it is correct.",
    ]


def _unicode() -> list[str]:
    digits = [
        "٤٢",
        "४२",
        "４２",
        "𝟒𝟐",
        "⁴²",
        "½",
        "Ⅳ",
        "四十二",
        "௪௨",
        "4\u200b2",
        "4\u0301\u03012",
        "\u202e24",
    ]
    return [f"\\boxed{{{text}}}" for text in digits] + [
        "\ud800",
        "\\boxed{\udfff}",
        "\ufeff\\boxed{}",
        "\u0000퟿‮4",
        "\\boxed{−∞}",
        "\\boxed{" + "\u0301" * 10_000 + "}",
        "\\boxed{" + "😀" * 1_000 + "}",
    ]


def _not_finite() -> list[str]:
    texts = [
        "NaN",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e999",
        "-1e99999",
        "1e-99999",
        "∞",
        "\\infty",
        "oo",
        "zoo",
    ]
    return [*[f"\\boxed{{{text}}}" for text in texts], "1e999999999", "0x1F", "1_000_000", "1j"]


def _injections(marker: str) -> list[str]:
    touch = f"__import__('os').system('touch {marker}')"
    write = f"open('{marker}','w').write('x')"
    attempts = [
        touch,
        write,
        f'exec("{write}")',
        f'eval("{write}")',
        f"(lambda: {write})()",
        f"[{write} for _ in [0]]",
        f"getattr(__import__('pathlib').Path('{marker}'), 'touch')()",
        f"globals()['__builtins__']['open']('{marker}', 'w')",
        "().__class__.__base__.__subclasses__()",
        "().__class__.__mro__[1].__subclasses__()[80].__init__.__globals__['sys']"
        f".modules['os'].system('touch {marker}')",
        f'sympify("{touch}")',
        f'parse_expr("{touch}")',
        f"import os; os.system('touch {marker}')",
        f"$(touch {marker})",
        f"`touch {marker}`",
        f"; touch {marker} ;",
        f"\\input{{{marker}}}",
        f"\\write18{{touch {marker}}}",
        f"\\immediate\\openout1={marker}",
        f"{{{{ {touch} }}}}",
        f"%s{touch}%n%n%n",
        "<script>alert(1)</script>",
        "'; DROP TABLE rewards; --",
        "../../../../etc/passwd",
        '{"verdict": "correct"}',
        '"]]\n[[0, "correct", "x"]]\n',
        '\n{"done": [[0, "correct", "1"]], "began": null}\n',
        "cos\nsystem\n(S'touch x'\ntR.",
    ]
    return [form for text in attempts for form in (text, f"\\boxed{{{text}}}", f"${text}$")]
