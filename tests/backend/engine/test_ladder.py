"""What is done when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parities.tiny_flux2 import build_tiny_flux2
from underpaint_backend import malloc
from underpaint_backend.engine.cancel import Cancelled
from underpaint_backend.engine.device import KEPT, Device, open_device, use_onednn, uses_onednn
from underpaint_backend.engine.exceptions import OutOfMemory
from underpaint_backend.engine.ladder import NOTICES, Effort, Ladder, Rung
from underpaint_backend.engine.library import Library, LoadedModel
from underpaint_backend.engine.packing import bytes_of
from underpaint_backend.engine.painting import Observer, Painting, paint
from underpaint_backend.engine.precision import Memory, Storage
from underpaint_backend.models.catalog import Entry

from tests.backend.engine.cancelling import SetAfter
from tests.backend.engine.starving import Starved
from tests.backend.engine.test_painting import PAINTING
from tests.backend.engine.tiny import build_tiny

BATCH = replace(PAINTING, seeds=(1, 2, 3))
WIDE = replace(PAINTING, size=(192, 192), source=None, steps=2)


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """A model on the disk. It was made for large pictures, so that nothing is seen in windows."""
    entry = build_tiny(tmp_path_factory.mktemp("ladder") / "tiny", 9)
    return replace(entry, model=replace(entry.model, native_area=256 * 256))


@pytest.fixture
def library() -> Library:
    """A library with nothing in it."""
    return Library(open_device("cpu"))


@pytest.fixture
def model(library: Library, entry: Entry) -> LoadedModel:
    """A model that nobody else has."""
    return loaded(library, entry)


def loaded(library: Library, entry: Entry) -> LoadedModel:
    """The model, loaded."""
    return library.load(entry, lambda done: None, Event())


def painted(model: LoadedModel, painting: Painting, notices: list[str] | None = None) -> NDArray[np.uint8]:
    """The pictures of a painting; what the artist is told is added to `notices`."""
    told = [] if notices is None else notices
    return paint(model, painting, Observer(lambda phase: None, lambda step: None, told.append), Event())


def starve(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, part: str, is_too_much: Callable[..., bool]) -> Starved:
    """Let a network's `forward`, or that of "vae.decode", run out of memory when it is given too much."""
    name, _, method = part.partition(".")
    network: Any = model.family.parts[name]
    starved = Starved(getattr(network, method or "forward"), is_too_much)
    monkeypatch.setattr(network, method or "forward", starved)
    return starved


def apart(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(first.astype(int) - second.astype(int)).max())


