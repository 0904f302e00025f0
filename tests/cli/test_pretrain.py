"""`dsclora pretrain`, as a user meets it."""

from pathlib import Path

import pyvips

from helpers import dsclora_, parsed, photo, save


def test_pretrain_end_to_end(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a.png", photo(48, 48))
    save(tmp_path / "valid" / "b.png", photo(32, 32, seed=1))
    (tmp_path / "tiny.toml").write_text(
        "[network]\nscale = 2\nchannels = 4\n[[stage]]\niterations = 4\nbatch = 1\npatch = 16\n"
    )
    arguments = ["pretrain", "tiny.toml", "--train", "train", "--valid", "valid"]
    report = parsed(dsclora_(*arguments, "--json", "--threads", 1, cwd=tmp_path))
    model = tmp_path / report["model"]
    assert not (model.parent / "pictures").exists()
    assert model == tmp_path / "runs" / "tiny" / "model.safetensors"
    dsclora_("upscale", "valid/b.png", "-m", model, "-o", "big.png", cwd=tmp_path)
    assert pyvips.Image.new_from_file(str(tmp_path / "big.png")).width == 64
    assert "--resume or choose another folder" in dsclora_(*arguments, cwd=tmp_path, code=1).stderr
    precious = model.parent / "pictures" / "mine.png"
    save(precious, photo(8, 8))
    dsclora_(*arguments, "--resume", cwd=tmp_path)
    assert [path.name for path in precious.parent.iterdir()] == ["mine.png"], "the store alone is removed"
