"""Where OpenVINO is not installed that is one line; where it is, tests of every format hold for it too."""

from __future__ import annotations

import sys

import pytest

from raydistill.errors import ConfigError
from raydistill.export.formats import asked_for


def test_without_the_package_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError) as caught:
        asked_for(["openvino"], "--format")
    expected = "--format openvino: needs the package openvino; pip install openvino"
    assert str(caught.value) == expected
