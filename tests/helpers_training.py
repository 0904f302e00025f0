"""Recipes that tests of training share."""

from dsclora.training.recipes import AdaptRecipe, Lora, Stage

LORA = [Lora(convs="block_?.c?_r.eval_conv", rank=1, alpha=2), Lora(convs="upsampler.0", rank=4, alpha=8)]


def recipe(**changes: object) -> AdaptRecipe:
    stage: dict[str, object] = {
        "iterations": 40,
        "batch": 4,
        "patch": 32,
        "learning_rate": 5e-3,
        "final_learning_rate": 1e-4,
        "precision": "fp32",
    }
    stage |= {key: changes.pop(key) for key in list(changes) if key in Stage.model_fields}
    content = {"lora": LORA, "stage": [stage], "ema": 0.9, "validations": 4, **changes}
    return AdaptRecipe.model_validate(content)
