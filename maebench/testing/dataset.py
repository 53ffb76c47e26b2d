"""Whether a data set gives honest splits: what is in them, and how it is cut, shown and preset."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import torch

from maebench.config.run import RunConfig
from maebench.data.augment import Augment
from maebench.data.dataset import Dataset, Request
from maebench.errors import ConfigError, DataError
from maebench.plugins import installed
from maebench.rng import isolated
from maebench.testing.contract import Broken, NotChecked, expect, global_state
from maebench.testing.dataset_content import SPLITS, ContentChecks
from maebench.testing.splits import cropped, crops, equal, few, looked_at, same_crops

SETTINGS = ("image_size", "encoder", "budget", "batch", "lr", "augment")  # what a preset may give


class DatasetContract(ContentChecks):
    """Checks of a data set, made on its splits train and test.

    `request` gives what of a Request loading needs, such as data_dir; a split whose files are not
    there is not checked. `repeated` is the share of test images that may also be in train.
    """

    def test_whole_and_pick_give_the_same_images_in_the_same_order(self) -> None:
        """Features are made by one and pictures by the other, and both are matched with labels."""
        for split in SPLITS:
            images = self.images(split)
            count = few(images)
            wanted = images.pick(range(count))
            for batch in (3, count + 1):
                parts, there = [], 0
                for got in images.whole(batch):
                    expect(len(got) <= batch, f"whole({batch}) of {split} gave {len(got)} at once")
                    parts.append(got)
                    there += len(got)
                    if count < len(images) and there >= count:
                        break
                expect(
                    there == count or (there > count and count < len(images)),
                    f"whole({batch}) of {split} gave {there} images, len() is {len(images)}",
                )
                expect(
                    torch.equal(torch.cat(parts)[:count], wanted),
                    f"whole({batch}) of {split} gives other images, or another order, than pick()",
                )
            index = [count - 1, 0, count // 2, 0]
            expect(
                torch.equal(images.pick(index), wanted[index]),
                f"pick({index}) of {split} does not give these images in this order",
            )

    def test_a_subset_keeps_the_ids_and_labels_of_its_images(self) -> None:
        """--limit takes a subset: an image must stay what it was, with its own crops."""
        for split in SPLITS:
            images = self.images(split)
            index = torch.tensor(list(dict.fromkeys([len(images) - 1, 0, len(images) // 2])))
            before = (len(images), images.info.fingerprint, images.info.ids.tolist())
            less = images.subset(index)
            where = f"subset({index.tolist()}) of {split}"
            expect(len(less) == len(index), f"{where} has {len(less)} images")
            for what in ("ids", "labels"):
                mine, theirs = getattr(less.info, what), getattr(images.info, what)
                wanted = None if theirs is None else theirs[index]
                expect(equal(mine, wanted), f"{where} has {what} {mine}; {wanted} are wanted")
            for what in ("class_names", "size", "channels"):
                mine, theirs = getattr(less.info, what), getattr(images.info, what)
                expect(mine == theirs, f"{where} has {what} {mine!r} instead of {theirs!r}")
            expect(
                torch.equal(less.pick(range(len(index))), images.pick(index.tolist())),
                f"{where} holds other images",
            )
            after = (len(images), images.info.fingerprint, images.info.ids.tolist())
            expect(before == after, f"{where} changed {split} itself")

    # --- crops

    def test_crops_hold_what_the_contract_says(self) -> None:
        """Pretraining takes images, positions, ids, epochs, boxes and flips of a batch as told."""
        for split in SPLITS:
            images, index = self.images(split), cropped(self.images(split))
            got = crops(images, index, epoch=3)
            B, C = len(index), images.info.channels
            wanted = {
                "images": (torch.float32, (B, C, *images.info.size)),
                "index": (torch.int64, (B,)),
                "ids": (torch.int64, (B,)),
                "epoch": (torch.int64, (B,)),
                "boxes": (torch.float32, (B, 4)),
                "flips": (torch.bool, (B,)),
            }
            for what, (dtype, shape) in wanted.items():
                value = getattr(got, what)
                expect(
                    value.dtype == dtype and tuple(value.shape) == shape,
                    f"{what} of crops of {split} are {value.dtype} {tuple(value.shape)}; "
                    f"{dtype} {shape} is wanted",
                )
            expect(torch.equal(got.index, index), f"crops of {split} are not those asked for")
            expect(
                torch.equal(got.ids, images.info.ids[index]) and bool((got.epoch == 3).all()),
                f"crops of {split} have other ids or epochs than were asked for",
            )
            expect(bool((got.boxes[:, 2:] > 0).all()), f"a crop of {split} has an empty box")
            low, high = float(got.images.min()), float(got.images.max())
            expect(
                low >= 0 and 1 < high <= 255,
                f"crops of {split} go from {low:.3g} to {high:.3g}; 0..255 is wanted, normalising "
                "comes later",
            )

    def test_a_crop_is_cut_from_its_own_image(self) -> None:
        """Labels and ids go with a crop: one of another image would teach nonsense."""
        for split in SPLITS:
            images, index = self.images(split), cropped(self.images(split))
            shape = images.info.size[1] / images.info.size[0]
            augment = Augment(scale=(1.0, 1.0), aspect=(shape, shape), flip=False)
            got = crops(images, index, augment=augment).images
            own = images.pick(index.tolist()).float()
            if len(index) < 2 or float((own - own.roll(1, 0)).abs().mean()) < 1:
                raise NotChecked(f"{split} has too few different images to tell apart")
            mine, other = (float((got - x).abs().mean()) for x in (own, own.roll(1, 0)))
            expect(
                mine < other / 2,
                f"crops of whole images of {split} are {mine:.3g} away from their own images, "
                f"{other:.3g} from others: crops() must take plan's positions in their order",
            )

    def test_crops_are_drawn_by_seed_id_and_epoch_and_nothing_else(self) -> None:
        """A run that is resumed, or cut into other batches, must see the crops that it would."""
        for split in SPLITS:
            images, index = self.images(split), cropped(self.images(split))
            first = crops(images, index)
            with isolated(1, "crops"):
                again = crops(images, index)
            where = f"crops of {split}"
            expect(same_crops(first, again), f"{where} differ the second time, with the same seed")
            in_parts = crops(images, index, batch=3)
            expect(same_crops(first, in_parts), f"{where} depend on the batch they are in")
            other = images.subset(index)
            less = crops(other, torch.arange(len(index)))
            expect(same_crops(first, less), f"{where} differ in a subset: draw them by id")
            for what, changed in (
                ("epoch", crops(images, index, epoch=1)),
                ("seed", crops(images, index, seed=1)),
            ):
                expect(not same_crops(first, changed), f"{where} are the same in another {what}")

    # --- beside the images

    def test_the_global_random_state_is_left_as_it_was(self) -> None:
        """Whoever loads images must not change the weights that another part draws."""
        with isolated(0, "dataset"):
            before = global_state()
            made = self.made()
            for split in SPLITS:
                images = self.load(split, made)
                next(iter(images.whole(2)))
                crops(images, cropped(images))
            expect(
                before == global_state(),
                "loading or cropping changed the global random state of Python, numpy or torch: "
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
        expect("image_size" in preset, "preset() gives no image_size, which no one else can know")
        try:
            config = RunConfig(installed(), dataset=made)
            with isolated(0, "encoder"):
                config.encoder.build(config.size, 3)
        except ConfigError as error:
            raise Broken(f"preset() gives {preset}, which makes no run: {error}") from error

    def test_images_come_in_the_size_of_the_preset(self) -> None:
        """What the preset chose, the images are brought to."""
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
        made, told = self.made(), False
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for place, split in itertools.product((folder, folder / "none", None), SPLITS):
                try:
                    made.load(Request(split, **{**self.request, "data_dir": place}))
                except DataError as error:
                    told = True
                    expect(
                        str(error).strip() and "\n" not in str(error),
                        f"the message about missing files must be one line, got {str(error)!r}",
                    )
                except Exception as error:
                    raise Broken(
                        f"without files, {split} from data_dir={place} ends with "
                        f"{type(error).__name__}: {error}; raise DataError with what is missing, "
                        "where, and what to do"
                    ) from error
            left = sorted(path.name for path in folder.rglob("*"))
            expect(not left, f"load() wrote {', '.join(left[:3])} though download was False")
        if not told:
            raise NotChecked("it loads without any file of --data-dir")

    def test_every_option_matters(self) -> None:
        """An option that is never read promises what it does not do."""
        base = self.made()
        options = [option for option in type(base).model_fields if option != base.spec]
        if not options:
            raise NotChecked("it has no options")
        for option in options:
            changed = self.variations(option)
            expect(
                any(self._differ(base, other) for other in changed),
                f"option {option!r} changes neither images nor labels nor the preset "
                f"({', '.join(str(getattr(other, option)) for other in changed)} were tried)",
            )

    # --- helpers

    def _differ(self, one: Dataset, other: Dataset) -> bool:
        """Whether two data sets give other images, labels or presets.

        Raises:
            Broken: they give other images or labels under one fingerprint.
        """
        if one.preset() != other.preset():
            return True
        for split in SPLITS:
            mine, theirs = self.images(split), self.load(split, other)
            told = mine.info.fingerprint != theirs.info.fingerprint
            same = torch.equal(looked_at(mine), looked_at(theirs))
            same = same and equal(mine.info.labels, theirs.info.labels)
            expect(
                told or same,
                f"{other.changed()} gives other images or labels of {split} than {one.changed()}, "
                "with the same fingerprint",
            )
            if told or not same:
                return True
        return False
