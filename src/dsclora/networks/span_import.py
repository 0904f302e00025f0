"""Import other people's SPAN files: plain or training form, safetensors or `.pth`."""

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsclora.errors import MissingExtraError, ModelError
from dsclora.networks import span
from dsclora.networks.span import CONVS_3X3, FORMAT, SPAN_MEAN, SPAN_RANGE, SpanNetwork, collapse_conv3xc, identify
from dsclora.networks.tensor_file import LARGEST_FILE, check_file, read_safetensors

_WRAPPERS = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")


def import_file(path: str | os.PathLike[str], license: str = "unknown") -> SpanNetwork:
    """Read anybody's SPAN: plain or training form, any width and scale, safetensors or `.pth`, wrapped or bare.

    The training form is collapsed; a `no_norm` tensor (neosr, traiNNer) means mean 0 and range 1. A `.pth` is read by
    torch's weights-only loader, which executes no code.

    Raises:
        ModelError: not readable, or not a SPAN; says what it looks like.
        MissingExtraError: a `.pth` without torch installed.
    """
    path = Path(path)
    if path.suffix.lower() in (".pth", ".pt", ".ckpt", ".bin"):
        tensors = _read_pickle(path)
    else:
        import ml_dtypes  # noqa: F401 (registers bfloat16 with NumPy; our own files do not need it)

        tensors, header = read_safetensors(path)
        if header.get("format") == FORMAT:
            return span.read(path)
    tensors = {k.removeprefix("module.").removeprefix("netG."): v for k, v in tensors.items()}
    norm = tensors.pop("no_norm", None) is None
    try:
        plain = _to_plain(tensors)
        channels, scale = identify(plain, str(path))
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: its tensors do not have SPAN's shapes ({error})") from error
    plain = {k: v.astype(np.float32) for k, v in plain.items()}
    if not all(np.isfinite(v).all() for v in plain.values()):
        raise ModelError(f"{path}: holds NaN or infinite weights; get the file again")
    mean, value_range = (SPAN_MEAN, SPAN_RANGE) if norm else ((0.0, 0.0, 0.0), 1.0)
    training = {"imported_from": path.name}
    return SpanNetwork(plain, scale, channels, mean, value_range, training, license, path.stem)


def _to_plain(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Collapse every Conv3XC found (in float64); a stored `eval_conv` beside one is a stale copy and dropped."""
    plain = dict(tensors)
    for name in CONVS_3X3:
        parts = {
            part: tensors[f"{name}.{part}"].astype(np.float64)
            for layer in ("conv.0", "conv.1", "conv.2", "sk")
            for part in (f"{layer}.weight", f"{layer}.bias")
            if f"{name}.{part}" in tensors
        }
        if len(parts) == 8:
            _check_conv3xc(name, parts)
            for part in parts:
                del plain[f"{name}.{part}"]
            plain[f"{name}.eval_conv.weight"], plain[f"{name}.eval_conv.bias"] = collapse_conv3xc(parts)
    return plain


def _check_conv3xc(name: str, parts: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse shapes that are no Conv3XC's: products of small files could take tens of gigabytes.

    Raises:
        ValueError: says which conv.
    """
    first, middle, last, skip = (parts[f"{part}.weight"].shape for part in ("conv.0", "conv.1", "conv.2", "sk"))
    inputs, outputs, into, out_of = first[1], last[0], first[0], last[1]
    if (
        middle != (out_of, into, 3, 3)
        or first != (into, inputs, 1, 1)
        or last != (outputs, out_of, 1, 1)
        or skip != (outputs, inputs, 1, 1)
        or into * outputs != out_of * inputs  # one gain
    ):
        raise ValueError(f"{name}: {first}, {middle}, {last}, {skip}")


def _read_pickle(path: Path) -> dict[str, npt.NDArray[Any]]:
    check_file(path)
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train", f"reading {path}") from error
    import pickle

    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":
        raise ModelError(f"{path}: not a PyTorch file")

    try:
        if start == b"PK":
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > LARGEST_FILE:
                    raise ModelError(f"{path}: unpacked it is too large for a SPAN model")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about suspicious pickles, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds Python objects beside weights, which could run code when loaded; refused. "
            "Ask its author for a safetensors file"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise ModelError(f"{path}: not a readable PyTorch file ({type(error).__name__})") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ModelError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors")
    tensors = list(content.values())
    odd = any(
        v.layout != torch.strided or v.is_meta or v.is_complex() or v.is_quantized or v.is_nested for v in tensors
    )
    if odd or 4 * sum(v.numel() for v in tensors) > LARGEST_FILE:
        raise ModelError(f"{path}: holds sparse, complex, quantized or huge tensors, which no SPAN has")
    return {str(k): v.detach().float().numpy() for k, v in content.items()}
