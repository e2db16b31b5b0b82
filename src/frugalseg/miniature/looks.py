"""What objects of the VOC-like world look like: a big textured body with a small distinctive tip.

Twelve classes in three groups. Every *tail* class wears exactly the body of one *head* class and differs from it by the
tip only; that is the shared feature which a classifier trained on a long tail gives to the head. *Middle* classes
have bodies of their own.
"""

from dataclasses import dataclass
from typing import Final

# RGB in 0..255; far enough apart to stay different after the per-object jitter of `paint`.
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "orange": (230, 120, 20),
    "black": (25, 25, 30),
    "green": (40, 170, 60),
    "white": (235, 235, 225),
    "purple": (140, 50, 170),
    "yellow": (240, 215, 40),
    "red": (215, 35, 40),
    "blue": (40, 70, 215),
    "cyan": (30, 200, 210),
    "pink": (245, 120, 190),
    "brown": (110, 65, 30),
    "lime": (160, 230, 40),
    "teal": (10, 110, 110),
    "grey": (140, 140, 140),
}
TEXTURES: Final = ("solid", "stripe", "check", "dots", "rings")
SHAPES: Final = ("disc", "triangle", "square", "cross")


@dataclass(frozen=True)
class Surface:
    """A texture and its two colours; `solid` shows the first one only.

    Attributes:
        texture: One of `TEXTURES`.
        first: The ground colour, a key of `COLOURS`.
        second: The other colour.
    """

    texture: str
    first: str
    second: str

    @property
    def colours(self) -> tuple[str, ...]:
        """The colours that can be seen."""
        return (self.first,) if self.texture == "solid" else (self.first, self.second)


@dataclass(frozen=True)
class Look:
    """The whole appearance of an object, apart from where it lies.

    Attributes:
        body: Surface of the big part.
        shape: Outline of the tip, one of `SHAPES`.
        tip: Surface of the tip.
    """

    body: Surface
    shape: str
    tip: Surface

    @property
    def name(self) -> str:
        """A class name that says what to look for; valid as an XML name and as a file name."""
        return f"{self.body.first}-{self.body.texture}_{self.tip.first}-{self.shape}"


def _solid(colour: str) -> Surface:
    return Surface("solid", colour, colour)


_TIGER: Final = Surface("stripe", "orange", "black")
_CHESS: Final = Surface("check", "green", "white")
_SPOTS: Final = Surface("dots", "purple", "yellow")
_TARGET: Final = Surface("rings", "blue", "white")

HEAD: Final = (
    Look(_TIGER, "disc", _solid("red")),
    Look(_CHESS, "triangle", _solid("blue")),
    Look(_SPOTS, "cross", _solid("cyan")),
    Look(_TARGET, "square", _solid("yellow")),
)
MIDDLE: Final = (
    Look(Surface("stripe", "cyan", "blue"), "disc", Surface("check", "black", "white")),
    Look(Surface("check", "pink", "brown"), "triangle", _solid("black")),
    Look(Surface("dots", "teal", "lime"), "square", _solid("orange")),
    Look(Surface("rings", "red", "yellow"), "cross", _solid("green")),
)
TAIL: Final = (
    Look(_TIGER, "triangle", _solid("cyan")),
    Look(_CHESS, "square", _solid("pink")),
    Look(_SPOTS, "disc", _solid("white")),
    Look(_TARGET, "cross", _solid("orange")),
)
LOOKS: Final = HEAD + MIDDLE + TAIL
CLASS_NAMES: Final = ("background", *(look.name for look in LOOKS))
# (head, tail) with the same body, as class ids: 0 is background.
PAIRS: Final = tuple((head + 1, head + 1 + len(HEAD) + len(MIDDLE)) for head in range(len(HEAD)))
