"""Short seeded trainings on tiny pictures, on one thread: every loss, score and learning rate, and the weights.

Each validates after every step, so that the log has the loss of every step and not a mean of many.
"""

import json
import math
from pathlib import Path
from typing import Any

import pyvips
from unchanged_record import Record, clear, find_pictures

LORA = """
[[lora]]
convs = "block_?.c?_r.eval_conv"
rank = 2
alpha = 4.0
[[lora]]
convs = "conv_2.eval_conv"
rank = 4
alpha = 8.0
[[lora]]
convs = "upsampler.0"
rank = 4
alpha = 8.0
"""

RECIPES = {
    "pretrain-soap": """
        seed = 3
        optimiser = "soap"
        ema = 0.98
        sizes = [1.0, 0.7]
        validate_every = 1
        checkpoint_every = 100
        [network]
        scale = 4
        channels = 16
        form = "plain"
        [[stage]]
        iterations = 150
        batch = 4
        patch = 48
        learning_rate = 3e-3
        warmup = 10
        teacher_weight = 1.0
        precision = "fp32"
        [[stage]]
        iterations = 50
        batch = 2
        patch = 64
        learning_rate = 5e-4
        loss = "mse"
        teacher_weight = 1.0
        precision = "fp32"
    """,
    "pretrain-adam": """
        seed = 5
        teacher_ensemble = true
        ema = 0.98
        validate_every = 1
        checkpoint_every = 150
        [network]
        scale = 2
        channels = 12
        spread = 0.5
        [[stage]]
        iterations = 200
        batch = 4
        patch = 32
        learning_rate = 2e-3
        warmup = 20
        teacher_weight = 0.5
        precision = "fp32"
    """,
    "pretrain-start": """
        seed = 7
        ema = 0.9
        validate_every = 1
        [network]
        scale = 3
        channels = 26
        range = 1.0
        form = "plain"
        [[stage]]
        iterations = 60
        batch = 2
        patch = 48
        learning_rate = 2e-4
        loss = "psnr"
        hr_weight = 0.01
    """,
    "adapt-affinity": f"""
        seed = 1
        validations = 200
        [affinity]
        rows = 16
        {LORA}
        [[stage]]
        iterations = 150
        batch = 4
        patch = 64
        learning_rate = 2e-3
        final_learning_rate = 1e-4
        warmup = 10
        teacher_weight = 1.0
        affinity_weight = 0.5
        precision = "fp32"
        [[stage]]
        iterations = 50
        batch = 4
        patch = 48
        learning_rate = 1e-4
        teacher_weight = 1.0
        affinity_weight = 0.5
        precision = "fp32"
    """,
    "adapt-guard": f"""
        seed = 2
        copies = 2
        validations = 200
        guard_share = 0.4
        [affinity]
        rows = 0
        taps = ["block_1", "block_6"]
        {LORA}
        [[degrade]]
        kind = "blur"
        strength = [0.0, 1.0]
        probability = 0.5
        [[degrade]]
        kind = "downscale"
        [[degrade]]
        kind = "noise"
        strength = [10.0, 25.0]
        [[degrade]]
        kind = "jpeg"
        strength = [40.0, 90.0]
        probability = 0.7
        [[stage]]
        iterations = 200
        batch = 4
        patch = 48
        learning_rate = 2e-3
        warmup = 10
        teacher_weight = 1.0
        affinity_weight = 0.2
        precision = "fp32"
    """,
    "adapt-start": f"""
        seed = 4
        optimiser = "soap"
        teacher_ensemble = true
        sizes = [1.0, 0.8]
        validations = 30
        {LORA}
        [[stage]]
        iterations = 20
        batch = 4
        patch = 48
        learning_rate = 5e-4
        loss = "psnr"
        hr_weight = 0.01
        teacher_weight = 0.004
    """,
    "adapt-refused": f"""
        validations = 2
        {LORA}
        [[stage]]
        iterations = 2
        batch = 2
        patch = 32
        learning_rate = 1e-9
        precision = "fp32"
    """,
    "quantize": f"""
        seed = 6
        validations = 200
        {LORA}
        [[stage]]
        iterations = 200
        batch = 4
        patch = 48
        learning_rate = 3e-4
        warmup = 10
        hr_weight = 0.5
        teacher_weight = 1.0
        precision = "fp32"
    """,
}
"""By the name of the run that takes them. `pretrain-start` and `adapt-start` leave the precision to the processor."""