@pytest.mark.parametrize("most", [5, 3, 2, 1])
def test_a_batch_is_split_until_it_fits(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Three guided images are six at once; whatever fits, the pictures are the same to one level."""
    expected = painted(model, BATCH)
    starved = starve(model, monkeypatch, "unet", lambda seen, *_, **__: len(seen) > most)
    notices: list[str] = []

    assert apart(painted(model, BATCH, notices), expected) <= 1
    assert model.ladder.reached == {Rung.SPLIT}
    assert model.ladder.splits_guidance == (most == 1)
    assert notices == [NOTICES[Rung.SPLIT]]
    assert starved.failures > 0


def test_a_step_that_failed_is_done_again_and_not_the_job(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out in the third step costs one evaluation: the steps before it are not repeated."""
    expected = painted(model, PAINTING)
    calls: list[int] = []

    def is_third(seen: torch.Tensor, *_: Any, **__: Any) -> bool:
        calls.append(len(seen))
        return len(calls) == 3

    starve(model, monkeypatch, "unet", is_third)

    assert apart(painted(model, PAINTING), expected) <= 1
    # two whole steps, the failure, and the rest with guidance in two passes
    assert calls == [2, 2, 2] + [1, 1] * (PAINTING.steps - 2)


def test_decoding_goes_in_tiles(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that the VAE cannot decode as a whole is decoded in tiles that are blended."""
    expected = painted(model, WIDE)
    starve(model, monkeypatch, "vae.decode", lambda latents, **_: latents.shape[-1] * model.latent_scale > 128)
    notices: list[str] = []
    found = painted(model, WIDE, notices)

    assert found.shape == expected.shape
    assert model.ladder.tile == 128
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 8  # norms see other statistics in tiles
    assert notices == [NOTICES[Rung.TILE]]


def test_the_text_encoder_goes_where_only_one_network_has_room(
    library: Library, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt stays encoded; what encoded it makes room, and the picture is the same."""
    painting = replace(PAINTING, guidance=1.0)
    expected = painted(model, painting)
    parts = model.family.parts
    starve(model, monkeypatch, "unet", lambda *_, **__: parts.key("text_encoder") in library.residency)

    np.testing.assert_array_equal(painted(model, painting), expected)
    assert model.ladder.reached == {Rung.ALONE}


def test_only_the_model_whose_networks_go_one_by_one_is_read_so(
    library: Library, model: LoadedModel, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next model has all of its networks read once; the first, when it comes again, has none read in vain."""
    parts, other, painting = model.family.parts, build_tiny(tmp_path / "other", 4), replace(PAINTING, steps=1)
    monkeypatch.setattr(library.residency, "give_back", lambda: None)  # which takes long
    with monkeypatch.context() as patch:
        starve(model, patch, "unet", lambda *_, **__: parts.key("text_encoder") in library.residency)
        painted(model, painting)
    assert library.residency.alone

    before = library.residency.reads
    painted(loaded(library, other), painting)
    assert library.residency.reads - before == len(parts.names)

    library.residency.clear()
    before = library.residency.reads
    painted(loaded(library, entry), replace(painting, prompt="a prompt that was not read yet"))
    assert library.residency.alone
    assert library.residency.reads - before == len(parts.names)


def test_what_is_split_already_is_not_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLUX.2 klein base has its guidance in two passes anyway: one image cannot be split, and nobody is told so."""
    library = Library(open_device("cpu"))
    model = loaded(library, build_tiny_flux2(tmp_path / "base", "klein base")[0])
    painting = replace(PAINTING, source=None, scheduler="euler", steps=2)
    expected, parts = painted(model, painting), model.family.parts
    starved = starve(model, monkeypatch, "transformer", lambda *_, **__: parts.key("text_encoder") in library.residency)
    notices: list[str] = []

    np.testing.assert_array_equal(painted(model, painting, notices), expected)
    assert starved.failures == 1
    assert model.ladder.reached == {Rung.ALONE}
    assert notices == [NOTICES[Rung.ALONE]]


def test_networks_stay_where_none_could_make_room(library: Library, model: LoadedModel) -> None:
    """If all networks are in use, none leaves, then or between later phases, and nobody is told that one did."""
    parts = model.family.parts

    def need_all() -> None:
        assert all(parts[name] is not None for name in parts.names)
        if parts.storage < Storage.FP8:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.ladder.attempt(Effort("loading"), need_all)
    model.ladder.begin()

    assert model.ladder.reached == {Rung.FP8}
    assert not library.residency.alone
    painted(model, PAINTING)
    assert model.description.id in library


def test_other_models_go_first(library: Library, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is idle makes room, and nothing else changes."""
    other = build_tiny(tmp_path / "other", 4)
    loaded(library, other)
    model = loaded(library, entry)
    starve(model, monkeypatch, "unet", lambda *_, **__: "other" in library)
    notices: list[str] = []
    painted(model, PAINTING, notices)

    assert model.ladder.reached == {Rung.EVICT}
    assert "other" not in library
    assert notices == []
    asked: list[int] = []
    monkeypatch.setattr(malloc, "return_above", asked.append)
    painted(model, PAINTING)
    assert asked == [KEPT]  # the faster setting of the allocator, which only who climbs does without


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With more of them, sums are rounded by where the weights lie."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("storage", "rung"), [(Storage.FP8, Rung.FP8), (Storage.FETCHED, Rung.FETCHED)])
def test_weights_are_kept_smaller(
    entry: Entry, model: LoadedModel, monkeypatch: pytest.MonkeyPatch, storage: Storage, rung: Rung
) -> None:
    """Where nothing else helps, the UNet's weights are packed, or read layer by layer; the picture stays near."""
    painting = replace(PAINTING, guidance=1.0)
    expected, parts = painted(model, painting), model.family.parts
    before = bytes_of(parts["unet"])
    predictor = model.family.predictor

    def starved_predictor(*given: Any) -> Any:
        return Starved(predictor(*given), lambda *_: parts.storage < storage)

    monkeypatch.setattr(model.family, "predictor", starved_predictor)
    notices: list[str] = []
    found = painted(model, painting, notices)

    assert max(model.ladder.reached) == rung
    assert NOTICES[rung] in notices
    assert bytes_of(parts["unet"]) < (0.4 if storage == Storage.FP8 else 0.1) * before
    anew = replace(painting, prompt="read by an encoder that is kept smaller, too")
    found_anew, expected_anew = painted(model, anew), painted(loaded(Library(open_device("cpu")), entry), anew)
    for one, other in ((found, expected), (found_anew, expected_anew)):
        if storage == Storage.FETCHED:
            np.testing.assert_array_equal(one, other)
        else:
            assert 0 < np.abs(one.astype(int) - other.astype(int)).mean() < 4


def test_cancelling_between_packed_layers_leaves_no_trace(library: Library, entry: Entry) -> None:
    """Weights that are packed or fetched paint the same picture after a job was cancelled in the middle."""
    for storage in (Storage.FP8, Storage.FETCHED):
        chosen = Memory(precision="fp8") if storage == Storage.FP8 else Memory(offload="group")
        model = loaded(Library(open_device("cpu"), chosen), entry)
        expected = painted(model, PAINTING)
        never = SetAfter(float("inf"))
        paint(model, PAINTING, Observer(lambda phase: None, lambda step: None), never)
        for part in (0.3, 0.6):
            ends = SetAfter(part * never.asked)
            with pytest.raises(Cancelled):
                paint(model, PAINTING, Observer(lambda phase: None, lambda step: None), ends)
            np.testing.assert_array_equal(painted(model, PAINTING), expected)
        assert model.family.parts.storage == storage
        assert model.ladder.notices == ()  # it was asked for


def test_the_end_of_the_ladder_says_the_numbers(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the last rung there is an error with what was needed and what was free, and the next job works."""
    predictor = model.family.predictor
    monkeypatch.setattr(model.family, "predictor", lambda *given: Starved(predictor(*given), lambda *_: True))
    with pytest.raises(OutOfMemory) as caught:
        painted(model, BATCH)
    monkeypatch.undo()

    assert "2.7 GB more" in caught.value.info.message  # 2.5 GiB
    assert "free" in caught.value.info.message
    assert caught.value.info.code == "out_of_memory"
    assert painted(model, BATCH).shape == (3, 64, 64, 3)


@pytest.fixture
def onednn() -> Iterator[None]:
    """In use, before and after."""
    use_onednn(True)
    yield
    use_onednn(True)


@pytest.mark.usefixtures("onednn")
def test_what_onednn_cannot_compile_is_calculated_without_it(model: LoadedModel) -> None:
    """Nothing else is done with less; the next job of this model does without it as well, that of another has it."""

    def compiled() -> str:
        if uses_onednn():
            raise RuntimeError("could not create a primitive")
        return "done"

    assert model.ladder.attempt(effort(), compiled) == "done"
    assert not model.ladder.reached
    Ladder(model.family.parts).begin()
    assert uses_onednn()
    model.ladder.begin()
    assert not uses_onednn()


@pytest.mark.usefixtures("onednn")
def test_the_numbers_are_those_of_the_last_error_that_said_any(model: LoadedModel) -> None:
    """oneDNN says none."""
    errors = [torch.OutOfMemoryError("Tried to allocate 2.50 GiB."), RuntimeError("could not create a primitive")]
    raised = iter(errors + errors[1:] * 20)

    def fail() -> None:
        raise next(raised)

    with pytest.raises(OutOfMemory, match=r"2\.7 GB more"):
        model.ladder.attempt(effort(), fail)


def test_errors_of_other_kinds_pass(model: LoadedModel) -> None:
    """Nothing is tried again after an error that more memory would not have prevented."""

    def fail() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Ladder(model.family.parts).attempt(effort(), fail)
    assert not model.ladder.reached


def effort() -> Effort:
    """Something that could do with less."""
    return Effort("denoising", images=4, guided=True)


def test_the_next_job_starts_where_the_last_one_ended(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rung that was reached is remembered, so that the next job does not fail first."""
    starved = starve(model, monkeypatch, "unet", lambda seen, *_, **__: len(seen) > 2)
    painted(model, BATCH)
    failures = starved.failures
    notices: list[str] = []
    painted(model, BATCH, notices)

    assert starved.failures == failures
    assert notices == [NOTICES[Rung.SPLIT]]


def test_it_goes_back_up_when_memory_is_there_again(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more is free than when it was too little, the next job tries everything at once again."""
    free = [8 << 30]
    monkeypatch.setattr(Device, "memory", lambda self: (free[0], 64 << 30))
    model = loaded(Library(open_device("cpu")), entry)
    starved = starve(model, monkeypatch, "unet", lambda seen, *_, **__: len(seen) > 2 and free[0] < 16 << 30)
    painted(model, BATCH)
    assert model.ladder.reached == {Rung.SPLIT}

    free[0] = 32 << 30
    failures = starved.failures
    painted(model, BATCH)

    assert not model.ladder.reached
    assert starved.failures == failures
