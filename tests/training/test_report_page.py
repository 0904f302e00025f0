"""The report of an adaptation, as a page."""

import re
from pathlib import Path

from dsclora.training import report_page
from helpers import photo


def test_the_page_escapes_names(tmp_path: Path) -> None:
    change = {"pictures": 1, "before": 20.0, "after": 21.0, "gain": 1.0, "interval": [1.0, 1.0], "confidence": 0.95}
    result = {"held_out": change, "general": None, "accepted": True}
    lr, hr = photo(20, 20), photo(40, 40)
    report_page.write(
        tmp_path / "p.html", "<b>", result, {"recipe": "&"}, [("<i>", 20.0, 21.0)], [("<u>", lr, hr, hr, hr)]
    )
    text = (tmp_path / "p.html").read_text()
    assert "<title>&lt;b&gt;</title>" in text
    assert "&lt;i&gt;" in text
    assert "&lt;u&gt;" in text
    assert text.count("data:image/webp") == 3
    assert not re.search(r"https?://", text)
    report_page.write(tmp_path / "q.html", "x", result, {}, [("caf\udce9", 20.0, 21.0)], [])
    assert r"caf\udce9" in (tmp_path / "q.html").read_text()
