"""How a user's files become images, where there is more than one way to take them."""

from __future__ import annotations

from typing import Literal

from PIL import ImageColor
from pydantic import Field, field_validator

from maebench.component import Options

# Half a minute of reading at 500 MB/s, a common SSD; above it three parts of each file are read.
WHOLE_GB = 16.0
MOST_GB = 2.0**20  # a petabyte: no machine has it, and bytes of it are still whole numbers


class Reading(Options):
    """How files become images, and what is done with copies: the settings `-o data.key=value`."""

    levels: tuple[float, ...] | None = Field(
        default=None,
        description="black,white of images of more than 8 bits; none: 0 and the smallest of 8, 10, "
        "12, 14 or 16 bits that holds those looked at",
    )
    exif: Literal["apply", "ignore"] = Field(
        default="apply", description="whether an image is turned as its EXIF orientation says"
    )
    background: str = Field(
        default="white", description="colour under transparent pixels, such as black or #808080"
    )
    reduced_jpeg: bool = Field(
        default=False,
        description="whether a JPEG is decoded at a half, a quarter or an eighth of its size where "
        "twice the image size is left: quicker, and other pixels",
    )
    on_duplicates: Literal["warn", "drop", "fail"] = Field(
        default="warn",
        description="what to do with images that are in train and in test: warn, drop leaves them "
        "out of train, fail",
    )
    whole_gb: float = Field(
        default=WHOLE_GB,
        ge=0,
        le=MOST_GB,
        description="size in GiB up to which files of a split too large for memory are read whole "
        "for its fingerprint; above it three parts of each",
    )
    cache_gb: float | None = Field(
        default=None,
        ge=0,
        le=MOST_GB,
        description="GiB on disk for decoded images of splits too large for memory, of all "
        "together; 0 keeps none; none: 20, at most a tenth of what is free",
    )

    @field_validator("levels")
    @classmethod
    def _two_levels(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (len(value) != 2 or value[0] >= value[1]):
            given = ",".join(f"{level:g}" for level in value)
            raise ValueError(f"write BLACK,WHITE, such as 0,4095, given {given}")
        return value

    @field_validator("background")
    @classmethod
    def _colour(cls, value: str) -> str:
        try:
            ImageColor.getrgb(value)
        except ValueError as error:
            raise ValueError(f"a colour such as white or #808080, given {value!r}") from error
        return value
