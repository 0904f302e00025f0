"""What is missing of an extra is named, and nothing else is taken for it."""

import pytest

from dsclora.errors import MissingExtraError, needs_extra


@pytest.mark.parametrize("missing", ["pydantic", "pydantic.fields"])
def test_a_missing_package_is_named(missing: str) -> None:
    with pytest.raises(MissingExtraError, match=r"training needs pydantic, .* pip install 'dsclora\[train\]'"):  # noqa: SIM117
        with needs_extra("train", "training"):
            raise ModuleNotFoundError(name=missing)


@pytest.mark.parametrize(
    "broken", [ModuleNotFoundError(name="dsclora.training.moved"), ImportError(name="torch"), ModuleNotFoundError()]
)
def test_what_is_broken_is_not_called_missing(broken: ImportError) -> None:
    with pytest.raises(type(broken)) as raised, needs_extra("train", "training"):
        raise broken
    assert raised.value is broken
