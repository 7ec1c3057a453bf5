"""Random build files: programs whose values share parts and grow, and files of this workspace with faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "<<", ">>", "|", "&", "^", "@"]
COMPARISONS = ["==", "!=", "<", "<=", ">", ">=", "in", "not in", "is"]
NAMES = ["a", "b", "c", "d", "e"]
CONSTANTS = (  # noqa: SIM905 - as lists of words these are long
    "0|1|-1|7|64|1000|10 ** 9|1 << 30|1 << 1000|2 ** 61 - 1|0.5|1e300|None|True|''|'a'|'ab,c'|'%s'|'%(a)s'|'%9999d'|'\\t'|'\\ud800'"
    "|'\\0'|'ä' * 1000|[]|{}|()"
).split("|")
METHODS = (  # noqa: SIM905
    "append extend insert pop remove clear sort reverse update setdefault popitem copy index count get keys values items fromkeys "
    "isdisjoint join split rsplit splitlines replace upper title casefold find rfind strip expandtabs center ljust zfill partition "
    "startswith removeprefix isalpha bit_length real format encode mapping below nothing"
).split()
FUNCTIONS = (  # noqa: SIM905
    "abs all any bool dict divmod enumerate filter int isinstance len list map max min range reversed round sorted str sum tuple "
    "zip thing glob load f g open"
).split()
TYPES = ["str", "list", "dict", "int", "tuple"]


class Writer:
    """Writes one random program. What it writes is shallow; loops and names make it large when it runs."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def program(self) -> str:
        """A build file."""
        lines = [
            "from bkrules import glob, load, thing",
            "a = [1, 2]",
            "b = {'x': a}",
            "c = 'text'",
            "d = (1, 'a')",
            "e = 3",
        ]
        for _ in range(self._random.randint(1, 5)):
            lines += self._statement(2)
        return "\n".join(lines) + "\n"

    def _one(self, *ways: Callable[[], str]) -> str:
        return self._random.choice(ways)()

    def _pick(self, words: Sequence[str]) -> str:
        return self._random.choice(words)

    def _name(self) -> str:
        return self._pick(NAMES)

    def _value(self, depth: int) -> str:
        if depth <= 0 or self._random.random() < 0.25:
            return self._name() if self._random.random() < 0.7 else self._pick(CONSTANTS)
        one = depth - 1
        value = self._value
        return self._one(
            lambda: f"({value(one)} {self._pick(OPERATORS)} {value(one)})",
            lambda: f"({value(one)} {self._pick(COMPARISONS)} {value(one)})",
            lambda: f"({value(one)} {self._pick(COMPARISONS)} {value(one)} {self._pick(COMPARISONS)} {value(one)})",
            lambda: f"[{value(one)}, {value(one)}, *{value(one)}]",
            lambda: f"({value(one)}, {value(one)})",
            lambda: f"{{{value(one)}: {value(one)}, **{value(one)}}}",
            lambda: f"({value(one)})[{value(one)}]",
            lambda: f"({value(one)})[{value(one)}:{value(one)}]",
            lambda: f"({value(one)}).{self._pick(METHODS)}({self._arguments(one)})",
            lambda: f"{self._pick(TYPES)}.{self._pick(METHODS)}({self._arguments(one)})",
            lambda: f"{self._pick(FUNCTIONS)}({self._arguments(one)})",
            lambda: f"[{value(one)} for {self._name()} in {value(one)}]",
            lambda: f"[{value(one)} for {self._name()}, *{self._name()} in {value(one)} if {value(one)}]",
            lambda: (
                f"{{{value(one)}: {value(one)} for {self._name()} in range({self._pick(['3', '1000', '10 ** 6'])})}}"
            ),
            lambda: self._text(value(one)),
            lambda: f"(lambda {self._name()} = {value(one)}, *b, **c: {value(one)})",
            lambda: f"sorted({value(one)}, key = lambda a: {value(one)})",
            lambda: f"({value(one)} if {value(one)} else {value(one)})",
        )

    def _text(self, value: str) -> str:
        if not {"'", '"', "\\", "{"}.isdisjoint(value):
            return f"str({value})"
        return f"f'{{{value}!{self._pick('rsa')}:{self._pick(['', '>9999', '>99999', '{e}'])}}}'"

    def _arguments(self, depth: int) -> str:
        value, count = self._value, self._random.choice
        words = [value(depth) for _ in range(count([0, 1, 1, 2]))]
        words += [f"*{value(depth)}"] if count([0, 0, 0, 1]) else []
        words += [f"{self._pick(['key', 'name', 'words', 'a'])} = {value(depth)}"] if count([0, 0, 0, 1]) else []
        words += [f"**{value(depth)}"] if count([0, 0, 0, 0, 0, 1]) else []
        return ", ".join(words)

    def _statement(self, depth: int) -> list[str]:
        random, value, name = self._random, self._value, self._name
        kind = random.randrange(12)
        if kind == 0:  # values that double
            growth = self._pick(["(a, a)", "[a, b]", "{0: a, 1: a}", "a + a", "c + c", value(1)])
            return [f"for e in range({random.choice([3, 30, 60, 1000])}):", f"  {name()} = {growth}"]
        if kind == 1 and depth:
            return [f"for {name()} in {value(1)}:", *self._block(depth)]
        if kind == 2 and depth:
            return [f"for {name()} in range({self._pick(['3', '1000', '1000000'])}):", *self._block(depth)]
        if kind == 3 and depth:
            head = f"def {self._pick(['f', 'g'])}(a = {value(1)}, *b, **c):"
            return [head, *self._block(depth), f"  return {value(1)}"]
        if kind == 4 and depth:
            return [f"if {value(2)}:", *self._block(depth), "else:", *self._block(depth)]
        if kind == 5:
            return [f"{name()} {self._pick(OPERATORS)}= {value(2)}"]
        if kind == 6:
            return [f"{name()}[{value(1)}] = {value(2)}"]
        if kind == 7:
            return [f"{name()}[{value(1)}] {self._pick(OPERATORS)}= {value(1)}"]
        if kind == 8:
            return [f"{name()}, *{name()} = {value(2)}"]
        if kind == 9:
            return [f"thing(name = 't%s' % {value(1)}, words = {value(1)}, table = {value(1)})"]
        return [f"{name()} = {value(3)}"]

    def _block(self, depth: int) -> list[str]:
        return [f"  {line}" for _ in range(self._random.randint(1, 3)) for line in self._statement(depth - 1)]


def mutated(data: bytes, random: Random) -> bytes:
    """The bytes with a few faults in them."""
    found = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(found) + 1)
        upto = min(len(found), at + random.randrange(30))
        kind = random.randrange(6)
        if kind == 0:
            found[at:at] = bytes([random.randrange(256)])
        elif kind == 1:
            del found[at:upto]
        elif kind == 2:
            found[at:at] = found[at:upto] * random.choice([1, 2, 50])
        elif kind == 3 and at < len(found):
            found[at] ^= 1 << random.randrange(8)
        elif kind == 4:
            words = [
                b"(",
                b"[",
                b"{",
                b"*",
                b"**",
                b"lambda:",
                b"f'{",
                b"\\",
                b"\n",
                b"\t",
                b"\0",
                b"\xef\xbb\xbf",
                b"for a in b",
                b"0x",
                b"1e9",
            ]
            found[at:at] = random.choice(words) * random.choice([1, 3, 100])
        else:
            other = random.randrange(len(found) + 1)
            found[at:upto] = found[other : other + 40]
    return bytes(found)
