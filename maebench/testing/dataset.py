"""Whether a data set gives honest splits: what is in them, how they are marked, and what suits.

How a loaded split is cut and cropped is not asked here: load() gives one of maebench's own two
kinds, which its tests check.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from maebench.config.run import RunConfig
from maebench.data.dataset import Dataset, Request
from maebench.data.images import Images, InMemory
from maebench.data.on_disk import OnDisk
from maebench.data.rows import Rows
from maebench.data.split_info import SplitInfo
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.errors import ConfigError, DataError
from maebench.plugins import installed
from maebench.rng import isolated
from maebench.testing.contract import Broken, Contract, NotChecked, expect, global_state, same

SPLITS = ("train", "test")
REPEATED = 0.01  # published sets hold some images twice; a split that leaks holds far more
LOOKED_AT = 2**26  # bytes of a split's pixels, evenly chosen: about a second, however large it is
# what a preset may give; the last two of images alone
SETTINGS = (
    *("encoder", "objective", "masking", "ratio", "budget", "batch", "lr"),
    *("image_size", "augment"),
)


class DatasetContract(Contract):
    """Checks of a data set, made on its splits train and test.

    `request` gives what of a Request loading needs, such as data_dir; a split whose files are not
    there is not checked. `repeated` is the share of test images that may also be in train.
    """

    kind = "dataset"
    request: ClassVar[Mapping[str, Any]] = {}
    repeated: ClassVar[float] = REPEATED

    def load(self, split: str, dataset: Dataset | None = None, **how: Any) -> Images:
        """A split, loaded anew.

        Raises:
            NotChecked: its files are not there.
        """
        made = dataset or self.made()
        try:
            images: Images = made.load(Request(split, **{**self.request, **how}))
        except DataError as error:
            raise NotChecked(
                f"{split} cannot be loaded here: {error} (request = {{'data_dir': ...}} in the "
                "test class says where files are)"
            ) from error
        expect(
            isinstance(images, InMemory | OnDisk | Rows),
            f"load() of {split} gives a {type(images).__name__}: return what maebench.from_arrays, "
            "from_files or from_rows gives",
        )
        gives, found = made.gives, images.info.inputs.kind
        expect(gives == found, f"its `gives` is {gives!r}, and {split} holds {found}")
        expect(len(images) > 0, f"{split} holds no image")
        return images

    def images(self, split: str) -> Images:
        """A split, loaded once for all checks."""
        return self.kept((split, repr(self.request)), lambda: self.load(split))

    def images_only(self) -> None:
        """Ends a check that is of images alone.

        Raises:
            NotChecked: it gives none.
        """
        if (gives := self.made().gives) != IMAGES:
            raise NotChecked(f"it gives {gives}, and no images")

    def labels(self, split: str) -> Tensor:
        """The labels of a split.

        Raises:
            NotChecked: it has none.
        """
        labels = self.images(split).info.labels
        if labels is None:
            raise NotChecked("it has no labels")
        return labels

    # ---- what is in a split

    def test_pixels_are_bytes_of_the_size_that_info_states(self) -> None:
        """Everything behind it reckons with uint8 (B, C, H, W) in 0..255."""
        self.images_only()
        for split in SPLITS:
            images = self.images(split)
            wanted = (images.info.channels, *images.info.size)
            pixels = looked_at(images)
            got = f"{str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}"
            expect(
                pixels.dtype == torch.uint8 and tuple(pixels.shape[1:]) == wanted,
                f"images of {split} are {got}; info says uint8 (B, {', '.join(map(str, wanted))}) "
                "as (B, channels, rows, columns)",
            )
            brightest = int(pixels.max())
            expect(
                brightest > 1,
                f"the brightest pixel of {split} is {brightest}: pixels go from 0 to 255, "
                "multiply those in 0..1 before they become bytes",
            )

    def test_every_image_has_an_id_of_its_own(self) -> None:
        """Crops, masks and held-out sets are drawn by id: two images with one would share them."""
        for split in SPLITS:
            images = self.images(split)
            ids = images.info.ids
            _expect_one_each("ids", split, ids, images)
            num = len(ids.unique())
            expect(num == len(ids), f"{len(ids)} images of {split} have only {num} different ids")

    def test_every_label_names_a_class(self) -> None:
        """Labels are positions in class_names; another number would be another class, or none."""
        for split in SPLITS:
            images = self.images(split)
            labels, names = images.info.labels, images.info.class_names
            if labels is None:
                few = f"{split} has no labels but {len(names)} class names: labels, or none of both"
                expect(not names, few)
                continue
            _expect_one_each("labels", split, labels, images)
            low, high = int(labels.min()), int(labels.max())
            expect(
                0 <= low and high < len(names),
                f"labels of {split} go from {low} to {high}, class_names has {len(names)}: "
                f"0 to {len(names) - 1} are wanted",
            )
            texts = {name for name in names if isinstance(name, str) and name.strip()}
            expect(
                isinstance(names, tuple) and len(texts) == len(names),
                f"class_names of {split} must be a tuple of different texts, got {names!r}",
            )
        self.labels("train")

    def test_every_class_of_test_is_learned_in_train(self) -> None:
        """A class that train never shows can only be missed, whatever the encoder learned."""
        seen, asked = (self.labels(split).unique().tolist() for split in SPLITS)
        expect(
            len(seen) > 1,
            f"all labels of train are {seen[0]}: one class separates nothing, give labels=None",
        )
        names = self.images("test").info.class_names
        missing = [names[i] for i in asked if i not in seen]
        expect(not missing, f"test has images of {', '.join(missing[:5])}, train has none")

    # ---- train and test

    def test_train_and_test_speak_of_the_same_things(self) -> None:
        """An encoder and its classes are made for train and used on test."""
        train, test = (self.images(split).info for split in SPLITS)
        for what in ("inputs", "class_names"):
            mine, theirs = getattr(train, what), getattr(test, what)
            expect(mine == theirs, f"{what} of train is {mine!r}, of test {theirs!r}")
        labelled = [info.labels is not None for info in (train, test)]
        expect(labelled[0] == labelled[1], f"labels in train, test: {labelled}; both or none")

    def test_train_and_test_share_no_image(self) -> None:
        """What was seen in training says nothing about what was not: every number would flatter."""
        train, test = (self.images(split) for split in SPLITS)
        expect(train is not test, "load() gives one and the same object for train and for test")
        known = {mark: i for i, mark in enumerate(_bytes_of(looked_at(train)))}
        marks = _bytes_of(looked_at(test))
        twice = [(i, known[mark]) for i, mark in enumerate(marks) if mark in known]
        share = len(twice) / len(marks)
        if share > self.repeated:
            i, j = (chosen(each)[k] for each, k in zip((test, train), twice[0], strict=True))
            raise Broken(
                f"{len(twice)} of {len(marks)} test images are in train too, byte for "
                f"byte (image {i} of test is image {j} of train); {self.repeated:.1%} may be. "
                "Split so that they are apart; where the published set is so, set "
                f"repeated = {share:.2g} and say why beside it"
            )

    # ---- again, smaller, larger

    def test_loading_twice_gives_the_same(self) -> None:
        """A run goes on, and is compared, with the images that it began with."""
        for split in SPLITS:
            found = []
            for state in range(2):  # another global state must not be another split
                with isolated(state, "load"):
                    found.append(self.load(split))
            _expect_same(f"{split}, loaded twice", *found)

    def test_the_fingerprint_changes_with_the_content(self) -> None:
        """It alone separates runs and cached features of one content from those of another."""
        marks = {}
        for split in SPLITS:
            images = self.images(split)
            mark = images.info.fingerprint
            expect(
                isinstance(mark, str) and mark.strip(),
                f"the fingerprint of {split} is {mark!r}: text is wanted, that stands for pixels, "
                "labels and ids",
            )
            marks[split] = mark
            for what, start in (("every other image", 0), ("the others", 1)):
                index = torch.arange(start, len(images), 2)
                if len(images) > 1:
                    marks[f"{what} of {split}"] = images.subset(index).info.fingerprint
            if images.info.inputs.kind == IMAGES:
                larger = self.load(split, image_size=other_size(images.info))
                marks[f"{split} in another size"] = larger.info.fingerprint
        for (one, mark), (other, again) in itertools.combinations(marks.items(), 2):
            expect(mark != again, f"{one} and {other} have one fingerprint, {mark}")

    def test_images_come_in_the_size_that_is_asked_for(self) -> None:
        """--image-size speaks of rows and columns, and changes neither labels nor ids."""
        self.images_only()
        for split in SPLITS:
            images = self.images(split)
            size = other_size(images.info)
            other = self.load(split, image_size=size)
            got, stated = tuple(looked_at(other).shape[2:]), other.info.size
            expect(
                got == stated == size,
                f"{split} was asked for in {size} as (rows, columns): images are {got}, "
                f"info.size is {stated}",
            )
            kept = all(same(getattr(images.info, k), getattr(other.info, k)) for k in KEPT)
            expect(kept, f"{split} has other ids or labels in another size")
            own = self.load(split, image_size=images.info.size)
            _expect_same(f"{split}, and when asked for in its own size,", images, own)

    # ---- beside the images

    def test_the_global_random_state_is_left_as_it_was(self) -> None:
        """Whoever loads images must not change the weights that another part draws."""
        with isolated(0, "dataset"):
            before = global_state()
            for split in SPLITS:
                self.load(split)
            expect(
                before == global_state(),
                "loading changed the global random state of Python, numpy or torch: "
                "draw from maebench.Draws, or inside maebench.rng.isolated",
            )

    def test_the_preset_makes_a_run(self) -> None:
        """`maebench run --dataset NAME` takes from it all that no flag says."""
        made = self.made()
        try:
            preset, again = made.preset(), made.preset()
        except DataError as error:
            raise NotChecked(f"the preset needs the files: {error}") from error
        expect(isinstance(preset, dict), f"preset() must give a dict, got {preset!r}")
        expect(preset == again, f"preset() gives {preset}, and the next time {again}")
        other = sorted(set(preset) - set(SETTINGS))
        expect(not other, f"preset() gives {', '.join(other)}; it may give {', '.join(SETTINGS)}")
        sized = "image_size" in preset or made.gives != IMAGES
        expect(sized, "preset() gives no image_size, which no one else can know")
        try:
            config = RunConfig(installed(), dataset=made)
            with isolated(0, "encoder"):
                if made.gives == IMAGES:
                    config.encoder.build(Inputs.of_images(3, config.size))
                else:
                    config.encoder.build(self.images("train").info.inputs)
        except ConfigError as error:
            raise Broken(f"preset() gives {preset}, which makes no run: {error}") from error

    def test_images_come_in_the_size_of_the_preset(self) -> None:
        """What the preset chose, the images are brought to."""
        self.images_only()
        try:
            size = RunConfig(installed(), dataset=self.made()).size
        except (ConfigError, DataError) as error:
            raise NotChecked(f"the preset makes no run: {error}") from error
        got = tuple(looked_at(self.load("test", image_size=size)).shape[2:])
        expect(got == size, f"the preset asks for {size}, images of test come in {got}")

    def test_notes_are_lines_of_text(self) -> None:
        """They are printed before a run, one line each."""
        try:
            notes = self.made().notes()
        except DataError as error:
            raise NotChecked(f"the notes need the files: {error}") from error
        lines = isinstance(notes, list) and all(
            isinstance(note, str) and note.strip() and len(note.splitlines()) == 1 for note in notes
        )
        expect(lines, f"notes() must give a list of single lines of text, got {notes!r}")

    def test_missing_files_are_a_data_error_and_nothing_is_written_unasked(self) -> None:
        """A user reads which file is missing and where, and no download begins by itself."""
        made, missed = self.made(), False
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for place, split in itertools.product((folder, folder / "none", None), SPLITS):
                try:
                    made.load(Request(split, **{**self.request, "data_dir": place}))
                except DataError as error:
                    missed, message = True, str(error)
                    one_line = message.strip() and "\n" not in message
                    wanted = "the message about missing files must be one line, got"
                    expect(one_line, f"{wanted} {message!r}")
                except Exception as error:
                    raise Broken(
                        f"without files, {split} from data_dir={place} ends with "
                        f"{type(error).__name__}: {error}; raise DataError with what is missing, "
                        "where, and what to do"
                    ) from error
            left = sorted(path.name for path in folder.rglob("*"))
            expect(not left, f"load() wrote {', '.join(left[:3])} though download was False")
        if not missed:
            raise NotChecked("it loads without any file of --data-dir")

    # ---- options

    def test_every_option_matters(self) -> None:
        """An option that is never read promises what it does not do."""
        known: dict[str, tuple[str, Any]] = {}  # by fingerprint

        def outcomes(dataset: Dataset) -> Iterator[tuple[str, Any]]:
            yield "preset", dataset.preset()
            for split in SPLITS:
                images = self.load(split, dataset)
                content, mark = contents(images), images.info.fingerprint
                whose, before = known.setdefault(mark, (dataset.changed(), content))
                expect(
                    same(before, content),
                    f"{dataset.changed()} gives other images or labels of {split} than {whose}, "
                    "with the same fingerprint",
                )
                groups = images.info.groups
                yield split, (mark, None if groups is None else groups.tolist())

        self.check_options(outcomes, "neither images nor labels nor groups nor the preset")


KEPT = ("ids", "labels")  # of an image, in whatever size it comes


def chosen(images: Images) -> list[int]:
    """Positions of the images that are looked at: all of them, or evenly chosen ones."""
    info = images.info
    most = max(1, LOOKED_AT // (info.inputs.numbers * info.inputs.dtype.itemsize))
    return list(range(0, len(images), -(-len(images) // most)))


def looked_at(images: Images) -> Tensor:
    """The images that are looked at."""
    return images.pick(chosen(images))


def contents(images: Images) -> dict[str, Any]:
    """What a split holds, to compare; pixels last."""
    names = (*KEPT, "class_names", "inputs")
    return {**{name: getattr(images.info, name) for name in names}, "pixels": looked_at(images)}


def other_size(info: SplitInfo) -> tuple[int, int]:
    """A size that is not the split's own and not square, so that rows are no columns."""
    return (info.size[0] + 2, info.size[1] + 5)


def _bytes_of(pixels: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in pixels.contiguous()]


def _expect_one_each(what: str, split: str, values: Tensor, images: Images) -> None:
    count = len(images)
    expect(
        values.dtype == torch.int64 and values.shape == (count,),
        f"{what} of {split} are {values.dtype} {tuple(values.shape)}; "
        f"int64 ({count},) is wanted, one for each image",
    )


def _expect_same(what: str, one: Images, other: Images) -> None:
    mine, theirs = contents(one), contents(other)
    for name, value in mine.items():
        expect(same(value, theirs[name]), f"{what} has other {name}")
    marks = [images.info.fingerprint for images in (one, other)]
    expect(marks[0] == marks[1], f"{what} has fingerprints {marks[0]!r} and {marks[1]!r}")
