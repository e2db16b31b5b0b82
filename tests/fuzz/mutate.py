"""Damage: to bytes, to text, and to nested values; everything follows from the given generator."""

import copy
import struct
from random import Random
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    -128,
    32767,
    65535,
    65536,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**63 - 1,
    -(2**63),
    2**64,
)
TEXTS = (
    "", " ", "\0", "\n", "\r", "a\nb", "\t", "-", "--", "../../x", "/etc/passwd", "C:\\x", "~", ".", "..", "%s%n", "{}", "[", "]",
    "{", "}", ",", ":", "#", "&a", "*a", "<<", "!", "|", ">", "'", '"', "`", "<script>alert(1)</script>", "javascript:1", "None",
    "null", "true", "nan", "NaN", "inf", "-inf", "1e999", "1e-999", "0x10", "-1", "99999999999999999999999", "9" * 5000, "1_0",
    "½", "٣", "\u202e", "\ufeff", "\ud800", "\x1b[31m", "é", "e\u0301", "．．/x", "a" * 300, "a" * 5000, "__class__", "os.system",
    "!!python/object:os.system", "2026-13-45", "=", "?", "- ", "|---|", "</script>", "0:0", "1:2:3",
)  # fmt: skip
VALUES = (
    None,
    True,
    False,
    *NUMBERS,
    0.5,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    *TEXTS[:40],
    [],
    {},
    [[]],
    [None],
    {"": 1},
    [1] * 50,
)


def damaged(data: bytes, rng: Random) -> bytes:
    """One to four faults in bytes."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _FAULTS[rng.randrange(len(_FAULTS))](found, rng)
    return bytes(found)


def _place(data: bytearray, rng: Random) -> int:
    # headers, at either end, are where it hurts
    width = rng.choice((32, 128, len(data) + 1))
    place = rng.randrange(max(1, min(width, len(data) + 1)))
    return place if rng.random() < 0.7 else max(0, len(data) - 1 - place)


def _flip(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 3, 20))):
        if data:
            data[min(_place(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: Random) -> None:
    form, number = rng.choice((("<B", 8), ("<H", 16), (">H", 16), ("<I", 32), (">I", 32), ("<Q", 64), (">Q", 64)))
    value = struct.pack(form, rng.choice(NUMBERS) % (1 << number))
    place = _place(data, rng)
    data[place : place + len(value)] = value


def _cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _behead(data: bytearray, rng: Random) -> None:
    del data[: rng.choice((1, 2, 8, rng.randrange(len(data) + 1)))]


def _drop(data: bytearray, rng: Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 4, 16, 200))]


def _insert(data: bytearray, rng: Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.choice(
        (rng.randbytes(rng.choice((1, 4, 64))), bytes(rng.choice((1, 16, 4096))), b"\xff" * 8)
    )


def _repeat(data: bytearray, rng: Random) -> None:
    start, length = _place(data, rng), rng.choice((1, 4, 16, 64, 512))
    piece = bytes(data[start : start + length])
    place = _place(data, rng)
    data[place:place] = piece * rng.choice((1, 2, 20))


def _zero(data: bytearray, rng: Random) -> None:
    place, length = _place(data, rng), rng.choice((1, 4, 16, 256))
    length = min(length, len(data) - place)
    data[place : place + length] = bytes(max(0, length))


def _replace(data: bytearray, rng: Random) -> None:
    data[:] = rng.choice(
        (b"", b"\0", rng.randbytes(rng.choice((1, 10, 1000))), b"\xff" * 100, b"GIF89a", b"PK\x03\x04")
    )


_FAULTS = (_flip, _flip, _flip, _overwrite, _overwrite, _cut, _behead, _drop, _insert, _repeat, _zero, _replace)


def damaged_text(text: str, rng: Random) -> bytes:
    """Faults in lines and words of a text, and now and then in its bytes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        place = rng.randrange(len(lines))
        fault = rng.randrange(8)
        if fault == 0:
            del lines[place]
        elif fault == 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[place])
        elif fault == 2:
            lines.insert(place, rng.choice(TEXTS))
        elif fault == 3:
            lines[place] = (
                rng.choice(("", " ", "  ", "\t", "- ")) + lines[place].strip() + rng.choice(("", ":", ",", " #"))
            )
        elif fault == 4:
            cut = rng.randrange(len(lines[place]) + 1)
            lines[place] = lines[place][:cut] + rng.choice(TEXTS) + lines[place][cut:]
        elif fault == 5:
            words = lines[place].split(rng.choice((" ", ",", ":", "_", "/")))
            words[rng.randrange(len(words))] = rng.choice((*TEXTS, *map(str, NUMBERS)))
            lines[place] = rng.choice((" ", ",", ": ", "_", "/")).join(words)
        elif fault == 6:
            lines = lines[: place + 1]
        else:
            rng.shuffle(lines)
        text = "\n".join(lines) or "\n"
    data = text.encode(rng.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig")), "surrogatepass")
    return damaged(data, rng) if rng.random() < 0.2 else data


def damaged_value(value: Any, rng: Random) -> Any:
    """A copy of nested lists and dictionaries with one to three places changed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        fault = rng.randrange(6)
        if fault == 0:
            del holder[key]
        elif fault == 1 and isinstance(holder, dict):
            holder[rng.choice((*TEXTS, f"{key}x", str(key)[:-1]))] = holder.pop(key)
        elif fault == 2:
            holder[key] = copy.deepcopy(rng.choice(places)[0]) if rng.random() < 0.5 else [holder[key]]
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return rng.choice(VALUES) if rng.random() < 0.02 else value


def _places(value: Any) -> Any:
    """(holder, key) of everything inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(inner):
        yield value, key
        yield from _places(child)
