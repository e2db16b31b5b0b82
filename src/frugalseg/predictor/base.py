"""What every predictor answers, and the images that it takes."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, NoReturn, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frugalseg.data.io import read_image
from frugalseg.errors import CheckpointError, ImageError
from frugalseg.ops.palette import voc_palette

Picture = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""One image: a file, a Pillow image, or an array (H, W, 3) uint8 RGB."""
Many = list[Any] | tuple[Any, ...]
"""Several `Picture`s, of any sizes."""


class Predictor:
    """A trained net that answers for images.

    Each kind of net overrides what it can do; the rest refuses in one line that says what it can do instead.

    Attributes:
        kind: `segmenter`, `seeds`, `few-shot` or `features`.
        class_names: by class id, the background's first where there is one; empty where nothing is known of them.
        palette: (256, 3) uint8, colour of each class id.

    Args:
        path: where it came from, for messages.
        able: what it can do, for messages.
        class_names: by class id.
        palette: (256, 3) uint8; None for VOC's.
    """

    kind: ClassVar[str] = "features"

    def __init__(
        self, path: Path, able: str, class_names: Sequence[str] = (), palette: NDArray[np.uint8] | None = None
    ) -> None:
        self.path, self.able = path, able
        self.class_names: tuple[str, ...] = tuple(class_names)
        self.palette: NDArray[np.uint8] = voc_palette() if palette is None else palette

    def __call__(
        self,
        image: Picture,
        tags: Sequence[str | int] | None = None,
        supports: Sequence[tuple[Picture, Any]] | None = None,
    ) -> NDArray[np.uint8]:
        """The mask of an image at its own size.

        Args:
            image: a path, Pillow image or array (H, W, 3) uint8.
            tags: which classes the image shows, by name or class id; for nets of kind `seeds` alone, which guess them
                where this is None.
            supports: images with masks that show what is sought; for nets of kind `few-shot` alone, and needed there.

        Returns:
            (H, W) class ids; of kind `few-shot` 1 for what is sought and 0 for the rest.

        Raises:
            ImageError: the image is missing, damaged, or of another shape or type.
            ConfigError: tags or supports that this kind of net does not take, or has no such class.
            CheckpointError: the net gives no masks.
        """
        self._cannot("masks")

    def maps(self, image: Picture, tags: Sequence[str | int] | None = None) -> dict[int, NDArray[np.float32]]:
        """Class maps of an image at its own size; of kind `seeds` alone.

        Args:
            image: as of a call.
            tags: as of a call.

        Returns:
            Class id -> (H, W): the background's at 0, and one for each tag. The mask is where each is largest.

        Raises:
            ImageError: as of a call.
            ConfigError: no such class.
            CheckpointError: the net gives none.
        """
        self._cannot("class maps")

    @overload
    def features(self, image: Picture) -> Tensor: ...
    @overload
    def features(self, image: Many) -> list[Tensor]: ...
    def features(self, image: Picture | Many) -> Tensor | list[Tensor]:
        """Dense features on the image's own grid.

        The image is normalised, not resized. Zeros (the mean colour) are added to its right and below up to the sides
        that the net takes; cells all of whose pixels are such zeros are cut off. So cell (i, j) is of the pixels
        i * s <= y < (i + 1) * s, j * s <= x < (j + 1) * s for a stride s; the last row and column may have fewer of
        them in the image. Attention reaches the zeros too: for features of nothing but the image give it sides that are
        multiples of the predictor's `multiple`.

        Args:
            image: a path, Pillow image or array (H, W, 3) uint8; or a list of them, of any sizes, which run one by one:
                an answer does not depend on what else is asked.

        Returns:
            (D, ceil(H / s), ceil(W / s)) float32 in main memory; a list for a list.

        Raises:
            ImageError: an image is missing, damaged, or of another shape or type.
            CheckpointError: the net gives none.
        """
        return self._each(image, self._features)

    @overload
    def token(self, image: Picture) -> Tensor: ...
    @overload
    def token(self, image: Many) -> list[Tensor]: ...
    def token(self, image: Picture | Many) -> Tensor | list[Tensor]:
        """One vector of a whole image, padded as for `features`.

        Args:
            image: as of `features`.

        Returns:
            (C,) float32 in main memory; a list for a list.

        Raises:
            ImageError: as of `features`.
            CheckpointError: the net gives none.
        """
        return self._each(image, self._token)

    def _each(self, image: Any, answer: Callable[[NDArray[np.uint8]], Tensor]) -> Tensor | list[Tensor]:
        if not isinstance(image, list | tuple):
            return answer(pixels_of(image))
        return [answer(pixels_of(each, f"image {k} of {len(image)}")) for k, each in enumerate(image, start=1)]

    def _features(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Dense features of (H, W, 3) RGB; kinds of nets that have them say how."""
        self._cannot("dense features")

    def _token(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The token of (H, W, 3) RGB; kinds of nets that have one say how."""
        self._cannot("token")

    def _cannot(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: gives no {what}, but {self.able}; load a checkpoint of a task that does")


def pixels_of(image: object, place: str = "the image") -> NDArray[np.uint8]:
    """RGB of one image.

    Args:
        image: a `Picture`. Files and Pillow images of other modes are converted; EXIF rotation is not applied.
        place: what to call it in messages.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: a file is missing or damaged, an array has another shape or type, or nothing is in it.
    """
    if isinstance(image, str | PathLike):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{place} is of type {type(image).__name__}; give a path, a Pillow image, or a uint8 array (H, W, 3)"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        shape = "x".join(map(str, image.shape))
        raise ImageError(f"{place} is an array of {shape} {image.dtype}; give (H, W, 3) uint8, RGB, with pixels in it")
    return image
