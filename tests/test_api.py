"""The Python interface: the surface is a list; the same kind of picture comes back; models travel."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dsclora
from dsclora.networks.span import SpanNetwork
from helpers import photo, random_model, save
from sample_user import enlarge


@pytest.fixture(scope="module")
def model() -> dsclora.Model:
    from dsclora.engines import Setting

    return dsclora.Model(random_model(), Setting("openvino", threads=1))


def test_the_surface_is_this_list() -> None:
    assert sorted(dsclora.__all__) == [
        "Adaptation", "Adapter", "DscloraError", "Engine", "EngineError", "ImageError", "MissingExtraError", "Model",
        "ModelError", "Network", "Options", "OutOfMemoryError", "OutputError", "RecipeError", "Report", "Result",
        "Scores", "TrainingError", "UsageError", "adapt", "attach", "evaluate", "export", "load", "load_adapter",
        "upscale",
    ]  # fmt: skip
    for name in dsclora.__all__:
        assert getattr(dsclora, name).__doc__, name
        assert name in dir(dsclora)
    with pytest.raises(AttributeError, match="no attribute 'enlarge'"):
        _ = dsclora.enlarge


def test_importing_loads_nothing() -> None:
    code = (
        "import sys, dsclora; print([m for m in ('numpy', 'pyvips', 'onnx', 'torch', 'openvino') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_importing_submodules_keeps_the_functions() -> None:
    """A submodule called as a public function would replace it when it is imported."""
    code = (
        "import pkgutil, importlib, dsclora\n"
        "for found in pkgutil.walk_packages(dsclora.__path__, 'dsclora.'):\n"
        "    if '__main__' not in found.name: importlib.import_module(found.name)\n"
        "print(all(callable(getattr(dsclora, name)) for name in dsclora.__all__ if name[0].islower()))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(20, 16), (20, 16, 1), (20, 16, 3), (20, 16, 4)])
def test_an_array_comes_back_as_an_array(model: dsclora.Model, dtype: Any, shape: tuple[int, ...]) -> None:
    bands = shape[2] if len(shape) == 3 else 1
    pixels = photo(20, 16, bands, dtype=np.uint8).reshape(shape)
    peak = {"u": 1, "f": 1 / 255}[np.dtype(dtype).kind] * (257 if dtype == np.uint16 else 1)
    picture = (pixels.astype(np.float64) * peak).astype(dtype)
    large = model(picture)
    assert large.shape == (40, 32, *shape[2:])
    assert large.dtype == picture.dtype
    as_bytes = model(pixels)
    assert np.abs(large.astype(np.float64) / peak - as_bytes).max() <= 1.5


def test_strides_and_byte_order_do_not_matter(model: dsclora.Model) -> None:
    pixels = photo(20, 16, dtype=np.uint16)
    expected = model(pixels)
    wide = np.zeros((40, 32, 6), np.uint16)
    wide[::2, ::2, ::2] = pixels
    for other in (wide[::2, ::2, ::2], np.asfortranarray(pixels), pixels.astype(">u2"), pixels[::-1][::-1]):
        assert np.array_equal(model(other), expected)


def test_a_batch_and_a_list(model: dsclora.Model) -> None:
    one, two = photo(20, 16), photo(20, 16, seed=1)
    batch = model(np.stack([one, two]))
    assert batch.shape == (2, 40, 32, 3)
    listed = model([one, photo(8, 9)])
    assert isinstance(listed, list)
    assert np.array_equal(listed[0], batch[0])
    assert listed[1].shape == (16, 18, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_pil_image_comes_back_as_one(model: dsclora.Model, mode: str) -> None:
    picture = Image.fromarray(photo(20, 16)).convert(mode)
    large = model(picture)
    assert isinstance(large, Image.Image)
    assert (large.mode, large.size) == (mode, (32, 40))
    if mode == "RGB":
        assert np.array_equal(np.asarray(large), model(np.asarray(picture)))


@pytest.mark.parametrize("shape", [(1, 20, 16), (3, 20, 16), (2, 3, 20, 16)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_a_tensor_comes_back_as_one(model: dsclora.Model, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    picture = torch.rand(shape, generator=random)
    picture = (picture * 255).round().to(dtype) if dtype == torch.uint8 else picture.to(dtype)
    large = model(picture)
    assert isinstance(large, torch.Tensor)
    assert large.shape == (*shape[:-2], 40, 32)
    assert large.dtype == dtype


def test_a_file_gives_an_array(model: dsclora.Model, tmp_path: Path) -> None:
    pixels = photo(20, 16)
    path = save(tmp_path / "in.png", pixels)
    for name in (path, str(path)):
        assert np.array_equal(model(name), model(pixels))
    assert [file.name for file in tmp_path.iterdir()] == ["in.png"], "nothing is written"


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "NoneType"),
        (b"bytes", "bytes"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.zeros((4, 4, 7), np.uint8), r"\(4, 4, 7\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.full((4, 4, 3), 2.0), "0..1"),
        (np.full((4, 4, 3), np.nan), "0..1"),
        (torch.zeros(4, 4), r"\(4, 4\)"),
    ],
)
def test_another_kind_is_told_with_what_is_taken(model: dsclora.Model, picture: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        model(picture)


@pytest.mark.slow
def test_a_model_travels_to_another_process(model: dsclora.Model) -> None:
    pixels = photo(20, 16)
    expected = model(pixels)
    assert np.array_equal(pickle.loads(pickle.dumps(model))(pixels), expected)
    with get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.map(model, [pixels])[0], expected)


def test_a_model_is_shared_by_threads(model: dsclora.Model) -> None:
    pictures = [photo(20 + n % 3, 16, seed=n) for n in range(12)]
    expected = [model(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        for large, alone in zip(pool.map(model, pictures), expected, strict=True):
            assert np.array_equal(large, alone)


def test_adapters_by_name_and_strength() -> None:
    plain, adapted = dsclora.load("span-x4"), dsclora.load("span-x4-photo")
    assert adapted.name == "span-x4+span-x4-photo"
    assert adapted.network.sha256 == dsclora.load(adapters=["span-x4-photo"]).network.sha256
    half = dsclora.load(adapters=[("span-x4-photo", 0.5)])
    assert half.network.sha256 == plain.merge(dsclora.load_adapter("span-x4-photo"), 0.5).network.sha256
    assert half.network.sha256 not in (plain.network.sha256, adapted.network.sha256)
    with pytest.raises(dsclora.ModelError, match="was made for"):
        dsclora.load("span-x2", adapters=["span-x4-photo"])
    with pytest.raises(dsclora.ModelError, match="no bundled model is called 'span-x5'"):
        dsclora.load("span-x5")


@pytest.mark.parametrize(
    ("adapters", "reason"),
    [
        ([("span-x4-docs", float("nan"))], "makes no sense"),
        ([("span-x4-docs", 1e30)], "makes no sense"),
        ([("span-x4-docs", "0.5")], "makes no sense"),
        ([("span-x4-docs", 1, 2)], "is a name, a file, an Adapter"),
        (["span-x4"], "span-x4 is a model, where adapter is asked for"),
        ([""], "is empty"),
    ],
)
def test_adapters_that_are_none(adapters: Any, reason: str) -> None:
    with pytest.raises((dsclora.DscloraError, TypeError), match=reason):
        dsclora.load("span-x4", adapters=adapters)


def test_an_adapter_in_every_form() -> None:
    expected = dsclora.load(adapters=[("span-x4-docs", 0.5)]).network.sha256
    for form in ("span-x4-docs:0.5", ["span-x4-docs:0.5"], [(dsclora.load_adapter("span-x4-docs"), 0.5)]):
        assert dsclora.load("span-x4", adapters=form).network.sha256 == expected
    assert dsclora.load("span-x4-docs:0.5").network.sha256 == expected


def test_wrong_arguments_are_told_at_once(model: dsclora.Model, tmp_path: Path) -> None:
    pixels = photo(8, 8)
    with pytest.raises(ValueError, match="choose reflect or zero, not 'reflct'"):
        model(pixels, border="reflct")  # type: ignore[call-overload]
    for threads in (0, -1, "2"):
        with pytest.raises(dsclora.UsageError, match="threads: a whole number from 1"):
            dsclora.load(threads=threads)  # type: ignore[arg-type]
    for name in ("", "span-x4-docs"):
        with pytest.raises(dsclora.DscloraError, match=r"is empty|where model is asked for"):
            dsclora.adapt(tmp_path, base=name, output=tmp_path / "a.safetensors")
    wrong: list[dict[str, Any]] = [
        {"border": "wrap"}, {"if_exists": "replace"}, {"quality": 95.5}, {"tile": "64"}, {"scale": "2"}, {"fit": (10,)},
        {"fit": "10x10"}, {"max_pixels": -1},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(dsclora.UsageError, match=f"--{next(iter(options)).replace('_', '-').split('-')[0]}"):
            dsclora.Options(**options)
    exports: list[tuple[str, dict[str, Any]]] = [
        ("onx", {}), ("onnx", {"precision": "fp8"}), ("onnx", {"size": (0, 1)}), ("onnx", {"size": (64.5, 48)})
    ]  # fmt: skip
    for target, others in exports:
        with pytest.raises(dsclora.UsageError, match=r"is not known|two whole numbers"):
            dsclora.export(model, target, tmp_path, **others)  # type: ignore[arg-type]
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    for changes in ({"rank": 0}, {"rank": 2.5}, {"alpha": float("nan")}):
        with pytest.raises(ValueError, match="rank"):
            dsclora.attach(net, **changes)
    with pytest.raises(TypeError, match=r"to_torch\(\)"):
        dsclora.attach(model)  # type: ignore[arg-type]


def test_the_surface_needs_no_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'scipy', 'jinja2')))\n"
        "import inspect, dsclora\n"
        "print(len(inspect.getmembers(dsclora)) > 20, 'Any' in dir(dsclora))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"


def test_pil_transparency_of_one_colour_is_kept(model: dsclora.Model) -> None:
    picture = Image.fromarray(photo(20, 16))
    picture.info["transparency"] = tuple(int(v) for v in photo(20, 16)[0, 0])
    assert model(picture).mode == "RGBA"


def test_save_and_load(model: dsclora.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    assert dsclora.load(tmp_path / "m.safetensors").network.fingerprint == model.network.fingerprint
    with pytest.raises(dsclora.OutputError, match="exists already"):
        model.save(tmp_path / "m.safetensors")


@pytest.mark.slow
def test_a_users_program(tmp_path: Path) -> None:
    save(tmp_path / "photo.png", photo(30, 40))
    assert enlarge(str(tmp_path / "photo.png"), tmp_path / "large").shape == (60, 80)


def test_upscale_files(model: dsclora.Model, tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", photo(20, 16))
    (done, missing) = sorted(
        dsclora.upscale([source, tmp_path / "no.png"], tmp_path / "out", model=model), key=lambda r: r.status
    )
    assert (done.status, done.output_size) == ("done", (32, 40))
    assert (tmp_path / "out" / "in.png").exists()
    assert missing.status == "failed"
    assert "no.png" in str(missing.error)


def test_evaluate(model: dsclora.Model, tmp_path: Path) -> None:
    save(tmp_path / "a.png", photo(64, 60))
    scores = dsclora.evaluate(model, tmp_path)
    assert scores.protocol["name"] == "classic-y"
    assert [score.name for score in scores.pictures] == ["a"]
    assert scores.psnr == scores.pictures[0].psnr
    with pytest.raises(dsclora.ImageError, match="not a folder"):
        dsclora.evaluate(model, tmp_path / "none")


def test_export(tmp_path: Path) -> None:
    report = dsclora.export(dsclora.Model(random_model()), "onnx", tmp_path)
    assert [file.suffix for file in report.files] == [".onnx"]
    assert report.files[0].exists()


def test_attach_trains_updates_alone() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 3, padding=1))
    adapted = dsclora.attach(net, rank=2, alpha=4)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(adapted(x), net(x))
    assert {name.split(".")[-1] for name, p in adapted.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    with pytest.raises(ValueError, match="no conv is called"):
        dsclora.attach(net, ["nothing*"])


def test_the_network_is_a_value() -> None:
    model = dsclora.load("span-x2")
    assert isinstance(model.network, SpanNetwork)
    assert (model.scale, model.parameters) == (2, 122_368)
    assert repr(model) == "<dsclora.Model span-x2 x2, 122,368 parameters>"
