"""Import OpenVINO and ONNX Runtime without their telemetry; the package imports them nowhere else.

Left alone, both write an identifier into the home folder when they are imported, and send events to an analytics host.
Where a program has imported one of them before us, its telemetry is that program's business.
"""

import importlib
import os
import sys
from functools import cache
from typing import Any

_OPENVINO_TELEMETRY = "openvino_telemetry"

_ONNXRUNTIME_SWITCHES = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")  # its versions have one or the other


@cache
def import_openvino() -> Any:
    """Import `openvino` and return it.

    OpenVINO uses a stub where `openvino_telemetry` cannot be imported; so that import fails meanwhile.

    Raises:
        ImportError: it is not installed.
    """
    absent = object()
    before = sys.modules.get(_OPENVINO_TELEMETRY, absent)
    sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # an import of it raises
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_OPENVINO_TELEMETRY]
        if before is not absent:
            sys.modules[_OPENVINO_TELEMETRY] = before  # type: ignore[assignment]


@cache
def import_onnxruntime() -> Any:
    """Import `onnxruntime` and return it.

    It reads an environment variable once, when it is imported; the environment is put back afterwards.

    Raises:
        ImportError: it is not installed.
    """
    before = {name: os.environ.get(name) for name in _ONNXRUNTIME_SWITCHES}
    os.environ.update(dict.fromkeys(_ONNXRUNTIME_SWITCHES, "1"))
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    onnxruntime.disable_telemetry_events()  # of Windows, which has no such variable
    return onnxruntime