def record_trainings(record: Record, train: Path, domain: Path, weights: Path) -> None:
    """Record what trainings with every term of the losses learn."""
    photos, valid, own, like, others = _cut(record.folder / "training-pictures", train, domain)
    recipes = record.folder / "recipes"
    recipes.mkdir()
    for name, text in RECIPES.items():
        (recipes / f"{name}.toml").write_text(text.replace("\n        ", "\n"), encoding="utf-8")
    for name in ("span_x4_ch52", "span_x2_ch52"):
        record.call("trainings", name, "import", weights / f"{name}.safetensors", "-o", f"{name}.safetensors",
                    room="teachers")  # fmt: skip
    teachers = record.room("trainings", "teachers")
    teacher = teachers / "span_x4_ch52.safetensors"

    def run(verb: str, name: str, pictures: Path | None, *options: str | Path, room: str | None = None) -> None:
        recipe = recipes / f"{room or name}.toml"
        first: tuple[str | Path, ...] = (recipe,) if pictures is None else (pictures, "--recipe", recipe)
        record.call("trainings", name, verb, *first, *options, "--threads", "1", "--json", room=room)
        for log in sorted(record.room("trainings", room or name).rglob("log.jsonl")):
            _add_log(record, name, log)

    sets = ("--train", photos, "--valid", valid)
    run("pretrain", "pretrain-soap", None, *sets, "--teacher", teacher)
    run("pretrain", "pretrain-adam", None, *sets, "--teacher", teacher, "-o", "out")
    run("pretrain", "pretrain-adam resumed", None, *sets, "--teacher", teacher, "-o", "out", "--resume",
        room="pretrain-adam")  # fmt: skip
    run("pretrain", "pretrain-start", None, *sets, "--start", "span-x4", "-o", "out")
    run("adapt", "adapt-affinity", own, "--teacher", teacher)
    run("adapt", "adapt-affinity again", own, "--teacher", teacher, room="adapt-affinity")  # its output exists
    run("adapt", "adapt-guard", own, "--guard", others, "--valid", like, "-o", "guarded.safetensors")
    record.call("trainings", "inspect", "inspect", "guarded.safetensors", "--json", room="adapt-guard")
    run("adapt", "adapt-start", own, "--base", "span-x2", "--start", "span-x2-docs", "--valid", others, "--iterations",
        "30", "--teacher", teachers / "span_x2_ch52.safetensors", "-o", "begun.safetensors")  # fmt: skip
    run("adapt", "adapt-refused", own, "-o", "refused.safetensors")
    run("quantize", "quantize", photos, "--valid", valid, "-o", "int8.safetensors")
    clear(record.folder / "trainings")


def _add_log(record: Record, name: str, log: Path) -> None:
    """Record the log but for its times: `time`, `seconds_per_step` and `seconds_left`."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    record.add("trainings", name, "log keys", sorted({key for row in rows for key in row}))
    record.add("trainings", name, "steps", [row.get("step") for row in rows])
    for key, aspect in (("loss", "losses"), ("score", "scores"), ("learning_rate", "rates"), ("best", "best")):
        record.add("trainings", name, aspect, [_finite(row.get(key)) for row in rows])


def _finite(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _cut(folder: Path, train: Path, domain: Path) -> tuple[Path, ...]:
    """Cut tiny pictures: photographs to train on and to validate on, of the last domain twice, and of the first."""
    photographs = find_pictures(train)
    domains = sorted(path for path in domain.iterdir() if (path / "train").is_dir())
    groups = {
        "photos": (photographs[:: max(1, len(photographs) // 12)][:12], 96),
        "valid": (photographs[1 :: max(1, len(photographs) // 3)][:3], 72),
        "own": (find_pictures(domains[-1] / "train")[::5][:20], 112),
        "like": (find_pictures(domains[-1] / "train")[2::5][:20], 112),
        "others": (find_pictures(domains[0] / "train")[::3][:12], 96),
    }
    for name, (paths, side) in groups.items():
        (folder / name).mkdir(parents=True)
        for path in paths:
            image = pyvips.Image.new_from_file(str(path))
            busiest = image.smartcrop(side, side, interesting="entropy")
            busiest.write_to_file(str(folder / name / f"{path.stem}.png"), strip=True)
    return tuple(folder / name for name in groups)
